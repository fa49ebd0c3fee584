"""`admin-nmt convert`: models of other repositories compute the same here."""

import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints.reading import open_checkpoint
from admin_nmt.cli.main import main
from admin_nmt.errors import UserError
from tests.reference import official

SOURCE, TARGET = [7, 30, 11, 5, 2], [2, 9, 14, 40]
#: Largest difference from the float64 reference, relative to the largest logit: float32 rounding,
#: and for an absorbed omega one more rounding of each weight.
BOUND = 1e-5

#: What an `argparse.Namespace` of an old fairseq holds, and more that nobody knows today.
SIZES: dict[str, Any] = {
    "task": "translation", "source_lang": "de", "target_lang": "en", "data": "/elsewhere/data-bin",
    "left_pad_source": "True", "left_pad_target": "False", "arch": "transformer_wmt_en_de",
    "encoder_embed_dim": 32, "decoder_embed_dim": 32, "encoder_ffn_embed_dim": 48,
    "decoder_ffn_embed_dim": 40, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 2, "encoder_normalize_before": False,
    "decoder_normalize_before": False, "share_all_embeddings": True, "dropout": 0.1,
    "share_decoder_input_output_embed": True, "encoder_learned_pos": False, "relu_dropout": 0.1,
    "decoder_learned_pos": False, "max_source_positions": 64, "max_target_positions": 50,
    "decoder_output_dim": 32, "decoder_input_dim": 32, "adaptive_softmax_cutoff": None,
    "no_token_positional_embeddings": False, "plot_variance": False, "mixed_precision": False,
}  # fmt: skip
UNSHARED = {"share_all_embeddings": False, "share_decoder_input_output_embed": False}
PRE = {"encoder_normalize_before": True, "decoder_normalize_before": True}
LEARNED = {"encoder_learned_pos": True, "decoder_learned_pos": True}
NUMBERS = {
    "admin_torch": "number",
    "encoder_omega": math.sqrt(5 / math.log(5) - 1),
    "decoder_omega": math.sqrt(7 / math.log(7) - 1),
}
ADAPTIVE = {"init_type": "adaptive"}

#: Origin, settings, and the model and `--init-type` it becomes.
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "ADMIN": ("transformer-clinic", ADAPTIVE, "admin"),
    "ADMIN, unshared": ("transformer-clinic", ADAPTIVE | UNSHARED, "admin"),
    "ADMIN, shared output": (
        "transformer-clinic",
        ADAPTIVE | UNSHARED | {"share_decoder_input_output_embed": True},
        "admin",
    ),
    "ADMIN, learned positions": ("transformer-clinic", ADAPTIVE | LEARNED, "admin"),
    "ADMIN, unequal widths": (
        "transformer-clinic",
        ADAPTIVE | UNSHARED | {"encoder_embed_dim": 24},
        "admin",
    ),
    "profiling run": ("transformer-clinic", {"init_type": "adaptive-profiling"}, "admin"),
    "DeepNet": ("transformer-clinic", {"init_type": "deepnet"}, "deepnorm"),
    "ReZero": ("transformer-clinic", {"init_type": "rezero"}, "rezero"),
    "post-LN": ("transformer-clinic", {"init_type": "default"}, ""),
    "pre-LN": ("transformer-clinic", {"init_type": "default"} | PRE, ""),
    "deepnmt": (
        "deepnmt",
        {"admin_init_type": "adaptive", "arch": "adv_transformer_wmt_en_de", "task": "adv_translation"},
        "admin",
    ),
    "deepnmt, normed embedding": (
        "deepnmt", {"admin_init_type": "adaptive", "layernorm_embedding": True}, "admin",
    ),
    "admin-torch, numbers": ("admin-torch", NUMBERS, "admin-log"),
    "admin-torch, other numbers": ("admin-torch", NUMBERS | {"encoder_omega": 1.25}, "admin"),
    "admin-torch, vectors": ("admin-torch", {"admin_torch": "vector"}, "admin"),
    "R-Drop": ("r-drop", {"task": "rdrop_translation", "reg_alpha": 5}, ""),
    "fairseq": ("fairseq", UNSHARED, ""),
}  # fmt: skip


