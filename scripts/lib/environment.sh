# Where the project and its environment are, as scripts/install.sh takes ADMIN_NMT_VENV; sourced.
set -euo pipefail
root=$(unset CDPATH && cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=${ADMIN_NMT_VENV:-.venv}
[[ $venv == /* ]] || venv=$root/$venv
