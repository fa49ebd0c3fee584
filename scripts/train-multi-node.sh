#!/usr/bin/env bash
# Training on several machines: one torchrun on each, fairseq's own distributed training inside.
set -euo pipefail

usage() {
    cat <<'END'
Usage, the same command on every machine but for --node-rank:
  train-multi-node.sh --nodes N --node-rank R --master HOST[:PORT] [--procs P] [--cpu] -- COMMAND...

COMMAND is `fairseq-train DATA OPTIONS...` or `fairseq-hydra-train --config-name RECIPE KEY=VALUE...`.

  --nodes N        machines (default: SLURM_NNODES, else 1)
  --node-rank R    this machine, 0 to N-1 (default: SLURM_NODEID, else 0)
  --master HOST    machine 0, as all others can reach it (default port: 29500)
  --procs P        processes on each machine (default: its GPUs, or those of CUDA_VISIBLE_DEVICES)
  --cpu            train on the CPU over gloo
  --help           this text

Data and save folder must be the same files on every machine. Where a machine has several networks,
choose one with NCCL_SOCKET_IFNAME (GLOO_SOCKET_IFNAME with --cpu).
After a failure run the same commands again: training resumes from the last checkpoint.
END
}

source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

# torchrun starts this script once per process, with --rank. fairseq reads torchrun's environment
# itself only on GPUs and only if it counts more than one of them, so everything is said in options.
if [[ ${1:-} == --rank ]]; then
    device=$2 program=$3
    shift 3
    if [[ $device == cpu ]]; then backend=gloo; else backend=nccl; fi
    if [[ $program == fairseq-hydra-train ]]; then
        options=(
            "distributed_training.distributed_world_size=$WORLD_SIZE"
            "distributed_training.distributed_rank=$RANK"
            "distributed_training.device_id=$LOCAL_RANK"
            "distributed_training.distributed_init_method=env://"
            "distributed_training.distributed_no_spawn=true"
            "distributed_training.distributed_backend=$backend"
        )
        if [[ $device == cpu ]]; then options+=(common.cpu=true common.fp16=false); fi
    else
        options=(
            --distributed-world-size "$WORLD_SIZE" --distributed-rank "$RANK"
            --device-id "$LOCAL_RANK" --distributed-init-method env://
            --distributed-no-spawn --distributed-backend "$backend"
        )
        if [[ $device == cpu ]]; then options+=(--cpu); fi
    fi
    exec "$program" "$@" "${options[@]}"
fi

# The number of GPUs that PyTorch will see. Slurm sets CUDA_VISIBLE_DEVICES, also on machines where
# nvidia-smi lists the GPUs of other jobs.
count_gpus() {
    local visible=()
    case ${CUDA_VISIBLE_DEVICES-all} in
        all) nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ' || true ;; # slices of MIG have lines, too
        '' | -1 | NoDevFiles) echo 0 ;;
        *)
            IFS=, read -ra visible <<<"$CUDA_VISIBLE_DEVICES"
            echo "${#visible[@]}"
            ;;
    esac
}

nodes=${SLURM_NNODES:-1} node_rank=${SLURM_NODEID:-0} master='' procs='' device=gpu
while [[ $# -gt 0 && $1 != -- ]]; do
    case $1 in
        --help | -h) usage && exit ;;
        --cpu) device=cpu && shift ;;
        --nodes | --node-rank | --master | --procs)
            [[ $# -gt 1 ]] || die "$1 needs a value"
            name=${1#--}
            printf -v "${name/-/_}" %s "$2"
            shift 2
            ;;
        *) die "unknown option $1" ;;
    esac
done
[[ $# -gt 1 ]] || die "no command after --"
shift
[[ $1 == fairseq-train || $1 == fairseq-hydra-train ]] ||
    die "the command must be fairseq-train or fairseq-hydra-train, not $1"

if [[ -z $procs ]]; then
    [[ $device == gpu ]] || die "--cpu needs --procs"
    procs=$(count_gpus)
    [[ $procs -gt 0 ]] || die "no GPU found; use --cpu --procs P"
fi
if [[ $nodes == 1 ]]; then
    rendezvous=(--standalone)
else
    [[ -n $master ]] || die "--master is needed for more than one machine"
    port=29500
    if [[ $master == *:* ]]; then port=${master##*:} master=${master%:*}; fi
    rendezvous=(--nnodes "$nodes" --node-rank "$node_rank" --master-addr "$master" --master-port "$port")
fi
exec torchrun "${rendezvous[@]}" --nproc-per-node "$procs" --no-python \
    bash "${BASH_SOURCE[0]}" --rank "$device" "$@"
