# What the scripts of scripts/*.sh share; sourced by them.
#
#   die MESSAGE      one line and exit code 2
#   header           the comment at the top of the script, which is its help
#   found FILE KEY   the value of a key in a JSON file that a command of admin-nmt wrote
#   share_embeddings DATA SOURCE TARGET
#                    fills the array `shared`: --share-all-embeddings where both languages have the same
#                    dictionary; with separate ones fairseq refuses the option
#   has_test DATA SOURCE TARGET
#                    whether DATA has a test set; where it has none, a line says that nothing is scored
#   export_int8 CHECKPOINT DATA FOLDER
#                    FOLDER is CHECKPOINT exported to int8; made unless it is there, and anew where it is of
#                    another checkpoint
#   same_training FOLDER DATA LENGTH [OPTIONS...]
#                    dies where FOLDER/checkpoints are of a training on other data, with other options or
#                    longer, by FOLDER/settings.txt, which is written at its start; it may become longer.
#                    LENGTH, one word: --max-update and --max-epoch of the training, which OPTIONS may change
#   average_last KIND K CHECKPOINTS FILE [OPTIONS OF admin-nmt average...]
#                    FILE is the average of the last K checkpoints of KIND (epoch, update) in CHECKPOINTS: of
#                    all where there are fewer, and the best or last one where there is none
#   average_or_best CHECKPOINTS DATA FILE [--cpu]
#                    FILE is the average of the last five epochs in CHECKPOINTS, or the best single
#                    checkpoint where that has the lower loss on DATA's validation set
set -euo pipefail

unset CDPATH # with it, cd may go elsewhere and print where
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
scripts=$root/scripts

die() {
    echo "$(basename "$0"): error: $1 (see --help)" >&2
    exit 2
}

header() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
}

found() {
    sed -n "s/^ *\"$2\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p" "$1"
}

share_embeddings() {
    shared=()
    if cmp -s "$1/dict.$2.txt" "$1/dict.$3.txt"; then shared=(--share-all-embeddings); fi
}

has_test() {
    local file
    for file in "$1/test.$2-$3."* "$1/test.$3-$2."*; do # fairseq takes either name
        if [[ -e $file ]]; then return; fi
    done
    echo "$1 has no test set: nothing is scored"
    return 1
}

export_int8() {
    local force=()
    if [[ -f $3/export.json ]]; then
        if [[ $(found "$3/export.json" sha256) == "$(sha256sum <"$1" | cut -d ' ' -f 1)" ]]; then return; fi
        force=(--force)
    fi
    admin-nmt export "$1" "$2" --quantization int8 --output "$3" ${force[@]+"${force[@]}"}
}

# The name of an option without the signs and the group that Hydra's spelling has: +optimization.max_update.
bare() {
    local word=${1#+}
    word=${word#+}
    printf '%s' "${word#optimization.}"
}

# The options, quoted, without those that say how long to train.
but_for_length() {
    local left=() name
    while [[ $# -gt 0 ]]; do
        name=$(bare "$1")
        case $name in
            --max-epoch | --max-update | --stop-time-hours) if [[ $# -gt 1 ]]; then shift; fi ;;
            --max-epoch=* | --max-update=* | --stop-time-hours=*) ;;
            max_epoch=* | max_update=* | stop_time_hours=*) ;;
            *) left+=("$(printf %q "$1")") ;;
        esac
        shift
    done
    echo "${left[*]-}"
}

# The checkpoints in a folder, which may be a link to another disk; not those of folders in it.
saved() {
    find -H "$1" -maxdepth 1 -name '*.pt' 2>/dev/null || true
}

# The last value of an option of length (max_update, max_epoch, stop_time_hours) in words of either spelling;
# `unlimited` where there is none.
limit() {
    local option=--${1//_/-} value='' word previous=''
    for word in "${@:2}"; do
        word=$(bare "$word")
        if [[ $previous == "$option" ]]; then value=$word; fi
        case $word in "$option="* | "$1="*) value=${word#*=} ;; esac
        previous=$word
    done
    value=${value//[_\"\']/} # 50_000 and '50' are numbers to Hydra
    if [[ $value =~ ^[0-9]*\.?[0-9]+$ && $value =~ [1-9] ]]; then echo "$value"; else echo unlimited; fi
}

# Numbers may have decimals.
shorter() {
    [[ $1 != unlimited ]] && { [[ $2 == unlimited ]] || awk "BEGIN { exit !($1 < $2) }"; }
}

same_training() {
    local settings=$1/settings.txt data=$2 options was_data was_options was=() limits=() name remedy i
    options=$(but_for_length "${@:4}")
    for name in max_update max_epoch stop_time_hours; do
        limits+=("$(limit $name $3 "${@:4}")") # LENGTH without quotes, as words
    done
    # Without checkpoints nothing is gone on from; a folder of an earlier version does not say what it holds.
    if [[ -f $settings && -n $(saved "$1/checkpoints") ]]; then
        { IFS= read -r was_data && IFS= read -r was_options && read -r -a was; } <"$settings" || true
        remedy="give another folder, or delete $settings to go on with it"
        [[ $was_data == "$data" ]] || die "$1 holds a training on $was_data, not on $data: $remedy"
        [[ $was_options == "$options" ]] ||
            die "$1 holds a training with other options (${was_options:-none}; now ${options:-none}): $remedy"
        # fairseq would find nothing left to do, and the longer training be scored as this one.
        for i in 0 1 2; do
            if shorter "${limits[i]}" "${was[i]:-0}"; then
                die "$1 holds a training to ${was[*]} (updates, epochs, hours), which may be longer than one to ${limits[*]}: $remedy"
            fi
        done
    fi
    mkdir -p "$1"
    printf '%s\n' "$data" "$options" "${limits[*]}" >"$settings.tmp"
    mv "$settings.tmp" "$settings"
}

average_last() {
    local kind=$1 count=$2 folder=$3 name='checkpoint[0-9]+' there single
    if [[ $kind == update ]]; then name='checkpoint_[0-9]+_[0-9]+'; fi
    there=$(saved "$folder" | grep -cE "/$name\.pt$" || true)
    if [[ $there -eq 0 ]]; then
        for single in "$folder"/checkpoint_best.pt "$folder"/checkpoint_last.pt; do
            if [[ -f $single ]]; then
                echo "$folder holds no checkpoint of an $kind to average: $(basename "$single") is taken as it is"
                admin-nmt average --inputs "$single" --output "$4"
                return
            fi
        done
    elif [[ $there -lt $count ]]; then
        echo "$folder holds $there checkpoints of an $kind: they are averaged in place of $count"
        count=$there
    fi
    admin-nmt average --inputs "$folder" "--num-$kind-checkpoints" "$count" --output "$4" "${@:5}"
}

average_or_best() {
    local better=()
    # A training without validation has no best checkpoint.
    if [[ -f $1/checkpoint_best.pt ]]; then better=(--keep-better "$2" "${@:4}"); fi
    average_last epoch 5 "$1" "$3" ${better[@]+"${better[@]}"}
}
