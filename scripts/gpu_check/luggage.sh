#!/usr/bin/env bash
# Collect into luggage/ the wheels that a Linux machine (x86-64, Python 3.12) with PyTorch, numpy and
# scikit-learn but without a network needs for scripts/gpu-check.sh. Run it where there is a network.
#
#   bash scripts/gpu_check/luggage.sh        PYTHON: interpreter with pip (default: that of all scripts)
#
# Without matplotlib there are no plots. CTranslate2 stays out: its wheels want the CUDA libraries of
# one version; without it the stage `export` is skipped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib/environment.sh"
cd "$root"

python=${PYTHON:-$bin/python}
limit=$((64 * 1024 * 1024))
binary=(
    fairseq-fixed==0.12.3.1 hydra-core omegaconf bitarray cffi pycparser sacremoses subword-nmt
    sacrebleu portalocker tabulate regex lxml colorama tqdm click joblib mock PyYAML packaging
    cloudpickle pooch platformdirs requests urllib3 idna certifi charset-normalizer
    pydantic pydantic-core annotated-types typing-inspection filelock typing-extensions
    liger-kernel==0.8.5
    'setuptools>=77,<82' # builds this package there; before 82, as PyTorch of that time wants it
)
pip() { "$python" -m pip --disable-pip-version-check "$@"; }

mkdir -p luggage
rm -f luggage/*.whl
# Pure Python packages whose makers offer no wheel are built here; they fit everywhere.
pip wheel --quiet --no-deps --wheel-dir luggage antlr4-python3-runtime==4.9.3
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_26 manylinux_2_24 manylinux_2_17 manylinux_2_12 manylinux2014; do
    platforms+=(--platform "${tag}_x86_64")
done
pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version 3.12 \
    "${platforms[@]}" --constraint constraints.txt --dest luggage "${binary[@]}"
size=$(du -bc luggage/*.whl | tail -1 | cut -f1)
if [ "$size" -gt "$limit" ]; then
    echo "luggage.sh: error: luggage/ has $size bytes, more than $limit" >&2
    exit 1
fi
echo "luggage/: $(ls luggage/*.whl | wc -l) wheels, $((size / 1024 / 1024)) MiB"
