#!/usr/bin/env bash
# WMT14 English-German: normalised, Moses tokens with split hyphens, 40,000 BPE merges, cleaned,
# binarised. Downloads 1.7 GB; an estimated 10 GB of disk.
# Result: prepared/wmt14-en-de/data-bin. Options are those of `admin-nmt prepare`; often wanted:
#   --output DIR          another place
#   --archives DIR        take the archives from there and use no network
#   --icml17              news-commentary v9, the original WMT14 data (default: v12, as fairseq)
#   --bpe-tokens 32764 --joined-dictionary    the merges of ADMIN in fairseq's recipe
#   --variant admin       ADMIN's own recipe: 32,764 merges, newstest2013 as valid, 1-80 words
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib/environment.sh"
exec admin-nmt prepare wmt14-en-de --output prepared/wmt14-en-de "$@"
