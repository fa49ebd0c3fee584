#!/usr/bin/env bash
# The whole test suite, in the environment that scripts/install.sh makes. Arguments go to pytest.
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/install.sh
# Two workers of one thread each: most tests are many small operations.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "${ADMIN_NMT_VENV:-.venv}/bin/python" -m pytest -n "${ADMIN_NMT_TEST_WORKERS:-2}" --dist loadgroup "$@"
