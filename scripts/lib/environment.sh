# Where the project is (`root`), and the folder of the programs that all scripts run (`bin`): that of the
# environment that ADMIN_NMT_VENV names, as scripts/install.sh takes it; else of an active one that has
# admin-nmt; else of .venv. They are on PATH from here on. `venv` is the environment that install.sh makes. Sourced.
set -euo pipefail
root=$(unset CDPATH && cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=${ADMIN_NMT_VENV:-.venv}
[[ $venv == /* ]] || venv=$root/$venv
bin=$venv/bin
if [[ -z ${ADMIN_NMT_VENV:-} ]]; then
    active=$(type -P admin-nmt || true)
    active=${active%/*}
    # Without an interpreter beside its programs it is no environment; .venv itself may be active.
    if [[ -x $active/python && ! $active -ef $bin ]]; then bin=$(unset CDPATH && cd "$active" && pwd); fi
fi
# What the caller has put before the programs stays before them.
[[ $(type -P admin-nmt || true) -ef $bin/admin-nmt ]] || PATH=$bin:$PATH
