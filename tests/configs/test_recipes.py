"""Every recipe on disk: composes against fairseq's schema, keeps its batch, builds, trains."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.errors import UsageError
from tests.conftest import BIN

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
SHRINK = (
    "common.cpu=true common.fp16=false distributed_training.distributed_world_size=1 "
    "optimization.max_update=2 dataset.max_tokens=300 dataset.num_workers=0 "
    "dataset.disable_validation=true common.log_interval=1 task.source_lang=de task.target_lang=en "
    "+model.encoder_layers=1 +model.decoder_layers=1 +model.encoder_embed_dim=16 "
    "+model.decoder_embed_dim=16 +model.encoder_ffn_embed_dim=16 +model.decoder_ffn_embed_dim=16 "
    "+model.encoder_attention_heads=2 +model.decoder_attention_heads=2"
).split()


def compose(name: str, *overrides: str) -> Any:
    """What `fairseq-hydra-train --config-name NAME OVERRIDES` hands to training."""
    from fairseq.dataclass.initialize import add_defaults, hydra_init
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    import admin_nmt  # noqa: F401

    hydra_init(name)
    GlobalHydra.instance().clear()
    with initialize_config_module("fairseq.config"):
        cfg = hydra_compose(name, overrides=list(overrides))
    add_defaults(cfg)
    resolved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    OmegaConf.set_struct(resolved, True)
    return resolved


@pytest.mark.parametrize("name", RECIPES)
def test_effective_batch_is_the_stated_one_on_any_number_of_gpus(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text()
    stated = re.search(r"Effective batch: (\d+) tokens x (\d+) batches an update", text)
    assert stated, "the recipe must state its effective batch"
    tokens, batches = int(stated[1]), int(stated[2])
    own = compose(name, "task.data=x").distributed_training.distributed_world_size
    for gpus in {own, 8, 4, 1}:
        cfg = compose(name, "task.data=x", f"distributed_training.distributed_world_size={gpus}")
        (update_freq,) = cfg.optimization.update_freq
        assert gpus * cfg.dataset.max_tokens * update_freq == tokens * batches
        if batches > 1:
            assert cfg.dataset.max_tokens == tokens


def test_gpus_that_cannot_share_an_update_are_refused() -> None:
    from admin_nmt.recipes import max_tokens, update_freq

    with pytest.raises(UsageError, match="sums 8 batches, which 3 GPUs cannot share"):
        update_freq(8, 3)
    with pytest.raises(UsageError, match="has 4096 tokens, which 3 GPUs cannot share"):
        max_tokens(4096, 3)


def test_unknown_recipes_are_refused_unless_another_folder_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from admin_nmt.recipes import check_name

    for known in ("config", "wmt14_en_de_6l_6l", "wmt14_en_de_6l_6l.yaml"):
        check_name(known)
    with pytest.raises(UsageError, match="wmt14_en_de_6l: no such recipe; there are iwslt14_de_en"):
        check_name("wmt14_en_de_6l")
    monkeypatch.setattr("sys.argv", ["fairseq-hydra-train", "--config-dir=mine"])
    check_name("wmt14_en_de_6l")


@pytest.mark.parametrize("name", RECIPES)
def test_unknown_keys_are_refused(name: str) -> None:
    with pytest.raises(Exception, match=r"(?s).*no_such_key"):
        compose(name, "task.data=x", "optimization.no_such_key=1")


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds_its_model_at_full_size(name: str, task: Any) -> None:
    from fairseq import models

    cfg = compose(name, "task.data=x")
    with torch.device("meta"):
        model = models.build_model(cfg.model, task)
    depth = re.search(r"(\d+)l_(\d+)l", name)
    expected = (int(depth[1]), int(depth[2])) if depth else (6, 6)
    assert (len(model.encoder.layers), len(model.decoder.layers)) == expected
    assert model.cfg.init_type in ("admin", "default")
    assert model.decoder.output_projection.weight is model.encoder.embed_tokens.weight


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_starts_training(name: str, data_bin: Path, tmp_path: Path) -> None:
    from fairseq_cli import train

    cfg = compose(
        name, *SHRINK, f"task.data={data_bin}", f"checkpoint.save_dir={tmp_path}",
        "optimization.update_freq=[1]",
    )  # fmt: skip
    train.main(cfg)
    assert (tmp_path / "checkpoint_last.pt").exists()


def test_recipe_is_found_by_name_from_any_folder(data_bin: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [str(BIN / "fairseq-hydra-train"), "--config-name", "iwslt14_de_en_admin", *SHRINK,
         f"task.data={data_bin}", f"checkpoint.save_dir={tmp_path}/saved"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert (tmp_path / "saved" / "checkpoint_last.pt").exists()


def test_results_table_lists_every_recipe() -> None:
    table = (CONFIGS / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(RECIPES)
