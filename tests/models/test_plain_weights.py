"""Weights of a plain fairseq Transformer go only into models that compute the same with them."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.errors import UserError
from admin_nmt.host.errors import describe
from admin_nmt.host.resuming import require_same_function
from tests.support.models import omegas, trainer_state


@pytest.fixture(scope="module")
def plain_state(build: Callable[..., Any]) -> Callable[[], dict[str, torch.Tensor]]:
    sizes = "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 32 --decoder-embed-dim 32"
    sizes += " --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64"
    sizes += " --encoder-attention-heads 4 --decoder-attention-heads 4"
    stock = build("--arch", "transformer", *sizes.split())
    return lambda: {name: value.clone() for name, value in stock.state_dict().items()}


@pytest.mark.parametrize("init_type", ["admin-log", "admin-const", "deepnorm", "rezero"])
def test_other_constants_on_shortcuts_are_refused(
    build: Callable[..., Any], plain_state: Callable[[], dict[str, torch.Tensor]], init_type: str
) -> None:
    """They would be loaded without a message and compute something else: no weight holds a first factor."""
    model = build("--init-type", init_type)
    with pytest.raises(UserError, match=f"--init-type {init_type} cannot start from") as caught:
        model.load_state_dict(plain_state())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("init_type", ["admin", "default"])
def test_plain_shortcuts_take_them(
    build: Callable[..., Any], plain_state: Callable[[], dict[str, torch.Tensor]], init_type: str
) -> None:
    build("--init-type", init_type).load_state_dict(plain_state())


@pytest.mark.parametrize("init_type", ["admin", "deepnorm"])
def test_old_checkpoints_with_one_input_projection_are_plain_ones(
    build: Callable[..., Any], plain_state: Callable[[], dict[str, torch.Tensor]], init_type: str
) -> None:
    old = plain_state()
    for name in [name for name in old if "q_proj" in name]:
        parts = [old.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        old[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    model = build("--init-type", init_type, seed=2)
    if init_type == "deepnorm":
        with pytest.raises(UserError, match="--init-type deepnorm cannot start from"):
            model.load_state_dict(old)
        return
    model.load_state_dict(old)
    other = build("--init-type", init_type, seed=3)
    other.load_state_dict(plain_state())
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(
    "init_type", ["admin", "admin-log", "admin-const", "deepnorm", "rezero", "default"]
)
def test_every_model_takes_its_own_weights(build: Callable[..., Any], init_type: str) -> None:
    source, target = build("--init-type", init_type, seed=1), build("--init-type", init_type)
    target.load_state_dict(source.state_dict())
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])


OTHER_FACTORS = [
    ("default", "deepnorm"),
    ("default", "admin-log"),
    ("deepnorm", "admin"),
    ("deepnorm", "default"),
    ("admin", "admin-const"),
    ("admin-log", "admin-const"),
    ("admin", "default"),
    ("rezero", "default"),
]


@pytest.fixture(scope="module")
def saved(
    parse: Callable[..., Any], task: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Any, Path]]:
    """`saved(*options)`: a model with these options, and a checkpoint of it."""

    @cache
    def make(*options: str) -> tuple[Any, Path]:
        cfg = parse(*options)
        model = task.build_model(cfg.model)
        path = tmp_path_factory.mktemp("saved") / "model.pt"
        torch.save(trainer_state(model, cfg), path)
        return model, path

    return make


@pytest.fixture(scope="module")
def of_type(saved: Callable[..., tuple[Any, Path]]) -> Callable[[str], tuple[Any, Path]]:
    """A model with this `--init-type`, and a checkpoint of it."""
    return lambda init_type: saved("--init-type", init_type)


@pytest.mark.parametrize(("trained", "wanted"), OTHER_FACTORS)
def test_training_does_not_go_on_with_other_factors(
    of_type: Callable[[str], tuple[Any, Path]], trained: str, wanted: str
) -> None:
    """Most of these pairs have the same names of tensors, or lack omegas as a plain model does."""
    path = of_type(trained)[1]
    message = f"with --init-type {trained}: with --init-type {wanted} its residual"
    with pytest.raises(UserError, match=message):
        require_same_function(of_type(wanted)[0], str(path))


@pytest.mark.parametrize("wanted", ["admin", "default", "deepnorm", "admin-log", "rezero"])
def test_training_goes_on_with_the_same_factors(
    of_type: Callable[[str], tuple[Any, Path]], tmp_path: Path, wanted: str
) -> None:
    model, path = of_type(wanted)
    require_same_function(model, str(path))
    require_same_function(model, str(tmp_path / "not there"))


def test_a_default_model_becomes_an_admin_model(
    of_type: Callable[[str], tuple[Any, Path]],
) -> None:
    """omega = 1 computes the same."""
    (admin, _), (default, path) = of_type("admin"), of_type("default")
    require_same_function(admin, str(path))
    model = copy.deepcopy(admin)
    with torch.no_grad():
        for omega in omegas(model):
            omega.fill_(2.0)
    model.load_state_dict(default.state_dict())
    assert [omega.unique().tolist() for omega in omegas(model)] == [[1.0]] * 8


@pytest.mark.parametrize(
    ("trained", "wanted", "message"),
    [
        (("all",), (), "was trained with --residual-attention all"),
        (("encoder cross",), ("cross",), "was trained with --residual-attention encoder cross"),
        (("all", "sum"), ("all", "mean"), "was trained with --residual-attention-reduce sum"),
        ((), ("all",), None),
        (("encoder",), ("encoder,decoder",), None),
    ],
)
def test_attention_goes_on_as_it_was_trained(
    saved: Callable[..., tuple[Any, Path]], trained: tuple[str, ...], wanted: tuple[str, ...],
    message: str | None,
) -> None:  # fmt: skip
    """A plain model may become a RealFormer, whose first layer is plain; not the other way round."""

    def options(values: tuple[str, ...]) -> list[str]:
        names = ("--residual-attention", "--residual-attention-reduce")
        return [x for pair in zip(names, values, strict=False) for x in pair]

    path, model = saved(*options(trained))[1], saved(*options(wanted))[0]
    if message is None:
        require_same_function(model, str(path))
        return
    with pytest.raises(UserError, match=message):
        require_same_function(model, str(path))


@pytest.mark.parametrize("arch", ["admin_transformer_tiny", "transformer_tiny"])
def test_heads_go_on_in_their_number(saved: Callable[..., tuple[Any, Path]], arch: str) -> None:
    """Shapes do not tell them: 4 heads of 16 and 8 of 8 have the same matrices."""
    sizes = ("--encoder-embed-dim", "64", "--decoder-embed-dim", "64")
    model = saved(*sizes)[0]
    for stack in ("encoder", "decoder"):
        heads = [x for side in ("encoder", "decoder")
                 for x in (f"--{side}-attention-heads", "8" if side == stack else "4")]  # fmt: skip
        path = saved("--arch", arch, *sizes, *heads)[1]
        with pytest.raises(UserError, match=f"with --{stack}-attention-heads 8: with 4 attention"):
            require_same_function(model, str(path))


@pytest.mark.parametrize("arch", ["admin_transformer_tiny", "transformer_tiny"])
def test_settings_that_no_weight_shows_stay(
    saved: Callable[..., tuple[Any, Path]], arch: str
) -> None:
    ours = ("--arch", "admin_transformer_tiny", "--init-type", "default")
    theirs = ours if arch in ours else ("--arch", arch)
    for given, trained, asked in (
        (("--activation-fn", "gelu"), "with --activation-fn gelu", "with --activation-fn relu"),
        *(((flag,), f"with {flag}", f"without {flag}") for flag in (
            "--no-scale-embedding", "--no-token-positional-embeddings", "--decoder-normalize-before",
        )),
    ):  # fmt: skip
        model, path = saved(*ours, *given)[0], saved(*theirs, *given)[1]
        require_same_function(model, str(path))
        with pytest.raises(UserError, match=f"was trained {trained}: {asked} the same weights"):
            require_same_function(saved(*ours)[0], str(path))
        with pytest.raises(UserError, match=f"{asked}: {trained} .*; train on {asked}, or"):
            require_same_function(model, str(saved(*theirs)[1]))


@pytest.mark.parametrize("arch", ["admin_transformer_tiny", "transformer_tiny"])
@pytest.mark.parametrize("kind", ["all-embeddings", "decoder-input-output-embed"])
def test_embeddings_that_differ_do_not_become_one(
    saved: Callable[..., tuple[Any, Path]], arch: str, kind: str
) -> None:
    """Names and shapes are the same."""
    ours = ("--arch", "admin_transformer_tiny", "--init-type", "default")
    theirs = ours if arch in ours else ("--arch", arch)
    shared = f"--share-{kind}"
    tied, tied_path = saved(*ours, shared)[0], saved(*theirs, shared)[1]
    untied, untied_path = saved(*ours)[0], saved(*theirs)[1]
    for model, path in ((tied, tied_path), (untied, untied_path), (untied, tied_path)):
        require_same_function(model, str(path))
    with pytest.raises(UserError, match=f"has other numbers in decoder.*of which {shared} makes"):
        require_same_function(tied, str(untied_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--encoder-embed-dim", "48"), "--encoder-embed-dim 48, --decoder-embed-dim 48; this one"),
        (("--decoder-ffn-embed-dim", "16"), "--decoder-ffn-embed-dim 16; this one has .* 64$"),
        (("--encoder-layers", "3"), "of a model with --encoder-layers 3; this one has .* 2$"),
    ],
)
def test_weights_of_other_sizes_are_refused_by_option(
    build: Callable[..., Any], options: tuple[str, ...], message: str
) -> None:
    """Heads of another width are not taken for more heads."""
    with pytest.raises(UserError, match=message):
        build().load_state_dict(build(*options).state_dict())


def test_a_mask_is_not_lost_silently(saved: Callable[..., tuple[Any, Path]]) -> None:
    """`fairseq-hydra-train` does not take it over from the checkpoint, as `fairseq-train` does."""
    masked, path = saved("--head-mask", "E:1:2")
    require_same_function(masked, str(path))
    require_same_function(saved("--head-mask", "E:1:1")[0], str(path))
    require_same_function(saved("--head-mask", "")[0], str(path))
    with pytest.raises(UserError, match=r"has masked heads: give --head-mask E:1:2 "):
        require_same_function(saved()[0], str(path))


def test_fairseqs_trainer_compares_before_it_loads(
    of_type: Callable[[str], tuple[Any, Path]], parse: Callable[..., Any], task: Any
) -> None:
    """And writes the languages down that it took from the names of files."""
    from fairseq.trainer import Trainer

    cfg = parse("--init-type", "deepnorm")
    assert cfg.task.source_lang is None
    trainer = Trainer(cfg, task, of_type("deepnorm")[0], task.build_criterion(cfg.criterion))
    assert (cfg.task.source_lang, cfg.task.target_lang) == ("de", "en")
    with pytest.raises(UserError, match="was trained with --init-type default"):
        trainer.load_checkpoint(str(of_type("default")[1]))


def test_the_reason_survives_fairseqs_trainer() -> None:
    """It replaces every exception while loading by "please ensure that the architectures match"."""
    with pytest.raises(Exception, match="architectures match") as caught:
        try:
            raise UserError("the reason")
        except Exception:
            raise Exception("please ensure that the architectures match")  # noqa: B904
    assert describe(caught.value) == "the reason"
    assert describe(Exception("please ensure that the architectures match")) is None
