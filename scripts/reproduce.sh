#!/usr/bin/env bash
# One command per claim of docs/results: data, trainings, measurements, plots. See --help.
set -euo pipefail
root=$(unset CDPATH && cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${ADMIN_NMT_VENV:-.venv}
[[ $venv == /* ]] || venv=$root/$venv # as install.sh takes it
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$venv/bin/python" -m studies.reproduce "$@"
