#!/usr/bin/env bash
# Make an environment out of luggage/ (see luggage.sh), without a network: a virtual environment over
# the packages of python3, which must have PyTorch and scikit-learn (fairseq imports it), with the
# wheels and this package on top.
#
#   bash scripts/gpu_check/unpack.sh VENV        PYTHON: the interpreter, with pip (default: python3)
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

venv=$1
python=${PYTHON:-python3}
"$python" -c 'import torch, sklearn' || {
    echo "gpu-check.sh: error: luggage/ holds neither PyTorch nor scikit-learn, and $python lacks one" >&2
    exit 1
}
# Not --system-site-packages: python3 may itself be that of a virtual environment. Its own pip
# installs, because ensurepip is missing in many distributions.
packages=$("$python" -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')
# Half an environment is of no use; one that was there before is somebody's.
[ -e "$venv" ] || trap '[ $? = 0 ] || rm -rf "$venv"' EXIT
"$python" -m venv --without-pip "$venv"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$packages" >"$site/of_the_machine.pth"
pip() {
    "$python" -m pip --python "$venv/bin/python" --disable-pip-version-check install \
        --quiet --no-index --no-deps --ignore-installed "$@"
}
pip luggage/*.whl
pip --no-build-isolation --editable .
