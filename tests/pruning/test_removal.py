"""Removing heads for good gives what masking them gives, and saves what it must on paper."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.errors import UsageError, UserError
from admin_nmt.models.heads import apply_mask
from admin_nmt.modules.head_names import Head, all_heads, without
from admin_nmt.pruning import prune

SIZES = "--encoder-layers 2 --decoder-layers 3 --encoder-embed-dim 24 --decoder-embed-dim 32"
DEEP = "--encoder-layers 4 --decoder-layers 3".split()
SUM = ("--residual-attention-reduce", "sum")
OPTIONS = {
    "admin": (),
    "narrow encoder": tuple(SIZES.split()),
    "pre-LN": (
        "--init-type", "default", "--encoder-normalize-before", "--decoder-normalize-before",
    ),
    "rezero, tied": ("--init-type", "rezero", "--share-all-embeddings"),
    "no cross": ("--no-cross-attention",),
    "RealFormer": (*DEEP, "--residual-attention", "all"),
    "RealFormer, sum": (*DEEP, "--residual-attention=encoder,cross", *SUM),
}  # fmt: skip


def mask(model: Any, heads: set[Head], layout: Any) -> None:
    """Gates of 0 on `heads`; none before."""
    from admin_nmt.models.heads import attentions

    for *_, attention in attentions(model):
        attention.head_gate = None
    if heads:
        apply_mask(model, heads, layout)


def subsets(layout: Any) -> st.SearchStrategy[set[Head]]:
    """Random subsets of heads; half of the time with one whole layer among them."""
    heads = list(all_heads(layout))
    some = st.sets(st.sampled_from(heads))
    layers = st.sampled_from(sorted({(head.kind, head.layer) for head in heads}))
    whole = layers.map(lambda place: {head for head in heads if head[:2] == place})
    return st.builds(lambda a, b, use: a | b if use else a, some, whole, st.booleans())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_removed_heads_equal_masked_heads(
    loaded: Callable[..., Any],
    without_heads: Callable[..., Any],
    batch: dict[str, Any],
    options: tuple[str, ...],
) -> None:
    source = loaded(*options)

    @settings(max_examples=12, deadline=None)
    @given(removed=subsets(source.layout))
    def check(removed: set[Head]) -> None:
        mask(source.model, removed, source.layout)
        expected, expected_extra = source.model(**batch["net_input"])
        logits, extra = without_heads(source, removed, *options)(**batch["net_input"])
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=2e-5)
        if expected_extra["attn"][0] is not None:
            assert extra["attn"][0].shape == expected_extra["attn"][0].shape

    check()


def test_a_masked_head_contributes_nothing_and_the_bias_stays(
    loaded: Callable[..., Any], batch: dict[str, Any]
) -> None:
    """All heads masked: the output of attention is out_proj.bias, whatever came in."""
    from admin_nmt.models.heads import attentions

    source = loaded()
    mask(source.model, set(all_heads(source.layout)), source.layout)
    seen = []
    for *_, attention in attentions(source.model):
        attention.register_forward_hook(lambda module, _, out: seen.append((module, out[0])))
    source.model(**batch["net_input"])
    assert len(seen) == 6
    for module, out in seen:
        torch.testing.assert_close(out, module.out_proj.bias.expand_as(out), rtol=0, atol=0)


@pytest.mark.parametrize("options", [(), ("--residual-attention", "all")], ids=["plain", "chain"])
def test_beam_search_finds_the_same_translations(
    loaded: Callable[..., Any],
    without_heads: Callable[..., Any],
    task: Any,
    batch: dict[str, Any],
    options: tuple[str, ...],
) -> None:
    """Incremental decoding: caches of layers with fewer heads, and of layers with none."""
    source = loaded(*options)
    heads = {Head("D", 1, h) for h in (1, 2, 3, 4)} | {Head("A", 2, h) for h in (1, 2, 3, 4)}
    removed = heads | {Head("D", 2, 2), Head("A", 1, 1), Head("E", 1, 3)}
    mask(source.model, removed, source.layout)
    found = []
    for model in (source.model, without_heads(source, removed, *options)):
        generator = task.build_generator([model], Namespace(beam=3, max_len_b=8))
        found.append(generator.generate([model], batch))
    for expected, got in zip(*found, strict=True):
        assert torch.equal(expected[0]["tokens"], got[0]["tokens"])
        torch.testing.assert_close(expected[0]["score"], got[0]["score"], rtol=1e-4, atol=1e-5)


def test_removing_in_two_steps_equals_one(
    loaded: Callable[..., Any], without_heads: Callable[..., Any]
) -> None:
    from admin_nmt.pruning.loading import LoadedModel

    source = loaded()
    first = {Head("E", 1, 1), Head("D", 2, 4)}
    once = without_heads(source, first | {Head("E", 1, 3), Head("A", 1, 2)})
    half = LoadedModel(Checkpoint(Path(), {}), without_heads(source, first), source.task,
                       without(source.layout, first), "")  # fmt: skip
    # Head 3 of the first layer is now called 2.
    twice = without_heads(half, {Head("E", 1, 2), Head("A", 1, 2)})
    for name, value in once.state_dict().items():
        assert torch.equal(value, twice.state_dict()[name]), name


def test_a_pruned_realformer_is_pruned_again_like_a_masked_one(
    loaded: Callable[..., Any], without_heads: Callable[..., Any], batch: dict[str, Any]
) -> None:
    from admin_nmt.pruning.loading import LoadedModel

    options = OPTIONS["RealFormer"]
    source = loaded(*options)
    first = {Head("E", 1, 1), Head("E", 3, 2), *(Head("E", 4, h) for h in (1, 2, 4))}
    model = without_heads(source, first, *options)
    # Head 3 lasts to the top, then head 1 to layer 3, 4 to layer 3, 2 to layer 2.
    assert model.cfg.heads_per_layer == "E:4(1.3.4),4,3,1 A:4,4,4 D:4,4,4"
    half = LoadedModel(Checkpoint(Path(), {}), model, source.task, model.cfg.layout, "")
    second = {Head("E", 1, 2), Head("E", 2, 3), Head("D", 3, 1)}
    mask(half.model, second, half.layout)
    expected = half.model(**batch["net_input"])[0]
    twice = without_heads(half, second, *options)
    torch.testing.assert_close(twice(**batch["net_input"])[0], expected, rtol=1e-5, atol=2e-5)


def test_queries_and_keys_go_where_no_head_above_needs_them(
    loaded: Callable[..., Any], without_heads: Callable[..., Any]
) -> None:
    """D = 32, 4 heads of 8: a head has 2 * 8 * 33 numbers for q and k, 8 * 33 + 8 * 32 for v, out."""
    options = OPTIONS["RealFormer"]
    source = loaded(*options)
    scores, values = 2 * 8 * 33, 8 * 33 + 8 * 32
    whole = sum(p.numel() for p in source.model.parameters())
    for removed, saved in (
        ({Head("E", 4, 1)}, scores + values),  # the top layer: nothing above
        ({Head("E", 1, 1)}, values),  # needed above
        ({Head("E", 3, 2), Head("E", 4, 2)}, 2 * (scores + values)),
        ({Head("E", n, 3) for n in (1, 3, 4)}, 3 * values + 2 * scores),  # layer 2 needs layer 1
        ({Head("D", n, h) for n in (1, 2, 3) for h in (1, 2, 3, 4)}, 12 * (scores + values)),
    ):
        pruned = without_heads(source, removed, *options)
        assert sum(p.numel() for p in pruned.parameters()) == whole - saved, removed


@pytest.mark.parametrize("removed", [set(), {Head("A", 1, 2), Head("E", 2, 1), Head("D", 1, 1)}])
def test_parameters_are_those_on_paper(
    loaded: Callable[..., Any], without_heads: Callable[..., Any], removed: set[Head]
) -> None:
    from admin_nmt.checkpoints.tensors import num_parameters
    from admin_nmt.pruning.removal import parameters_per_head

    options = (*SIZES.split(), "--share-decoder-input-output-embed")
    source = loaded(*options)
    pruned = without_heads(source, removed, *options)
    # D = 24 (encoder) and 32 (decoder), 4 heads: K = 6 and 8. Per head: q, k, v rows with a bias
    # each, and K columns of the output projection; encoder-decoder keys and values read 24 numbers.
    saved = {"E": 6 * (3 * 25 + 24), "A": 8 * (33 + 2 * 25 + 32), "D": 8 * (3 * 33 + 32)}
    assert saved["E"] == parameters_per_head(24, 6) and saved["D"] == parameters_per_head(32, 8)
    assert saved["A"] == parameters_per_head(32, 8, 24)
    whole = sum(p.numel() for p in source.model.parameters())
    assert num_parameters(source.model.state_dict()) == whole
    expected = whole - sum(saved[head.kind] for head in removed)
    assert sum(p.numel() for p in pruned.parameters()) == expected
    assert num_parameters(pruned.state_dict()) == expected


@pytest.mark.parametrize("options", [(), ("--residual-attention", "all")], ids=["plain", "chain"])
def test_gradients_of_what_is_left_are_those_of_the_masked_model(
    loaded: Callable[..., Any],
    without_heads: Callable[..., Any],
    batch: dict[str, Any],
    options: tuple[str, ...],
) -> None:
    source = loaded(*options)
    removed = {Head("E", 1, 2), Head("D", 1, 1), *(Head("A", 2, h) for h in (1, 2, 3, 4))}
    mask(source.model, removed, source.layout)
    pruned = without_heads(source, removed, *options)
    for model in (source.model, pruned):
        model.requires_grad_(True)
        (model(**batch["net_input"])[0].square().sum() / 1000).backward()
    masked = {name: p.grad for name, p in source.model.named_parameters()}
    from admin_nmt.pruning.removal import remove_heads

    expected, _ = remove_heads(masked, source.model.cfg, removed)
    for name, parameter in pruned.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5)


def test_pruning_removes_masked_heads_too_and_keeps_the_type_of_numbers(
    checkpoint: Callable[..., Path],
) -> None:
    from admin_nmt.pruning.removal import prune

    opened = Checkpoint.open(checkpoint("--head-mask", "E:1:2"))
    half = {name: value.half() for name, value in opened.weights.items()}
    pruned = prune(Checkpoint(opened.path, dict(opened.state) | {"model": half}), {Head("A", 2, 1)})
    assert pruned.setting("model", "heads_per_layer") == "E:3,4 A:4,3 D:4,4"
    assert not pruned.setting("model", "head_mask")
    assert {value.dtype for value in pruned.weights.values()} == {torch.float16}


def test_heads_that_do_not_exist_are_refused(loaded: Callable[..., Any]) -> None:
    from admin_nmt.pruning.removal import remove_heads

    source = loaded()
    for head, message in (
        (Head("E", 3, 1), r"E:3:1 does not exist: the model has 2 layers of encoder self"),
        (Head("A", 1, 5), r"A:1:5 does not exist: that layer has 4 heads"),
        (Head("D", 0, 1), r"D:0:1 does not exist"),
    ):
        with pytest.raises(UsageError, match=message):
            remove_heads(source.model.state_dict(), source.model.cfg, {head})


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("E:4", r"gives 1 layers of encoder self-attention; the model has 2"),
        ("E:4,5", r"a layer of encoder self-attention 5 heads; --encoder-attention-heads is 4"),
        ("E:4,x", r"'E:4,x' is not a head count per layer"),
        ("E:4,4 E:4,4", r"'E:4,4' is not a head count per layer"),
        ("E:4(1.2),4", r"heads without values need --residual-attention in encoder self-attention"),
        ("E:4(2.1),4", r"4\(2.1\) must name some of its 4 heads in ascending order"),
        ("E:4(5),4", r"4\(5\) must name some of its 4 heads"),
    ],
)
def test_head_counts_that_do_not_fit_are_refused(
    build: Callable[..., Any], layout: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build("--heads-per-layer", layout)


def test_a_chain_cannot_grow(build: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"the layer below, whose scores it adds; got 3,4"):
        build("--residual-attention", "encoder", "--heads-per-layer", "E:3,4")


def test_a_state_dict_with_other_heads_is_refused_with_the_option_that_helps(
    build: Callable[..., Any],
) -> None:
    small = build("--heads-per-layer", "E:3,0 A:1,4")
    with pytest.raises(UserError, match=r"give --heads-per-layer 'E:3,0 A:1,4 D:4,4'"):
        build().load_state_dict(small.state_dict())


@pytest.mark.parametrize("theirs", ["E:4(1.3.4),2,2 A:4,4 D:4,4", "E:4(1.3.4),4,2 A:4,4 D:4,4"])
def test_queries_without_values_are_told_apart(build: Callable[..., Any], theirs: str) -> None:
    """Shapes do not say which heads lost their values, so no layout is guessed."""
    options = ("--encoder-layers", "3", "--residual-attention", "all")
    state = build(*options, "--heads-per-layer", theirs).state_dict()
    for ours in ("E:3,2,2", ""):
        model = build(*options, *(("--heads-per-layer", ours) if ours else ()))
        with pytest.raises(UserError, match="--heads-per-layer as in the checkpoint's settings"):
            model.load_state_dict(state)
    build(*options, "--heads-per-layer", theirs).load_state_dict(state)


def test_the_argument_is_not_changed(checkpoint: Callable[..., Path]) -> None:
    """fairseq renames entries of the weights that it loads; here those of its own attention."""
    from admin_nmt.pruning.removal import prune

    sizes = "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16"
    whole = Checkpoint.open(checkpoint("--arch", "transformer", *sizes.split()))
    names = list(whole.weights)
    pruned = prune(whole, {Head("E", 1, 1)})
    assert list(whole.weights) == names != list(pruned.weights)


def test_a_model_of_compiled_layers_can_be_loaded_and_pruned_again(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Compiled layers serve no other numbers of heads; the pruned model is not compiled."""
    from fairseq.checkpoint_utils import load_model_ensemble_and_task

    pruned = prune(Checkpoint.open(checkpoint("--compile")), {Head("E", 1, 1)})
    pruned.save(tmp_path / "pruned.pt")
    (model,), *_ = load_model_ensemble_and_task([str(tmp_path / "pruned.pt")])
    assert not model.cfg.compile
    prune(Checkpoint.open(tmp_path / "pruned.pt"), {Head("E", 1, 1)})
