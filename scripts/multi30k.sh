#!/usr/bin/env bash
# Multi30k German-English with ADMIN, 6L-3L, D = 256: data, 1,800 updates, average of the last 5
# checkpoints, scores. Small enough for a CPU: --cpu --procs 1. There is no published recipe for
# text-only Multi30k; the settings are ours.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/pipeline.sh"

start multi30k "$@"
prepare
length=(--max-update 1800)
train fairseq-train "$data" --save-dir "$checkpoints" --seed 1 \
    --arch admin_transformer --share-all-embeddings --encoder-layers 6 --decoder-layers 3 \
    --encoder-embed-dim 256 --encoder-ffn-embed-dim 512 \
    --encoder-attention-heads 4 --decoder-attention-heads 4 --dropout 0.2 \
    --criterion admin_label_smoothed_cross_entropy --label-smoothing 0.1 \
    --optimizer radam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 \
    --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 300 --warmup-init-lr 1e-7 \
    --max-tokens 3000 "${length[@]}" --save-interval-updates 200 --keep-interval-updates 5 \
    --no-epoch-checkpoints --log-format json --log-interval 20 --num-workers 0
average update 5
evaluate --beam 5
