# What the scripts of scripts/*.sh share; sourced by them.
#
#   die MESSAGE      one line and exit code 2
#   header           the comment at the top of the script, which is its help
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command -v admin-nmt >/dev/null || PATH="$scripts/../.venv/bin:$PATH"

die() {
    echo "$(basename "$0"): error: $1 (see --help)" >&2
    exit 2
}

header() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
}
