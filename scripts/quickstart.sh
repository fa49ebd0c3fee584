#!/usr/bin/env bash
# From nothing to a deep translation model: install, make a small German-English corpus, train an
# ADMIN Transformer, translate its test set and print BLEU. See `bash scripts/quickstart.sh --help`.
set -euo pipefail
root=$(unset CDPATH && cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/install.sh"
venv=${ADMIN_NMT_VENV:-.venv}
[[ $venv == /* ]] || venv=$root/$venv # as install.sh takes it
exec "$venv/bin/python" "$root/scripts/quickstart/run.py" "$@"
