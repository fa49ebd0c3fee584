#!/usr/bin/env bash
# A model from genuine and back-translated text: a reverse model is exported to int8 and translates monolingual
# text of the target language, a model trains on both, and is scored where DATA has a test set: the average of
# its last five epochs, or the best single checkpoint where that has the lower validation loss (averaged.pt).
#
#   bash scripts/backtranslate.sh REVERSE_CKPT DATA TEXT OUTPUT [OPTIONS] [-- OPTIONS OF THE TRAINING...]
#
# REVERSE_CKPT is a checkpoint of `fairseq-train DATA -s TARGET -t SOURCE`, DATA the data folder (data-bin) it was
# trained on, TEXT raw sentences of the target language, one a line (.gz too). OPTIONS:
#   --cpu              translate and train on the CPU
#   --sampling         draw sources at random (Edunov et al. 2018): the default
#   --sampling-topk N  draw from the N most probable subwords
#   --beam N           search with a beam instead
#   --nbest N          sources of each sentence (default 1)
#   --ratio R          back-translated pairs for each genuine one in an epoch (default 1)
#   --clean-ratio R    leave out pairs with one side more than R times as long as the other (default 3)
#   --tag WORD         before each translated source (default <BT>); --no-tag: none
#   --batch-tokens N   subwords that are translated at once (default 4000)
# Embeddings are shared (--share-all-embeddings) where DATA has one dictionary for both languages. What stands
# behind -- wins over the options of the training here. Interrupted, the same command goes on where it
# stopped; other options need another OUTPUT, unless they make the training longer.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    header
    exit
fi
[[ $# -ge 4 ]] || die "give REVERSE_CKPT, DATA, TEXT and OUTPUT"
reverse=$1 data=$2 text=$3 output=$4
shift 4
cpu=() device=auto sampling='' topk=() beam=() options=() batch=()
while [[ $# -gt 0 && $1 != -- ]]; do
    case $1 in
        --cpu) cpu=(--cpu) device=cpu && shift ;;
        --no-tag) options+=("$1") && shift ;;
        --sampling) sampling=$1 && shift ;;
        --beam | --sampling-topk | --nbest | --ratio | --clean-ratio | --tag | --batch-tokens)
            [[ $# -gt 1 ]] || die "$1 needs a value"
            case $1 in
                --beam) beam=("$1" "$2") ;;
                --sampling-topk) topk=("$1" "$2") ;;
                --batch-tokens) batch=("$1" "$2") ;;
                *) options+=("$1" "$2") ;;
            esac
            shift 2
            ;;
        *) die "unknown option $1; options of the training go behind --" ;;
    esac
done
if [[ $# -gt 0 ]]; then shift; fi
search=(--sampling ${topk[@]+"${topk[@]}"})
if [[ ${#beam[@]} -gt 0 ]]; then
    [[ -z $sampling && ${#topk[@]} -eq 0 ]] || die "--beam searches without sampling: leave out one of them"
    search=("${beam[@]}")
fi
[[ -f $reverse ]] || die "no checkpoint $reverse"
[[ -d $data ]] || die "$data is not a folder"
[[ -f $text ]] || die "no file $text"
mkdir -p "$output"
# Like the device, the size of a batch decides only how fast text is translated.
length=(--max-epoch 20)
same_training "$output" "$(cd "$data" && pwd)" "${length[*]}" "${search[@]}" ${options[@]+"${options[@]}"} "$@"

export_int8 "$reverse" "$data" "$output/reverse"
admin-nmt backtranslate "$output/reverse" "$data" --input "$text" --output "$output/mixed" --device "$device" \
    "${search[@]}" ${options[@]+"${options[@]}"} ${batch[@]+"${batch[@]}"}
made=$output/mixed/back-translation.json
source=$(found "$made" source_lang) target=$(found "$made" target_lang) upsample=$(found "$made" upsample_primary)
share_embeddings "$output/mixed/data-bin" "$source" "$target"
fairseq-train "$output/mixed/data-bin" -s "$source" -t "$target" --upsample-primary "$upsample" \
    ${cpu[@]+"${cpu[@]}"} --save-dir "$output/checkpoints" --seed 1 \
    --arch admin_transformer ${shared[@]+"${shared[@]}"} \
    --criterion admin_label_smoothed_cross_entropy --label-smoothing 0.1 \
    --optimizer radam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 \
    --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 4000 --warmup-init-lr 1e-7 \
    --max-tokens 4096 "${length[@]}" --keep-last-epochs 5 --log-format json --log-interval 100 "$@"
average_or_best "$output/checkpoints" "$output/mixed/data-bin" "$output/averaged.pt" ${cpu[@]+"${cpu[@]}"}
if has_test "$output/mixed/data-bin" "$source" "$target"; then
    admin-nmt evaluate "$output/mixed/data-bin" --path "$output/averaged.pt" --output "$output/scores" ${cpu[@]+"${cpu[@]}"}
fi
