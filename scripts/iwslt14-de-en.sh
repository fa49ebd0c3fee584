#!/usr/bin/env bash
# IWSLT14 German-English with ADMIN, 6L-6L: data, 100,000 updates, average of the last 10 epochs,
# scores. Made for one GPU. ADMIN_NMT_RECIPE=iwslt14_de_en_baseline trains the post-LN baseline.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pipeline.sh"

start iwslt14-de-en "$@"
prepare --joined-dictionary
train_recipe "${ADMIN_NMT_RECIPE:-iwslt14_de_en_admin}"
average --num-epoch-checkpoints 10
evaluate --beam 5
