#!/usr/bin/env bash
# Any parallel text, plain or gzip: Moses tokens, cleaned, 10,000 BPE merges, binarised.
#   bash data_prep/prepare-custom.sh --source-lang de --target-lang en --corpus DIR
#       DIR has train.de, train.en, valid.*, test.*
#   bash data_prep/prepare-custom.sh --source-lang de --target-lang en \
#       --trainpref a/train --validpref a/dev --testpref a/test
# Result: prepared/custom/data-bin, or --output DIR. `admin-nmt prepare --help` has all options.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib/environment.sh"
exec admin-nmt prepare custom --output prepared/custom "$@"
