#!/usr/bin/env bash
# WMT14 English-French with ADMIN, 60L-12L: data, 50 epochs, average of the last 10, scores.
# Made for 16 GPUs; 8, 4 or 1 give the same updates, more slowly.
# ADMIN_NMT_RECIPE=wmt14_en_fr_60l_12l_realformer adds RealFormer and averages 25 epochs.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pipeline.sh"

start wmt14-en-fr "$@"
use_recipe wmt14_en_fr_60l_12l
prepare --joined-dictionary
train_recipe
choose_as_recipe
evaluate --beam 10
