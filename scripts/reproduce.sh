#!/usr/bin/env bash
# One command per claim of docs/results: data, trainings, measurements, plots. See --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${ADMIN_NMT_VENV:-.venv}/bin/python" -m studies.reproduce "$@"
