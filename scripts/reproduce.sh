#!/usr/bin/env bash
# One command per claim of docs/results: data, trainings, measurements, plots. See --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/environment.sh"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$bin/python" -m studies.reproduce "$@"
