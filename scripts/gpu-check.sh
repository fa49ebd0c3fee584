#!/usr/bin/env bash
# Check admin_nmt on this machine's GPU and measure it: kernels against float64, training speed and
# memory against fairseq's own Transformer, a deep training, translation, export. Results go to a
# folder as soon as they are there. See `bash scripts/gpu-check.sh --help` and docs/gpu.md.
#
# Where there is no .venv yet, or half a one, it is made: from the wheels in luggage/ if that folder is there (no
# network; PyTorch is then taken from the python3 of the machine), else by scripts/install.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/environment.sh"
# The last thing that is installed; not found in the current folder (-P).
if ! "$bin/python" -P -c 'import admin_nmt_autoload' 2>/dev/null; then
    if [ -d "$root/luggage" ]; then
        bash "$root/scripts/gpu_check/unpack.sh" "$venv"
    else
        bash "$root/scripts/install.sh"
    fi
    bin=$venv/bin
fi
export PYTHONPATH="$root/scripts${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "$bin/python" -m gpu_check "$@"
