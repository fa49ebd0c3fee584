#!/usr/bin/env bash
# IWSLT14 German-English with ADMIN, 6L-6L: data, 100,000 updates, average of the last 10 epochs,
# scores. Made for one GPU. ADMIN_NMT_RECIPE=iwslt14_de_en_baseline trains the post-LN baseline,
# iwslt14_de_en_rdrop R-Drop, whose best checkpoint by BLEU is scored, iwslt14_de_en_realformer RealFormer.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pipeline.sh"

start iwslt14-de-en "$@"
use_recipe iwslt14_de_en_admin
prepare --joined-dictionary
train_recipe
choose_as_recipe
evaluate --beam 5