def write(path: Path, settings: dict[str, Any], num_words: int, seed: int = 1) -> dict[str, Any]:
    """A checkpoint as the official repositories write it."""
    from fairseq.meters import AverageMeter  # type: ignore[import-not-found]

    state = official.random_state(settings, num_words, seed)
    torch.save(
        {
            "args": Namespace(**settings),
            "model": state,
            "optimizer_history": [
                {"criterion_name": "x", "optimizer_name": "x", "lr_scheduler_state": {},
                 "num_updates": 11}
            ],
            "extra_state": {"train_iterator": {"epoch": 3}, "train_meters": {"x": AverageMeter()}},
            "last_optimizer_state": {"state": {}},
        },
        path,
    )  # fmt: skip
    return state


@pytest.fixture(autouse=True)
def old_meters(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fairseq.meters`, which old checkpoints name and today's fairseq does not have."""
    import sys
    from types import ModuleType

    module = ModuleType("fairseq.meters")

    class AverageMeter:
        def __init__(self) -> None:
            self.value = 1.0

    AverageMeter.__module__, AverageMeter.__qualname__ = "fairseq.meters", "AverageMeter"
    module.AverageMeter = AverageMeter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fairseq.meters", module)


@pytest.fixture
def num_words(task: Any) -> int:
    return len(task.source_dictionary)


@pytest.mark.parametrize(("origin", "changes", "init_type"), MODELS.values(), ids=MODELS)
def test_logits_are_those_of_the_official_layers(
    tmp_path: Path,
    num_words: int,
    capsys: Any,
    origin: str,
    changes: dict[str, Any],
    init_type: str,
) -> None:
    from fairseq import checkpoint_utils

    settings = SIZES | changes
    state = write(tmp_path / "theirs.pt", settings, num_words)
    ours = tmp_path / "ours.pt"
    assert (
        main(["convert", str(tmp_path / "theirs.pt"), "--from", origin, "--output", str(ours)]) == 0
    )
    said = capsys.readouterr().out
    assert "optimizer state dropped" in said

    # As fairseq loads any checkpoint, task and all; the folder of the data is the only thing given.
    converted = checkpoint_utils.load_checkpoint_to_cpu(str(ours))
    config = converted["cfg"]
    assert config.task._name == "translation"
    assert config.task.source_lang == "de"
    assert getattr(config.model, "init_type", "") == init_type
    model = built(converted, num_words)
    expected = official.forward(state, settings, SOURCE, TARGET)
    with torch.no_grad():
        found = model(
            torch.tensor([[1, *SOURCE]]), torch.tensor([len(SOURCE)]), torch.tensor([TARGET])
        )[0][0]  # padded on the left, as fairseq's batches are
    assert float((found - expected).abs().max() / expected.abs().max()) < BOUND


def built(converted: dict[str, Any], num_words: int) -> Any:
    """The model that fairseq makes of a converted checkpoint."""
    from types import SimpleNamespace

    from fairseq import models

    dictionary = words(num_words)
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    model: Any = models.build_model(converted["cfg"].model, task)
    model.load_state_dict(converted["model"], strict=True, model_cfg=converted["cfg"].model)
    return model.eval()


def assert_equal_logits(ours: Path, state: Any, settings: Any, num_words: int) -> None:
    """The converted file computes what the official layers do."""
    from fairseq import checkpoint_utils

    model = built(checkpoint_utils.load_checkpoint_to_cpu(str(ours)), num_words)
    expected = official.forward(state, settings, SOURCE, TARGET)
    with torch.no_grad():
        found = model(torch.tensor([SOURCE]), torch.tensor([len(SOURCE)]), torch.tensor([TARGET]))[
            0
        ][0]
    assert float((found - expected).abs().max() / expected.abs().max()) < BOUND


def words(number: int) -> Any:
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for index in range(number - len(dictionary)):
        dictionary.add_symbol(f"w{index}")
    return dictionary


def test_a_converted_model_folds_prunes_is_analyzed_and_exported(
    tmp_path: Path, data_bin: Path, num_words: int, capsys: Any
) -> None:
    settings = SIZES | ADAPTIVE | {"decoder_attention_heads": 4}
    write(tmp_path / "theirs.pt", settings, num_words)
    ours, data = tmp_path / "ours.pt", str(data_bin)
    here = ["--from", "transformer-clinic", "--output", str(ours)]
    assert main(["convert", str(tmp_path / "theirs.pt"), *here]) == 0
    assert "first omega of the encoder" in capsys.readouterr().out
    pruned, folded = tmp_path / "pruned.pt", tmp_path / "folded.pt"
    direction = ["--path", str(ours), "--cpu"]
    assert main(["fold", str(ours), "--output", str(folded)]) == 0
    assert main(["prune", data, *direction, "--heads", "E:1:2", "--output", str(pruned)]) == 0
    assert main(["analyze", data, *direction, "--output", str(tmp_path / "analysis")]) == 0
    codes = tmp_path / "codes"
    codes.write_text("#version: 0.2\nz z</w>\n")
    text = ["-s", "de", "-t", "en", "--bpe-codes", str(codes)]
    assert main(["export", str(ours), data, *text, "--output", str(tmp_path / "exported")]) == 0
    assert (tmp_path / "exported/model/model.bin").is_file()


@pytest.mark.parametrize(
    "name", ["ADMIN", "DeepNet", "deepnmt, normed embedding", "admin-torch, vectors"]
)
def test_the_fold_of_a_converted_model_computes_what_the_official_layers_do(
    tmp_path: Path, num_words: int, name: str
) -> None:
    """`fold` compares with the converted model only, and lets pass 1e-2."""
    from admin_nmt.export import fold_checkpoint
    from admin_nmt.models.loading import build_model

    origin, changes, _ = MODELS[name]
    settings = SIZES | changes
    state = write(tmp_path / "theirs.pt", settings, num_words)
    command = ["convert", str(tmp_path / "theirs.pt"), "--from", origin]
    assert main([*command, "--output", str(tmp_path / "ours.pt")]) == 0
    folded, report = fold_checkpoint(tmp_path / "ours.pt")
    model = build_model(Namespace(**folded["cfg"]["model"]), folded["model"], "transformer")
    expected = official.forward(state, settings, SOURCE, TARGET)
    with torch.no_grad():
        found = model(torch.tensor([SOURCE]), torch.tensor([len(SOURCE)]), torch.tensor([TARGET]))[
            0
        ][0]
    # DeepNorm's constant on the first shortcut folds up to LayerNorm's epsilon.
    bound = BOUND * (20 if report.epsilon_factors else 1)
    assert float((found - expected).abs().max() / expected.abs().max()) < bound


def test_numbers_of_admin_torch_in_sixteen_bits_are_kept_as_they_were_rounded(
    tmp_path: Path, num_words: int
) -> None:
    """`--fp16` of fairseq rounds buffers too: such a model never computed with the formula's number."""
    path = tmp_path / "theirs.pt"
    settings = SIZES | NUMBERS
    state = {name: value.half() for name, value in write(path, settings, num_words).items()}
    file = open_converted(path)
    file["model"] = state
    torch.save(file, path)
    ours = tmp_path / "ours.pt"
    assert main(["convert", str(path), "--from", "admin-torch", "--output", str(ours)]) == 0
    assert_equal_logits(ours, state, settings, num_words)


def test_sixteen_bits_and_old_files_are_read(tmp_path: Path, num_words: int, capsys: Any) -> None:
    path = tmp_path / "theirs.pt"
    write(path, SIZES | ADAPTIVE, num_words)
    state = open_converted(path)
    state["model"] = {name: value.half() for name, value in state["model"].items()}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    arguments = ["--from", "transformer-clinic", "--output", str(tmp_path / "ours.pt")]
    assert main(["convert", str(path), *arguments]) == 0
    assert "the checkpoint was float16" in capsys.readouterr().out
    model = open_checkpoint(tmp_path / "ours.pt")["model"]
    assert {value.dtype for value in model.values()} == {torch.float32}


def test_norms_by_number_and_one_limit_of_positions_are_read(
    tmp_path: Path, num_words: int
) -> None:
    """As fairseq wrote them before 0.6 and 0.5."""
    path, ours = tmp_path / "theirs.pt", tmp_path / "ours.pt"
    settings = SIZES | UNSHARED
    state = write(path, settings, num_words)
    file = open_converted(path)
    file["model"] = {_numbered(name): value for name, value in state.items()}
    assert "decoder.layers.1.layer_norms.2.bias" in file["model"]
    limits = ("max_source_positions", "max_target_positions")
    kept = {name: value for name, value in settings.items() if name not in limits}
    file["args"] = Namespace(**kept, max_positions=48)
    torch.save(file, path)
    assert main(["convert", str(path), "--from", "fairseq", "--output", str(ours)]) == 0
    converted = open_checkpoint(ours)
    model_settings = converted["cfg"]["model"]
    assert [model_settings[name] for name in limits] == [48, 48]
    assert_equal_logits(ours, state, settings, num_words)


def _numbered(name: str) -> str:
    """The name of a parameter with `layer_norms.K`: K counts the sublayers."""
    for stack, kinds in official.RATIOS.items():
        for number, kind in enumerate(kinds):
            if name.startswith(f"{stack}.layers."):
                old, new = f"{official.NORMS[kind]}_layer_norm", f"layer_norms.{number}"
                name = name.replace(f".{old}.", f".{new}.")
    return name


def open_converted(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=False)  # a file of this test's own


def _change(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: vars(state["args"]).update(entries)


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state["model"].pop(name)


def _replace(name: str, value: torch.Tensor) -> Callable[[dict[str, Any]], None]:
    return lambda state: state["model"].update({name: value})


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "omega missing": (
        _without("encoder.layers.1.fc_ratio_change"),
        "omega of encoder.layers.1.ffn_residual is missing",
    ),
    "omega of zeros": (
        _replace("decoder.layers.0.self_ratio_change", torch.zeros(32)), "32 of its 32 components",
    ),
    "omega of another size": (
        _replace("encoder.layers.0.fc_ratio_change", torch.ones(5)), "shape (5,), not (32,)",
    ),
    "wrong init type": (_change(init_type="looklinear"), "--init-type looklinear is not one of"),
    "init type of another kind": (_change(init_type=[1]), "is not one of"),
    "init type denied": (_change(init_type="deepnet"), "although it was trained with"),
    "another depth": (_change(encoder_layers=10**9), "encoder_layers is 1000000000 in its settings"),
    "positions": (_change(max_source_positions=10**12), "not a number of positions"),
    "heads": (_change(encoder_attention_heads="many"), "make no model"),
    "weight missing": (_without("decoder.layers.1.fc2.weight"), "make no model"),
    "layer missing": (
        lambda state: [state["model"].pop(name) for name in list(state["model"]) if "encoder.layers.0" in name],
        "encoder has no layers, or not all",
    ),
    "projection": (
        _replace("encoder.layers.0.self_attn.in_proj_weight", torch.ones(7, 32)), "three equal parts",
    ),
    "weight of another shape": (
        _replace("encoder.layers.0.self_attn.in_proj_weight", torch.ones(96, 5)), "does not fit omega",
    ),
    "no numbers": (
        _replace("encoder.layers.0.fc1.bias", torch.full((48,), math.nan)), "computes no numbers",
    ),
    "another kind of model": (_without("encoder.embed_tokens.weight"), "only encoder-decoder"),
    "ours": (_change(arch="admin_transformer"), "needs no conversion"),
    "no settings": (lambda state: state.update(args=None), "no settings"),
    "layer-wise attention": (_change(layer_wise_attention=True), "--layer-wise-attention"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "named"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_checkpoints_end_in_one_line(
    tmp_path: Path, num_words: int, capsys: Any, damage: Callable, named: str
) -> None:
    path, output = tmp_path / "theirs.pt", tmp_path / "ours.pt"
    write(path, SIZES | ADAPTIVE, num_words)
    state = open_converted(path)
    damage(state)
    torch.save(state, path)
    command = ["convert", str(path), "--from", "transformer-clinic", "--output", str(output)]
    assert main(command) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line and str(path) in line
    assert not output.exists()


@pytest.mark.parametrize("changes", [ADAPTIVE, NUMBERS], ids=["ratios", "omegas"])
def test_other_commands_say_how_to_convert(
    tmp_path: Path, data_bin: Path, num_words: int, capsys: Any, changes: dict[str, Any]
) -> None:
    """Averages are made first, of the checkpoints as they are."""
    from fairseq import checkpoint_utils

    from admin_nmt.host.errors import describe

    path, mean, output = (tmp_path / name for name in ("theirs.pt", "mean.pt", "output"))
    write(path, SIZES | changes, num_words)
    assert main(["average", "--inputs", str(path), str(path), "--output", str(mean)]) == 0
    data = [str(data_bin), "--path", str(mean), "--cpu"]
    for command in (
        ["fold", str(mean), "--output", str(output)],
        ["export", str(mean), str(data_bin), "--output", str(output)],
        ["prune", *data, "--heads", "E:1:1", "--output", str(output)],
    ):
        capsys.readouterr()
        assert main(command) == 1
        assert "'admin-nmt convert'" in capsys.readouterr().err
    # As fairseq-generate and fairseq-train --finetune-from-model tell it.
    with pytest.raises(RuntimeError) as caught:
        built(checkpoint_utils.load_checkpoint_to_cpu(str(mean)), num_words)
    line = describe(caught.value)
    assert line and "'admin-nmt convert'" in line
    origin = "admin-torch" if "admin_torch" in changes else "transformer-clinic"
    assert main(["convert", str(mean), "--from", origin, "--output", str(output)]) == 0


class _Foreign:
    def __reduce__(self) -> Any:
        return print, ("ran",)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path, capsys: Any) -> None:
    path, output = tmp_path / "theirs.pt", tmp_path / "ours.pt"
    torch.save({"model": {"x": torch.ones(1)}, "extra_state": _Foreign()}, path)
    for origin in ("transformer-clinic", "admin-torch", "fairseq"):
        assert main(["convert", str(path), "--from", origin, "--output", str(output)]) == 1
        said = capsys.readouterr()
        assert "refusing checkpoint" in said.err and "ran" not in said.out


def test_omegas_that_no_sublayer_owns_are_named(tmp_path: Path, num_words: int) -> None:
    from admin_nmt.interop.admin_torch import convert

    path = tmp_path / "theirs.pt"
    write(path, SIZES | NUMBERS, num_words)
    state = open_converted(path)
    state["model"]["encoder.layers.0.strange.omega"] = torch.ones(1)
    torch.save(state, path)
    with pytest.raises(UserError, match=r"strange\.omega does not say to which sublayer"):
        convert(path)


def test_the_command_line_knows_all_origins() -> None:
    from admin_nmt.cli.convert import ORIGINS
    from admin_nmt.interop.registry import ORIGINS as CONVERTERS

    assert tuple(CONVERTERS) == ORIGINS
    assert main(["convert", "x", "--from", "nobody", "--output", "y"]) == 2
