#!/usr/bin/env bash
# Make an environment out of luggage/ (see luggage.sh), without a network: a virtual environment over
# the packages of python3, which must have PyTorch, with the wheels and this package on top.
#
#   bash scripts/gpu_check/unpack.sh VENV        PYTHON: the interpreter (default python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

venv=$1
python=${PYTHON:-python3}
"$python" -c 'import torch' 2>/dev/null || {
    echo "gpu-check.sh: error: $python has no PyTorch, which luggage/ does not hold" >&2
    exit 1
}
# Not --system-site-packages: python3 may itself be that of a virtual environment.
packages=$("$python" -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')
"$python" -m venv "$venv"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$packages" >"$site/of_the_machine.pth"
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-index --no-deps luggage/*.whl
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-index --no-deps \
    --no-build-isolation --editable .
