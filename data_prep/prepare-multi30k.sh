#!/usr/bin/env bash
# Multi30k German-English: Moses tokens, 8,000 BPE merges, one vocabulary, binarised.
# Result: prepared/multi30k/data-bin. Options are those of `admin-nmt prepare`; often wanted:
#   --output DIR     another place
#   --archives DIR   take train, val and test_2016_flickr (.de.gz, .en.gz) from there, no network
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib/environment.sh"
exec admin-nmt prepare multi30k --output prepared/multi30k "$@"
