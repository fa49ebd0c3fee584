"""fairseq's programs with our architecture, from another folder, with no --user-dir."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import BIN, run_program
from tests.support.recipes import compose

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("front_door")  # one worker trains


@pytest.fixture(scope="module")
def checkpoint(data_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for a few updates by a real `fairseq-train` in a folder of its own."""
    folder = tmp_path_factory.mktemp("front_door")
    result = subprocess.run(
        [str(BIN / "fairseq-train"), str(data_bin), "--arch", "admin_transformer_tiny", "--cpu",
         "--share-all-embeddings", "--max-tokens", "300", "--optimizer", "radam", "--lr", "1e-3",
         "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1",
         "--max-update", "6", "--num-workers", "0", "--no-epoch-checkpoints",
         "--save-dir", "saved", "--user-dir", str(REPOSITORY / "admin_nmt")],
        cwd=folder, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "ADMIN omegas set" in result.stdout
    assert not result.stderr, "warnings that no user can do anything about"
    assert "tensorboardX" not in result.stdout
    return folder / "saved" / "checkpoint_last.pt"


def test_generate_translates_the_whole_test_set(data_bin: Path, checkpoint: Path) -> None:
    result = run_program(
        "fairseq-generate", data_bin, "--path", checkpoint, "--cpu", "--beam", 2,
        "--max-len-b", 12,
    )  # fmt: skip
    found = [line for line in result.stdout.splitlines() if line.startswith("H-")]
    assert len(found) == 20
    assert "Warning" not in result.stderr


def test_interactive_translates_a_line(data_bin: Path, checkpoint: Path) -> None:
    result = subprocess.run(
        [str(BIN / "fairseq-interactive"), str(data_bin), "--path", str(checkpoint), "--cpu",
         "--beam", "2", "--max-len-b", "12", "--source-lang", "de", "--target-lang", "en"],
        input="w1 w2 w3\n", capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert "\nH-0\t" in result.stdout
    assert "Warning" not in result.stderr


def test_validate_reports_the_loss(data_bin: Path, checkpoint: Path) -> None:
    result = run_program(
        "fairseq-validate", data_bin, "--path", checkpoint, "--cpu", "--max-tokens", 300,
        "--valid-subset", "valid,test",
    )  # fmt: skip
    assert "valid on 'test' subset" in result.stdout + result.stderr
    assert "| loss " in result.stdout + result.stderr


def test_hydra_train_builds_our_architecture(data_bin: Path, tmp_path: Path) -> None:
    """As `fairseq-hydra-train` composes it; tests/distributed/test_launch.py starts the program."""
    from fairseq import checkpoint_utils
    from fairseq_cli.train import main

    import admin_nmt  # noqa: F401

    cfg = compose(
        "config", "task=translation", f"task.data={data_bin}",
        "+model._name=admin_transformer_tiny", "+model.share_all_embeddings=true",
        "+model.encoder_layers=3", "criterion=label_smoothed_cross_entropy",
        "criterion.label_smoothing=0.1", "optimizer=radam", "optimization.lr=[0.001]",
        "optimization.max_update=2", "lr_scheduler=fixed", "dataset.max_tokens=300",
        "dataset.num_workers=0", "dataset.disable_validation=true", "common.cpu=true",
        "distributed_training.distributed_world_size=1", f"checkpoint.save_dir={tmp_path}/saved",
    )  # fmt: skip
    main(cfg)

    models, _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(tmp_path / "saved" / "checkpoint_last.pt")]
    )
    assert len(models[0].encoder.layers) == 3 and models[0].omegas_ready


def test_python_users_load_the_model(data_bin: Path, checkpoint: Path) -> None:
    from fairseq import checkpoint_utils

    from admin_nmt.models.admin_transformer import AdminTransformerModel

    models, _, _ = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)])
    assert isinstance(models[0], AdminTransformerModel)
    omegas: list[Any] = [r.omega for _, r in models[0].residuals() if hasattr(r, "omega")]
    assert len(omegas) == 8 and all((omega != 1).any() for omega in omegas)
    hub = AdminTransformerModel.from_pretrained(
        str(checkpoint.parent), checkpoint.name, str(data_bin)
    )
    assert isinstance(hub.translate("w1 w2 w3", beam=2, max_len_b=12), str)
