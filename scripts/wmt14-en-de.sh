#!/usr/bin/env bash
# WMT14 English-German with ADMIN: data as the authors made it, 60L-12L, average of the last 10
# epochs, scores. Made for 8 GPUs; 4 or 1 give the same updates, more slowly.
# ADMIN_NMT_RECIPE=wmt14_en_de_6l_6l, _18l_18l or _100l_100l trains another depth.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pipeline.sh"

start wmt14-en-de "$@"
prepare --variant admin
train_recipe "${ADMIN_NMT_RECIPE:-wmt14_en_de_60l_12l}"
average --num-epoch-checkpoints 10
evaluate --beam 4 --lenpen 0.6
