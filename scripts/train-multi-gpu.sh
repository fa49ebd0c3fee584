#!/usr/bin/env bash
# Training on all GPUs of one machine, or on some of them.
set -euo pipefail

if [[ $# -eq 0 || ${1:-} == --help || ${1:-} == -h ]]; then
    cat <<'END'
Usage: train-multi-gpu.sh [--procs P] [--cpu] -- COMMAND...

COMMAND is `fairseq-train DATA OPTIONS...` or `fairseq-hydra-train --config-name RECIPE KEY=VALUE...`.
A recipe keeps its effective batch on any number of GPUs; with fairseq-train choose --update-freq.

  --procs P   processes, one per GPU (default: all GPUs, or those of CUDA_VISIBLE_DEVICES)
  --cpu       train on the CPU over gloo
  --help      this text

CUDA_VISIBLE_DEVICES=0,1 uses these two GPUs. After a failure run the same command
again: training resumes from the last checkpoint.
END
    exit
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/train-multi-node.sh" --nodes 1 --node-rank 0 "$@"
