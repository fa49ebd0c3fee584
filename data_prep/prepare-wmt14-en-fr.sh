#!/usr/bin/env bash
# WMT14 English-French: normalised, Moses tokens with split hyphens, 40,000 BPE merges, cleaned,
# binarised. Downloads 6.6 GB; an estimated 50 GB of disk.
# Result: prepared/wmt14-en-fr/data-bin. Options are those of `admin-nmt prepare`; often wanted:
#   --output DIR          another place
#   --archives DIR        take the archives from there and use no network
#   --joined-dictionary   one vocabulary, for --share-all-embeddings
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib/environment.sh"
exec admin-nmt prepare wmt14-en-fr --output prepared/wmt14-en-fr "$@"
