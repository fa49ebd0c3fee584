#!/usr/bin/env bash
# Make .venv beside this folder and install admin_nmt with all it needs. Safe to run again: what is
# there is kept. On x86-64 Linux with Python 3.11 or 3.12 nothing is compiled; elsewhere fairseq is, for
# about three minutes, with the C++ compiler that this needs.
#
#   PYTHON             interpreter to make it with (default: the first that works of python3.12,
#                      python3.11, python3); 3.11 or newer
#   ADMIN_NMT_TORCH    requirement for PyTorch (default: the one given before, else the tested torch==2.13.0)
#   ADMIN_NMT_VENV     place of the environment (default: .venv)
#
# With uv on PATH packages are installed by it, which is faster and takes the build of PyTorch for this
# machine (CPU or CUDA); ADMIN_NMT_UV=0 keeps to pip.
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ $# -gt 0 ]; then
    case $1 in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/install.sh ;;
    *)
        echo "install.sh: error: $1: there are no arguments; --help tells the variables" >&2
        exit 2
        ;;
    esac
    exit 0
fi

VENV=${ADMIN_NMT_VENV:-.venv}
own=$VENV/bin/python
there=
"$own" -c '' 2>/dev/null && there=yes # not where its interpreter is gone
# What was installed: the project's folder, the environment's place, the requirement for PyTorch, and whether
# that was `given` by the user or is `ours`, a line each.
# Empty where an earlier version wrote it: then the environment itself is asked, but for PyTorch.
stamp=$VENV/.admin_nmt_installed
project= place= torch= whose=
if [ -n "$there" ] && [ -s "$stamp" ]; then
    { IFS= read -r project && IFS= read -r place && IFS= read -r torch && IFS= read -r whose; } <"$stamp" || true
elif [ -n "$there" ] && [ -f "$stamp" ]; then
    project=$("$own" -P -c 'import importlib.util as u; print(u.find_spec("admin_nmt").origin)' 2>/dev/null || true)
    project=${project%/admin_nmt/__init__.py}
    place=$(sed -n '1,2s/^[^/]*\(\/.*\)\/bin\/python.*/\1/p' "$VENV/bin/admin-nmt" 2>/dev/null || true)
fi
# Earlier versions kept no word about whose choice it was, and chose this one.
[ -n "$whose" ] || [ -z "$torch" ] || [ "$torch" = torch==2.13.0 ] || whose=given
remember() { printf '%s\n' "$PWD" "$(cd "$VENV" && pwd)" "$torch" "$whose" >"$stamp"; }
if [ "$project" -ef . ] && [ "$torch" = "${ADMIN_NMT_TORCH:-$torch}" ] &&
    [ ! pyproject.toml -nt "$stamp" ] && [ ! constraints.txt -nt "$stamp" ]; then
    if [ -n "${ADMIN_NMT_TORCH:-}" ] && [ "$whose" != given ]; then whose=given && remember; fi
    exit 0
fi
# Programs of an environment that was moved or copied name the interpreter of its old place.
if [ -n "$place" ] && ! [ "$place" -ef "$VENV" ]; then
    echo "install.sh: error: $VENV was made as $place and does not work here: remove it, then run this again" >&2
    exit 1
fi
if [ -n "$there" ]; then
    PYTHON=$own # what is there is kept
elif [ -z "${PYTHON:-}" ]; then
    # Each is tried: the shim of a version manager can be on PATH and still fail.
    for PYTHON in python3.12 python3.11 python3; do
        "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    done
fi

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    [ -n "$there" ] && remedy="remove $VENV" || remedy="set PYTHON to another one"
    echo "install.sh: error: $PYTHON does not run or is older than Python 3.11; $remedy" >&2
    exit 1
}
if [ -n "${ADMIN_NMT_TORCH:-}" ]; then
    torch=$ADMIN_NMT_TORCH whose=given
elif [ "$whose" != given ]; then
    torch=torch==2.13.0 whose=ours
fi
compiled=$("$PYTHON" -c 'import platform, sys
ready = sys.version_info[:2] in ((3, 11), (3, 12)) and (sys.platform, platform.machine()) == ("linux", "x86_64")
print("" if ready else ", compiling fairseq for three minutes")')
echo "== installing into $VENV with $("$PYTHON" --version), some minutes, most of them downloads$compiled"
if [ -z "$there" ]; then
    # What an interpreter that is gone has left does not serve another one.
    [ -f "$VENV/pyvenv.cfg" ] && clear=--clear || clear=
    "$PYTHON" -m venv "$VENV" ${clear:+"$clear"}
fi
if [ "${ADMIN_NMT_UV:-1}" != 0 ] && uv --version >/dev/null 2>&1; then
    # The build for this machine's GPU or none, unless the user says which PyTorch.
    [ $whose = given ] || export UV_TORCH_BACKEND=${UV_TORCH_BACKEND:-auto}
    # Compiled as pip does it: else the first start of each program is slow and, from Python 3.12 on,
    # shows warnings about fairseq's source.
    pip_install() { uv pip install --compile-bytecode --python "$own" --constraint constraints.txt "$@"; }
else
    # Missing where making the environment was interrupted, or failed for want of the package python3-venv.
    "$own" -c 'import pip' 2>/dev/null || "$own" -m ensurepip
    pip_install() { "$own" -m pip --disable-pip-version-check install --constraint constraints.txt "$@"; }
    pip_install --quiet --upgrade pip
fi
# A heading, and behind it the seconds that installing took.
step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    pip_install "$@"
    echo "   $((SECONDS - start)) s"
}
# Somebody who watches sees PyTorch's download, which is most of the time; a log has no use for it.
quiet=--quiet
[ -t 1 ] && quiet=
# PyTorch first and fairseq without build isolation: otherwise pip downloads a second PyTorch
# just to compile fairseq's extensions.
step "PyTorch" ${quiet:+"$quiet"} "$torch"
step "tools to build with" --quiet 'setuptools>=77' wheel cython numpy
# Of an environment of an earlier version: both bring the package `fairseq`.
if "$own" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' &&
    [ -n "$(find "$VENV" -maxdepth 5 -iname 'fairseq_fixed-*' -print -quit)" ]; then
    "$own" -m pip uninstall --quiet --yes fairseq-fixed
fi
step "fairseq, admin_nmt and what they need" --quiet --no-build-isolation --editable ".[test]"
remember
echo "== installed in $SECONDS s; activate it with: source $VENV/bin/activate"
