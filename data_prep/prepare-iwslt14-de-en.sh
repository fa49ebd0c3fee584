#!/usr/bin/env bash
# IWSLT14 German-English: Moses tokens, cleaned, lower-cased, 10,000 BPE merges, binarised.
# Result: prepared/iwslt14-de-en/data-bin. Options are those of `admin-nmt prepare`; often wanted:
#   --output DIR          another place
#   --archives DIR        take de-en.tgz from there and use no network
#   --joined-dictionary   one vocabulary, for --share-all-embeddings (ADMIN, R-Drop)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib/environment.sh"
exec admin-nmt prepare iwslt14-de-en --output prepared/iwslt14-de-en "$@"
