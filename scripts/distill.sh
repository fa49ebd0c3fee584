#!/usr/bin/env bash
# A small, fast student of a trained model: the teacher is exported to int8 and translates the training
# text, the student trains on that, is exported to int8 and, where DATA has a test set, scored beside its
# teacher. The student is the average of the last five epochs, or the best single checkpoint where that
# has the lower validation loss.
#
#   bash scripts/distill.sh TEACHER_CKPT DATA OUTPUT [--cpu] [-- OPTIONS OF THE STUDENT'S TRAINING...]
#
# TEACHER_CKPT is a checkpoint of `fairseq-train`, DATA the data folder (data-bin) it was trained on. The
# default student is post-LN, 6L-1L, D = 256, trained for 20 epochs; what stands behind -- wins (from an
# encoder as deep as the teacher's little is lost: the decoder is what takes time). Embeddings are shared
# (--share-all-embeddings) where DATA has one dictionary for both languages. Interrupted, the same command
# goes on where it stopped; other options of the training need another OUTPUT, unless they make it longer.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    header
    exit
fi
[[ $# -ge 3 ]] || die "give TEACHER_CKPT, DATA and OUTPUT"
teacher=$1 data=$2 output=$3
shift 3
cpu=() device=auto
while [[ $# -gt 0 && $1 != -- ]]; do
    [[ $1 == --cpu ]] || die "unknown option $1; options of the training go behind --"
    cpu=(--cpu) device=cpu && shift
done
if [[ $# -gt 0 ]]; then shift; fi
[[ -f $teacher ]] || die "no checkpoint $teacher"
[[ -d $data ]] || die "$data is not a folder"
mkdir -p "$output"
length=(--max-epoch 20)
same_training "$output" "$(cd "$data" && pwd)" "${length[*]}" "$@"

export_int8 "$teacher" "$data" "$output/teacher"
admin-nmt distill "$output/teacher" "$data" --output "$output/distilled" --device "$device"
made=$output/distilled/distillation.json
source=$(found "$made" source_lang) target=$(found "$made" target_lang)
share_embeddings "$output/distilled/data-bin" "$source" "$target"
fairseq-train "$output/distilled/data-bin" -s "$source" -t "$target" ${cpu[@]+"${cpu[@]}"} --save-dir "$output/checkpoints" --seed 1 \
    --arch admin_transformer --init-type default ${shared[@]+"${shared[@]}"} \
    --encoder-layers 6 --decoder-layers 1 --encoder-embed-dim 256 --encoder-ffn-embed-dim 1024 \
    --encoder-attention-heads 4 --decoder-attention-heads 4 --dropout 0.1 \
    --criterion admin_label_smoothed_cross_entropy --label-smoothing 0.1 \
    --optimizer radam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 \
    --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 1000 --warmup-init-lr 1e-7 \
    --max-tokens 4096 "${length[@]}" --keep-last-epochs 5 --log-format json --log-interval 100 "$@"
average_or_best "$output/checkpoints" "$output/distilled/data-bin" "$output/student.pt" ${cpu[@]+"${cpu[@]}"}
export_int8 "$output/student.pt" "$data" "$output/student"
if has_test "$data" "$source" "$target"; then
    admin-nmt evaluate "$data" --path "$teacher" --output "$output/scores-teacher" ${cpu[@]+"${cpu[@]}"}
    admin-nmt evaluate "$data" --path "$output/student.pt" --output "$output/scores-student" ${cpu[@]+"${cpu[@]}"}
fi
