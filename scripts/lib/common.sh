# What the scripts of scripts/*.sh share; sourced by them.
#
#   die MESSAGE      one line and exit code 2
#   header           the comment at the top of the script, which is its help
#   found FILE KEY   the value of a key in a JSON file that a command of admin-nmt wrote
#   share_embeddings DATA SOURCE TARGET
#                    fills the array `shared`: --share-all-embeddings where both languages have the same
#                    dictionary; with separate ones fairseq refuses the option
#   export_int8 CHECKPOINT DATA FOLDER
#                    FOLDER is CHECKPOINT exported to int8; made unless it is there, and anew where it is of
#                    another checkpoint
#   average_or_best CHECKPOINTS DATA FILE [--cpu]
#                    FILE is the average of the last five epochs in CHECKPOINTS, or the best single
#                    checkpoint where that has the lower loss on DATA's validation set
set -euo pipefail

unset CDPATH # with it, cd may go elsewhere and print where
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
scripts=$root/scripts
PATH=$bin:$PATH

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

export_int8() {
    local force=()
    if [[ -f $3/export.json ]]; then
        if [[ $(found "$3/export.json" sha256) == "$(sha256sum <"$1" | cut -d ' ' -f 1)" ]]; then return; fi
        force=(--force)
    fi
    admin-nmt export "$1" "$2" --quantization int8 --output "$3" ${force[@]+"${force[@]}"}
}

average_or_best() {
    local better=()
    # A training without validation has no best checkpoint.
    if [[ -f $1/checkpoint_best.pt ]]; then better=(--keep-better "$2" "${@:4}"); fi
    admin-nmt average --inputs "$1" --num-epoch-checkpoints 5 --output "$3" ${better[@]+"${better[@]}"}
}
