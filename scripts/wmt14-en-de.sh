#!/usr/bin/env bash
# WMT14 English-German with ADMIN: data as the authors made it, 60L-12L, average of the last 10
# epochs, scores. Made for 8 GPUs; 4 or 1 give the same updates, more slowly.
# ADMIN_NMT_RECIPE=wmt14_en_de_6l_6l, _18l_18l or _100l_100l trains another depth,
# wmt14_en_de_18l_18l_realformer or wmt14_en_de_big_rdrop another method.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pipeline.sh"

start wmt14-en-de "$@"
use_recipe wmt14_en_de_60l_12l
prepare --variant admin
train_recipe
choose_as_recipe
evaluate --beam 4 --lenpen 0.6
