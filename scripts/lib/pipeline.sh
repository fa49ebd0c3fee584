# The steps that the pipelines of scripts/*.sh share; sourced by them.
#
#   start NAME "$@"     reads the options; sets `output`, `data`, `folder`, `checkpoints`, `overrides`
#   use_recipe NAME     a recipe of configs/ (ADMIN_NMT_RECIPE takes another of this corpus) with a folder of its own,
#                       OUTPUT/RECIPE, beside the prepared data that all recipes share
#   prepare OPTIONS...  admin-nmt prepare NAME, unless --data was given
#   train COMMAND...    one process per GPU; the user's overrides come after COMMAND. A folder whose training
#                       is on other data, with other overrides or longer is refused. The array `length` is
#                       LENGTH of same_training
#   train_recipe        train with the recipe
#   average KIND K      the last K checkpoints of KIND (epoch, update), or as many as there are, averaged
#                       -> FOLDER/averaged.pt, which is then `model`
#   choose_as_recipe    sets `model` to what the recipe's published score is of: its best checkpoint (by
#                       BLEU where it says so), or the average of the last epochs where it keeps some;
#                       the overrides win
#   evaluate OPTIONS... admin-nmt evaluate of `model` -> FOLDER/scores
#
# Every step can be interrupted: the same command goes on where it stopped.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    header
    cat <<END

Usage: bash scripts/$(basename "$0") [OPTIONS] [-- OVERRIDES...]
  --output DIR    folder for everything (default: outputs/$name)
  --archives DIR  take the corpus from here; no network is used
  --data DIR      binarised data (data-bin) that is there already; nothing is prepared
  --procs P       processes, one per GPU (default: all GPUs)
  --cpu           train and translate on the CPU (with --procs P)
  --help          this text
OVERRIDES go to the training command, after everything else. A folder is of one training, which may be
made longer: other OVERRIDES or --data, or a shorter training, need another --output.
END
}

start() {
    name=$1 output=outputs/$1 archives='' data='' launch=() cpu=()
    shift
    while [[ $# -gt 0 && $1 != -- ]]; do
        case $1 in
            --help | -h) usage && exit ;;
            --cpu) cpu=(--cpu) && shift ;;
            --output | --archives | --data | --procs)
                [[ $# -gt 1 ]] || die "$1 needs a value"
                if [[ $1 == --procs ]]; then launch=(--procs "$2"); else printf -v "${1#--}" %s "$2"; fi
                shift 2
                ;;
            *) die "unknown option $1; options of the training go behind --" ;;
        esac
    done
    if [[ $# -gt 0 ]]; then shift; fi
    overrides=("$@")
    mkdir -p "$output"
    output=$(cd "$output" && pwd) # the recipes want absolute paths
    folder=$output checkpoints=$output/checkpoints
}

use_recipe() {
    recipe=${ADMIN_NMT_RECIPE:-$1}
    config=$scripts/../configs/$recipe.yaml
    [[ -f $config ]] || die "ADMIN_NMT_RECIPE names no recipe: there is no configs/$recipe.yaml"
    [[ $recipe == "${name//-/_}_"* ]] || die "ADMIN_NMT_RECIPE: configs/$recipe.yaml is not for $name"
    # Another recipe's checkpoints would be gone on from, averaged, and scored as this one's.
    folder=$output/$recipe checkpoints=$output/$recipe/checkpoints
}

prepare() {
    if [[ -n $data ]]; then
        [[ -d $data ]] || die "--data $data is not a folder"
        data=$(cd "$data" && pwd)
        return
    fi
    local from=()
    if [[ -n $archives ]]; then from=(--archives "$archives"); fi
    admin-nmt prepare "$name" --output "$output/prepared" ${from[@]+"${from[@]}"} "$@"
    data=$output/prepared/data-bin
}

train() {
    # Data of the output folder by their place in it: it may be moved.
    same_training "$folder" "${data#"$output"/}" "${length[*]}" ${overrides[@]+"${overrides[@]}"}
    bash "$scripts/train-multi-gpu.sh" ${launch[@]+"${launch[@]}"} ${cpu[@]+"${cpu[@]}"} -- \
        "$@" ${overrides[@]+"${overrides[@]}"}
}

# A path as a value for Hydra, which without quotes splits it at commas and refuses umlauts, brackets and more.
quoted() {
    local escaped=\\\'
    printf "'%s'" "${1//\'/$escaped}"
}

train_recipe() {
    length=($(sed -n -E 's/^  (max_update|max_epoch): *([^ #]+).*/\1=\2/p' "$config"))
    train fairseq-hydra-train --config-name "$recipe" "task.data=$(quoted "$data")" \
        "checkpoint.save_dir=$(quoted "$checkpoints")" "hydra.run.dir=$(quoted "$folder")"
}

average() {
    model=$folder/averaged.pt
    average_last "$1" "$2" "$checkpoints" "$model"
}

# The value of a key of the group `checkpoint`: that of the last override, else the recipe's.
saving() {
    local value option
    value=$(sed -n "s/^  $1: \([^ #]*\).*/\1/p" "$config")
    for option in ${overrides[@]+"${overrides[@]}"}; do
        option=${option#+} option=${option#+}
        if [[ $option == "checkpoint.$1="* ]]; then value=${option#*=}; fi
    done
    echo "$value"
}

choose_as_recipe() {
    local kept
    kept=$(saving keep_last_epochs)
    if [[ ! $kept =~ ^[1-9][0-9]*$ || $(saving best_checkpoint_metric) == bleu ]]; then
        model=$checkpoints/checkpoint_best.pt
    else
        average epoch "$kept"
    fi
}

evaluate() {
    admin-nmt evaluate "$data" --path "$model" --output "$folder/scores" \
        ${cpu[@]+"${cpu[@]}"} "$@"
}
