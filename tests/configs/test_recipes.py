"""Every recipe on disk: composes against fairseq's schema, keeps its batch, builds, trains."""

import copy
import logging
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from admin_nmt.errors import UsageError
from admin_nmt.host.recipes import check_config, check_name, max_tokens, num_gpus, update_freq
from tests.support.programs import BIN
from tests.support.recipes import compose, compose_unresolved, resolve

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
SHRINK = (
    "common.cpu=true common.fp16=false optimization.max_update=2 dataset.max_tokens=256 "
    "dataset.num_workers=0 dataset.disable_validation=true common.log_interval=1 "
    "task.source_lang=de task.target_lang=en "
    "++model.encoder_layers=1 ++model.decoder_layers=1 ++model.encoder_embed_dim=16 "
    "++model.decoder_embed_dim=16 ++model.encoder_ffn_embed_dim=16 ++model.decoder_ffn_embed_dim=16 "
    "++model.encoder_attention_heads=2 ++model.decoder_attention_heads=2"
).split()


def hydra_train(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "fairseq-hydra-train"), *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@cache
def recipe(name: str) -> Any:
    """A recipe as it is, for any number of GPUs; not to be changed."""
    return compose_unresolved(name, "task.data=x")


@pytest.mark.parametrize("name", RECIPES)
def test_effective_batch_is_the_stated_one_on_every_stated_number_of_gpus(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text()
    stated = re.search(r"# Effective batch: (\d+) tokens an update.*\n# (.*)", text)
    assert stated, "the recipe must state its effective batch"
    variants = re.findall(r"(\d+) (?:GPUs? )?x (\d+) x (\d+)", stated[2].replace("published:", "|"))
    variants = [tuple(map(int, variant)) for variant in variants]
    assert {gpus for gpus, _, _ in variants} >= {8, 4, 1}
    for gpus, tokens, batches in variants:
        assert gpus * tokens * batches == int(stated[1])
    # A published form in brackets may differ from ours for the same number of GPUs: first wins.
    cfg = copy.deepcopy(recipe(name))
    for gpus, tokens, batches in {v[0]: v for v in reversed(variants)}.values():
        cfg.distributed_training.distributed_world_size = gpus
        assert (cfg.dataset.max_tokens, list(cfg.optimization.update_freq)) == (tokens, [batches])


@pytest.mark.parametrize("name", RECIPES)
def test_only_deviations_from_the_defaults_are_written(name: str) -> None:
    from fairseq.dataclass.configs import FairseqConfig
    from omegaconf import OmegaConf

    defaults = OmegaConf.structured(FairseqConfig)
    recipe = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    for group in ("common", "dataset", "optimization", "checkpoint"):
        for key, value in recipe[group].items():
            assert "${" in str(value) or defaults[group][key] != value, f"{group}.{key}"


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds_its_model_at_full_size(name: str, task: Any) -> None:
    from fairseq import models

    cfg = resolve(recipe(name))
    with torch.device("meta"):
        model = models.build_model(cfg.model, task)
    depth = re.search(r"(\d+)l_(\d+)l", name)
    expected = (int(depth[1]), int(depth[2])) if depth else (6, 6)
    assert (len(model.encoder.layers), len(model.decoder.layers)) == expected
    plain = any(word in name for word in ("baseline", "rdrop", "heads"))
    assert model.cfg.init_type == ("default" if plain else "admin")
    carried = model.cfg.residual_attention if "realformer" in name else "none"
    assert carried == ("all" if "realformer" in name else "none")
    smoothed = "label_smoothed_cross_entropy"
    assert cfg.criterion._name == (f"{smoothed}_rdrop" if "rdrop" in name else f"admin_{smoothed}")
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


def test_recipe_is_found_by_name_from_any_folder_and_resumes(
    data_bin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from fairseq_cli import train

    data = os.path.relpath(data_bin, tmp_path)
    overrides = (*SHRINK, f"task.data={data}")
    first = hydra_train("--config-name", "iwslt14_de_en_admin", *overrides, cwd=tmp_path)
    assert first.returncode == 0, (first.stdout + first.stderr)[-3000:]
    assert "'update_freq': [16]" in first.stdout + first.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        train.main(compose("iwslt14_de_en_admin", *overrides, "optimization.max_update=3"))
    assert "iwslt14_de_en_admin/checkpoint_last.pt (epoch " in caplog.text
    assert "num_updates: 3 >= max_update: 3" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["dataset.max_tokens=3000"],
            "an update of this recipe sums 4096 tokens, and 1 GPUs with batches of 3000 tokens "
            "cannot do that in whole batches; choose another dataset.max_tokens or number of GPUs, "
            "or set optimization.update_freq=[N] yourself",
        ),
        (
            ["task.data=null"],
            "task.data is missing: say where the binarised data is, task.data=DIR",
        ),
        (
            ["+model.encoder_layer=3"],
            "unknown option model.encoder_layer; did you mean model.encoder_layers?",
        ),
        (
            ["+optimization.max_updates=3"],
            "unknown option optimization.max_updates; did you mean optimization.max_update?",
        ),
        (["+optimisation.max_update=3"], "unknown option optimisation; did you mean optimization?"),
        (
            ["+criterion.label_smoothin=0.2"],
            "unknown option criterion.label_smoothin; did you mean criterion.label_smoothing?",
        ),
        (
            ["+optimizer.weight_deccay=1"],
            "unknown option optimizer.weight_deccay; did you mean optimizer.weight_decay?",
        ),
        (
            ["+lr_scheduler.warmup_update=1"],
            "unknown option lr_scheduler.warmup_update; did you mean lr_scheduler.warmup_updates?",
        ),
        (
            ["+task.max_source_position=1"],
            "unknown option task.max_source_position; did you mean task.max_source_positions?",
        ),
    ],
)
def test_mistakes_are_refused_in_one_line(
    overrides: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leave:
        compose("iwslt14_de_en_admin", "task.data=x", *overrides)
    assert leave.value.code == 2
    assert capsys.readouterr().err.partition("error: ")[2] == line + "\n"


def test_unknown_recipes_are_refused_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bin/fairseq-hydra-train"])
    with pytest.raises(SystemExit) as leave:
        compose("iwslt14_de_en_admim", "task.data=x")
    assert leave.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "fairseq-hydra-train: error: --config-name iwslt14_de_en_admim: no such recipe; there are "
        + ", ".join(RECIPES)
        + " (your own: --config-dir DIR --config-name NAME)"
    )


