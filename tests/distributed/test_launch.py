"""The launch scripts: what every rank is told, two hosts, a Slurm job."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from admin_nmt.checkpoints.reading import load_checkpoint_file
from tests.support.programs import BIN

SCRIPTS = Path(__file__).parents[2] / "scripts"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
ENVIRONMENT.pop("CUDA_VISIBLE_DEVICES", None)
TRAIN = [
    "--arch", "admin_transformer_tiny", "--share-all-embeddings", "--max-tokens", "150",
    "--optimizer", "radam", "--lr", "1e-3", "--max-update", "2", "--disable-validation",
    "--num-workers", "0", "--log-format", "json", "--log-interval", "1",
]  # fmt: skip
TINY_RECIPE = (
    "optimization.max_update=1 dataset.batch_size=8 dataset.num_workers=0 "
    "dataset.disable_validation=true common.log_interval=1 task.source_lang=de task.target_lang=en "
    "+model.encoder_layers=1 +model.decoder_layers=1 +model.encoder_embed_dim=16 "
    "+model.decoder_embed_dim=16 +model.encoder_ffn_embed_dim=16 +model.decoder_ffn_embed_dim=16 "
    "+model.encoder_attention_heads=2 +model.decoder_attention_heads=2"
).split()


def executable(path: Path, text: str) -> None:
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(0o755)


def run(*command: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *map(str, command)],
        capture_output=True, text=True, timeout=600, env=ENVIRONMENT | env,
    )  # fmt: skip


def test_every_rank_gets_its_number_and_the_size_of_the_world(tmp_path: Path) -> None:
    executable(tmp_path / "fairseq-train", f'echo "$@" > {tmp_path}/rank$RANK.txt\n')
    result = run(
        SCRIPTS / "train-multi-gpu.sh", "--cpu", "--procs", "2", "--",
        "fairseq-train", "DATA", "--arch", "x", PATH=f"{tmp_path}:{ENVIRONMENT['PATH']}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for rank in (0, 1):
        assert (tmp_path / f"rank{rank}.txt").read_text().strip() == (
            f"DATA --arch x --distributed-world-size 2 --distributed-rank {rank} "
            f"--device-id {rank} --distributed-init-method env:// --distributed-no-spawn "
            "--distributed-backend gloo --cpu"
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes", "2", "--cpu", "--procs", "1", "--", "fairseq-train", "x"], "--master"),
        (["--cpu", "--", "fairseq-train", "x"], "--cpu needs --procs"),
        (["--gpus", "2", "--", "fairseq-train", "x"], "unknown option --gpus"),
        (["--procs", "2", "--"], "no command"),
        (["--procs", "2", "--", "python", "x"], "not python"),
        (["--procs"], "--procs needs a value"),
    ],
)
def test_wrong_command_lines_end_in_one_line(options: list[str], message: str) -> None:
    result = run(SCRIPTS / "train-multi-node.sh", *options)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("visible", "listed", "procs"),
    [
        (
            None,
            ["GPU 0: H100", "  MIG 1g.10gb Device 0:", "  MIG 1g.10gb Device 1:", "GPU 1: H100"],
            2,
        ),
        ("2,5,7", ["GPU 0: H100"] * 8, 3),  # as Slurm says which of a machine's GPUs are this job's
        ("", ["GPU 0: H100"], 0),
        ("-1", ["GPU 0: H100"], 0),
        (None, [], 0),
    ],
)
def test_one_process_for_each_gpu_that_may_be_used(
    visible: str | None, listed: list[str], procs: int, tmp_path: Path
) -> None:
    lines = " ".join(f"'{line}'" for line in listed)
    executable(tmp_path / "nvidia-smi", f"printf '%s\\n' {lines}\n" if listed else "exit 9\n")
    executable(tmp_path / "torchrun", "echo torchrun $@\n")
    given = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    result = run(
        SCRIPTS / "train-multi-gpu.sh", "--", "fairseq-train", "DATA",
        PATH=f"{tmp_path}:{ENVIRONMENT['PATH']}", **given,
    )  # fmt: skip
    if procs:
        assert f" --nproc-per-node {procs} " in result.stdout
    else:
        assert result.returncode == 2 and "no GPU found" in result.stderr


@pytest.fixture
def hosts() -> Iterator[list[tuple[str, str, str]]]:
    """Two network namespaces joined by a cable: (namespace, interface, address) of each."""
    found = [
        (f"admin{os.getpid()}{end}", f"adm{os.getpid()}{end}", f"10.213.7.{number}")
        for end, number in (("a", 1), ("b", 2))
    ]
    (first, cable, _), (second, other, _) = found
    commands = [
        f"ip netns add {first}",
        f"ip netns add {second}",
        f"ip link add {cable} netns {first} type veth peer name {other} netns {second}",
    ]
    for name, interface, address in found:
        commands += [
            f"ip -n {name} address add {address}/24 dev {interface}",
            f"ip -n {name} link set {interface} up",
            f"ip -n {name} link set lo up",
        ]
    try:
        for command in commands:
            try:
                subprocess.run(command.split(), check=True, capture_output=True, text=True)
            except FileNotFoundError:
                pytest.skip("two hosts need network namespaces: no `ip` command")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"two hosts need network namespaces: {command}: {error.stderr.strip()}")
        yield found
    finally:
        for name, _, _ in found:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.mark.long  # the Slurm job below starts two nodes by the same script
def test_two_hosts_train_one_model(
    hosts: list[tuple[str, str, str]], data_bin: Path, tmp_path: Path
) -> None:
    processes = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, "bash", str(SCRIPTS / "train-multi-node.sh"),
             "--nodes", "2", "--node-rank", str(rank), "--master", f"{hosts[0][2]}:29511",
             "--procs", "1", "--cpu", "--",
             "fairseq-train", str(data_bin), *TRAIN, "--save-dir", str(tmp_path)],
            env=ENVIRONMENT | {"GLOO_SOCKET_IFNAME": interface},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank, (name, interface, _) in enumerate(hosts)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)[-4000:]
    assert "as rank 0" in outputs[0] and "as rank 1" in outputs[1]
    assert "'distributed_world_size': 2," in outputs[0]
    state = load_checkpoint_file(tmp_path / "checkpoint_last.pt")
    assert state["optimizer_history"][-1]["num_updates"] == 2


@pytest.mark.slow
def test_a_slurm_job_keeps_the_batch_of_its_recipe(data_bin: Path, tmp_path: Path) -> None:
    executable(tmp_path / "scontrol", "echo 127.0.0.1\necho 127.0.0.2\n")
    executable(
        tmp_path / "srun",
        f'echo "$@" >{tmp_path}/srun.txt\nwhile [[ $1 == --* ]]; do shift; done\nSLURM_NODEID=1 "$@" >/dev/null 2>&1 &\n'
        'SLURM_NODEID=0 "$@"\nwait $!\n',
    )
    first = 10000  # the script adds the job number to it
    for port in range(first + os.getpid() % 10000, first + 20000):
        with contextlib.suppress(OSError), socket.socket() as server:
            server.bind(("127.0.0.1", port))
            break
    result = run(
        SCRIPTS / "slurm" / "train.sbatch", "fairseq-hydra-train",
        "--config-name", "wmt14_en_de_6l_6l", *TINY_RECIPE, f"hydra.run.dir={tmp_path}",
        f"task.data={data_bin}", f"checkpoint.save_dir={tmp_path}/saved",
        PATH=f"{tmp_path}:{ENVIRONMENT['PATH']}", SLURM_SUBMIT_DIR=str(SCRIPTS.parent),
        SLURM_JOB_NODELIST="n[1-2]", SLURM_JOB_ID=str(port - first), SLURM_NNODES="2",
        SLURM_CPUS_PER_TASK="32",
        ADMIN_NMT_LAUNCH="--cpu --procs 1",
    )  # fmt: skip
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    assert "--cpus-per-task=32 bash " in (tmp_path / "srun.txt").read_text()
    assert "'distributed_world_size': 2," in result.stdout + result.stderr
    assert "'update_freq': [4]" in result.stdout + result.stderr
    assert (tmp_path / "saved" / "checkpoint_last.pt").exists()
