#!/usr/bin/env bash
# From nothing to a deep translation model: install, make a small German-English corpus, train an
# ADMIN Transformer, translate its test set and print BLEU. See `bash scripts/quickstart.sh --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/install.sh
exec "${ADMIN_NMT_VENV:-.venv}/bin/python" scripts/quickstart/run.py "$@"
