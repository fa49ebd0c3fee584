# Where the project is (`root`), and the folder of the programs that all scripts run (`bin`): that of the
# environment that ADMIN_NMT_VENV names, as scripts/install.sh takes it; else of an active one that has
# admin-nmt; else of .venv. They are on PATH from here on. `venv` is the environment that install.sh makes. Sourced.
set -euo pipefail
root=$(unset CDPATH && cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=${ADMIN_NMT_VENV:-.venv}
[[ $venv == /* ]] || venv=$root/$venv
bin=$venv/bin
if [[ -z ${ADMIN_NMT_VENV:-} ]]; then
    program=$(type -P admin-nmt || true)
    active=${program%/*}
    # Without an interpreter beside its programs it is no environment, nor is a folder of links such as
    # ~/.local/bin; .venv itself may be active.
    if [[ -x $active/python && ! -L $program && ! $active -ef $bin ]]; then bin=$(unset CDPATH && cd "$active" && pwd); fi
fi
# What the caller has put before the programs stays before them. Folders are compared: a link to admin-nmt
# alone does not bring the others.
program=$(type -P admin-nmt || true)
[[ ${program%/*} -ef $bin ]] || PATH=$bin:$PATH
