"""Every command in README.md is run, or the test that runs it is named here."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

#: Commands that other tests run (or that CI itself is), by their first words.
RUN_ELSEWHERE = {
    "admin-nmt importance": "tests/pruning/test_commands.py",
    "admin-nmt prune": "tests/pruning/test_commands.py",
    "admin-nmt ablate": "tests/pruning/test_commands.py",
    "bash scripts/quickstart.sh": "tests/scripts/test_quickstart.py",
    "bash scripts/test.sh": ".ci/run",
    "bash scripts/install.sh": "scripts/test.sh",
    "pip install": "scripts/install.sh",
    "bash data_prep/": "tests/data/test_prepare_cli.py",
    "bash scripts/train-multi": "tests/distributed",
    "sbatch": "tests/distributed",
    "bash scripts/": "tests/scripts/test_pipelines.py",
    "fairseq-hydra-train": "tests/configs",
}


def commands() -> list[str]:
    """The lines of all bash blocks, comments and continuations removed."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", README, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#.*", "", line).strip()
            if command:
                found.append(re.sub(r"\s+", " ", command))
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_run_somewhere(command: str) -> None:
    for prefix, where in RUN_ELSEWHERE.items():
        if command.startswith(prefix):
            assert (REPOSITORY / where).exists(), f"{command}: {where} is missing"
            script = re.match(r"(?:bash|sbatch) (\S+\.(?:sh|sbatch))", command)
            if script:
                subprocess.run(["bash", "-n", REPOSITORY / script[1]], check=True)
            return
    program = command.split()[0]
    assert program in ("fairseq-train", "admin-nmt"), f"no test runs: {command}"


def test_train_profile_and_scores_run_as_written(
    program: Callable[..., subprocess.CompletedProcess[str]],
    data_bin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commands of the README in their order, on tiny data and a shrunken model."""
    monkeypatch.chdir(tmp_path)
    shrink = "--encoder-layers 2 --decoder-layers 1 --encoder-embed-dim 16 --cpu"
    shrink += " --encoder-ffn-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2"
    (tmp_path / "test.en").write_text("w1 w2 w3\n" * 20)
    (tmp_path / "text.de").write_text("w1 w2 w3\n\n")
    (tmp_path / "codes").write_text("#version: 0.2\nw 1\n")
    for name in ("hypotheses.detok", "baseline.detok", "ours.detok"):
        (tmp_path / name).write_text("w1 w2 w4\n" * 19 + "w1 w2 w3 w4\n")
    extra = {
        "fairseq-train": f"{shrink} --max-epoch 10 --fp16-no-flatten-grads --lr 1e-3 "
        "--disable-validation --save-dir checkpoints --required-batch-size-multiple 1",
        "profile": shrink,
        "analyze": "--cpu --num-tokens 50",
        "evaluate": "--cpu --beam 1",
        "export": "--bpe-codes codes --source-lang de --target-lang en",
    }
    ran = []
    for command in commands():
        words = re.sub(r"'([^']*)'", lambda m: m[1].replace(" ", ""), command).split()
        if words[0] not in ("fairseq-train", "admin-nmt") or command.startswith(
            tuple(RUN_ELSEWHERE)
        ):
            continue
        words = [str(data_bin) if word == "DATA" else word for word in words]
        kind = words[1] if words[0] == "admin-nmt" else words[0]
        program(*words, *extra.get(kind, "").split())
        ran.append(kind)
    assert set(ran) >= {"fairseq-train", "profile", "average", "evaluate", "score", "compare"}
    assert (tmp_path / "profile.png").exists()
    assert (tmp_path / "comparison.json").exists()
    assert {"fold", "export", "translate"} <= set(ran)
    assert (tmp_path / "text.en").read_text().count("\n") == 2


def test_architecture_table_lists_what_is_registered() -> None:
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY

    import admin_nmt  # noqa: F401

    listed = set()
    for row in re.findall(r"^\| (`admin_(?:transformer|realformer).*?) \|", README, re.M):
        names = re.findall(r"`([^`]+)`", row)
        listed |= {name.replace("...", names[0]) for name in names}
    registered = {
        a for a, model in ARCH_MODEL_NAME_REGISTRY.items() if model == "admin_transformer"
    }
    assert listed == registered


def test_option_table_lists_our_options() -> None:
    from admin_nmt.models._config import AdminTransformerConfig, TransformerConfig

    ours = set(AdminTransformerConfig.__dataclass_fields__) - set(
        TransformerConfig.__dataclass_fields__
    )
    for name in ours:
        assert f"`--{name.replace('_', '-')}" in README


def test_criterion_table_lists_our_criterions_and_their_options() -> None:
    from fairseq.criterions.label_smoothed_cross_entropy import (
        LabelSmoothedCrossEntropyCriterionConfig,
    )

    from admin_nmt.criterions.label_smoothed_cross_entropy_rdrop import RDropConfig

    for name in ("admin_label_smoothed_cross_entropy", "label_smoothed_cross_entropy_rdrop"):
        assert f"`--criterion {name}`" in README
    inherited = LabelSmoothedCrossEntropyCriterionConfig.__dataclass_fields__
    for name in set(RDropConfig.__dataclass_fields__) - set(inherited):
        assert f"`--{name.replace('_', '-')} " in README
