#!/usr/bin/env bash
# From nothing to a deep translation model: install, make a small German-English corpus, train an
# ADMIN Transformer, translate its test set and print BLEU. See `bash scripts/quickstart.sh --help`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/environment.sh"
# An active environment of one's own is not install.sh's.
if [[ $bin == "$venv/bin" ]]; then bash "$root/scripts/install.sh"; fi
exec "$bin/python" "$root/scripts/quickstart/run.py" "$@"