def test_own_recipes_are_taken_from_a_folder_and_other_programs_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairseq.dataclass.initialize import hydra_init

    for known in ("config", "wmt14_en_de_6l_6l", "wmt14_en_de_6l_6l.yaml"):
        check_name(known)
    monkeypatch.setattr("sys.argv", ["bin/fairseq-hydra-train"])
    with pytest.raises(SystemExit):
        hydra_init("mine")
    for arguments in (["bin/fairseq-hydra-train", f"--config-dir={tmp_path}"], ["infer.py"]):
        monkeypatch.setattr("sys.argv", arguments)
        hydra_init("mine")


def test_models_of_others_are_left_alone() -> None:
    from omegaconf import OmegaConf

    check_config(OmegaConf.create({"model": {"_name": "transformer", "x": 1}, "extra": 1}))
    with pytest.raises(UsageError, match="unknown option extra"):
        check_config(OmegaConf.create({"model": {"_name": "admin_transformer"}, "extra": 1}))


def test_updates_that_no_number_of_batches_makes_are_refused() -> None:
    assert update_freq(32768, max_tokens(32768, 4096, 16), 16) == 1
    assert max_tokens(32768, 4096, 16) == 2048
    with pytest.raises(UsageError, match="sums 32768 tokens, and 3 GPUs"):
        update_freq(32768, 4096, 3)
    with pytest.raises(UsageError, match="and 0 GPUs"):
        update_freq(32768, 4096, 0)


def test_torchrun_says_how_many_gpus_train_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert num_gpus() == max(1, torch.cuda.device_count())
    monkeypatch.setenv("WORLD_SIZE", "16")
    cfg = compose("wmt14_en_de_60l_12l", "task.data=x")
    assert cfg.distributed_training.distributed_world_size == 16
    assert (cfg.dataset.max_tokens, list(cfg.optimization.update_freq)) == (2048, [1])


def test_results_table_lists_every_recipe() -> None:
    table = (CONFIGS / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(RECIPES)


def _override_rows() -> list[str]:
    return re.findall(
        r"^\| .* \| `--config-name (.*)` \|$", (CONFIGS / "README.md").read_text(), re.M
    )


@pytest.mark.parametrize("row", _override_rows(), ids=lambda row: row.split()[0])
def test_published_rows_without_a_recipe_are_overrides_that_compose(row: str, task: Any) -> None:
    from fairseq import models

    name, *overrides = row.split()
    cfg = compose(name, "task.data=x", *overrides)
    with torch.device("meta"):
        model = models.build_model(cfg.model, task)
    given = dict(override.lstrip("+").split("=") for override in overrides)
    for stack in (model.encoder, model.decoder):
        side = "encoder" if stack is model.encoder else "decoder"
        if f"model.{side}_layers" in given:
            assert len(stack.layers) == int(given[f"model.{side}_layers"])
        normalized = f"model.{side}_normalize_before" in given
        assert (stack.layer_norm is not None) == normalized
    assert model.cfg.init_type == given.get("model.init_type", cfg.model.init_type)


def test_the_table_says_the_kind_of_bleu_that_the_recipe_names() -> None:
    for name, kind in re.findall(
        r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", (CONFIGS / "README.md").read_text(), re.M
    ):
        text = (CONFIGS / f"{name}.yaml").read_text()
        for word in ("tokenised", "compound-split"):
            if word in kind:
                assert re.search(rf"^# Published: .*{word}", text, re.M), name


def test_the_table_says_how_the_recipe_and_its_script_score() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|[^|]*\|[^|]*\| *([^|]*?) *\|", (CONFIGS / "README.md").read_text(), re.M
    )
    assert {name for name, _ in rows} == set(RECIPES)
    for name, scored in rows:
        text = (CONFIGS / f"{name}.yaml").read_text()
        comment = " ".join(line for line in text.splitlines() if line.startswith("#")).lower()
        said = scored.split(", ") if scored not in ("", "not said") else []
        for part in said:
            assert part.lower() in comment, (name, part)
        average = re.search(r"average of (\d+) epochs", scored)
        if average:
            assert f"keep_last_epochs: {average[1]} " in text, name
        script = CONFIGS.parent / "scripts" / f"{'-'.join(name.split('_')[:3])}.sh"
        evaluated = re.search(
            r"^evaluate --beam (\d+)(?: --lenpen (\S+))?$", script.read_text(), re.M
        )
        assert evaluated, script
        if said:
            assert f"beam {evaluated[1]}" in said, name
            lenpen = [float(part.split()[1]) for part in said if part.startswith("lenpen")]
            assert (lenpen or [1.0]) == [float(evaluated[2] or 1)], name
