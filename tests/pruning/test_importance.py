"""Importance equals the paper's formula, computed sentence by sentence and token by token."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.criterions.output_layer import log_probabilities
from admin_nmt.errors import UserError
from admin_nmt.models.heads import attentions
from admin_nmt.modules.head_names import Head, all_heads
from admin_nmt.pruning.importance import normalize_by_layer, ranking

NARROW = "--encoder-layers 3 --decoder-layers 2 --encoder-embed-dim 24".split()


def reference(loaded: Any, rows: list[Any], granularity: str) -> dict[str, list[list[float]]]:
    """|Att_h^T dL/dAtt_h| in float64, one sentence at a time, so that there is no padding.

    Att_h is what the output projection reads from head h; no gate is involved.
    """
    model = loaded.model.double()
    sums = dict.fromkeys(all_heads(loaded.layout), 0.0)
    examples = dict.fromkeys(loaded.layout, 0)
    dataset = loaded.task.dataset("train")
    for row in rows:
        sample = dataset.collater([dataset[row]])
        contexts: dict[tuple[str, int], Any] = {}
        hooks = []
        for kind, layer, _, attention in attentions(model):

            def keep(
                module: Any, inputs: tuple, key: Any = (kind, layer), found: dict = contexts
            ) -> tuple:
                found[key] = inputs[0].requires_grad_()
                return (found[key],)

            if attention.num_heads:
                hooks.append(attention.out_proj.register_forward_pre_hook(keep))
        lprobs = log_probabilities(model, model(**sample["net_input"]))[0]
        loss = -sum(lprobs[t, token] for t, token in enumerate(sample["target"][0]))
        gradients = torch.autograd.grad(loss, list(contexts.values()))
        for hook in hooks:
            hook.remove()
        for ((kind, layer), context), gradient in zip(contexts.items(), gradients, strict=True):
            heads = loaded.layout[kind][layer - 1]
            dots = (context * gradient)[:, 0].view(len(context), heads, -1).sum(-1)  # (T, H)
            for head in range(heads):
                per_token = [float(dots.detach()[t, head]) for t in range(len(dots))]
                if granularity == "token":
                    sums[Head(kind, layer, head + 1)] += sum(map(abs, per_token))
                else:
                    sums[Head(kind, layer, head + 1)] += abs(sum(per_token))
        lengths = {"E": sample["net_input"]["src_tokens"].shape[1], "A": len(lprobs)}
        for kind in examples:
            examples[kind] += 1 if granularity == "sentence" else lengths.get(kind, lengths["A"])
    model.float()
    scores: dict[str, list[list[float]]] = {
        kind: [[0.0] * count for count in counts] for kind, counts in loaded.layout.items()
    }
    for head, total in sums.items():
        scores[head.kind][head.layer - 1][head.head - 1] = total / examples[head.kind]
    return scores


def assert_close(scores: Any, expected: Any, tolerance: float = 1e-4) -> None:
    assert scores.keys() == expected.keys()
    for kind, layers in expected.items():
        for layer, heads in enumerate(layers):
            assert scores[kind][layer] == pytest.approx(heads, rel=tolerance, abs=1e-7)


@pytest.mark.parametrize("granularity", ["token", "sentence"])
@pytest.mark.parametrize(
    "options",
    [
        (),
        (*NARROW, "--heads-per-layer", "E:4,0,2 D:1,4"),
        ("--init-type", "default", "--encoder-normalize-before", "--decoder-normalize-before"),
        ("--residual-attention", "all"),
        (*NARROW, "--residual-attention", "all", "--heads-per-layer", "E:4(1.3),2,1 D:4(),4(2)"),
        ("--adaptive-softmax-cutoff", "12,30"),
    ],
    ids=["plain", "pruned", "pre-LN", "RealFormer", "pruned RealFormer", "adaptive softmax"],
)
def test_scores_equal_the_formula_without_padding(
    loaded: Callable[..., Any], task: Any, granularity: str, options: tuple[str, ...]
) -> None:
    from admin_nmt.pruning.measuring import MeasuringOptions, measure

    source = loaded(*options)
    # Small batches, so that the first of them hold few sentences for the slow reference.
    result = measure(
        MeasuringOptions(granularity=granularity, max_batches=3, max_tokens=150, seed=3), source
    )
    epoch = task.get_batch_iterator(
        task.dataset("train"), max_tokens=150, seed=3, disable_iterator_cache=True
    )
    iterator = epoch.next_epoch_itr(shuffle=True)
    batches = [next(iterator) for _ in range(3)]
    pad = task.source_dictionary.pad()
    assert any((b["net_input"]["src_tokens"] == pad).any() for b in batches)
    rows = [int(row) for sample in batches for row in sample["id"]]
    assert_close(result.scores, reference(source, rows, granularity))
    assert all(attention.head_gate is None for *_, attention in attentions(source.model))


def test_scores_do_not_depend_on_how_sentences_are_batched(loaded: Callable[..., Any]) -> None:
    from admin_nmt.pruning.measuring import MeasuringOptions, measure

    source = loaded()
    for granularity in ("token", "sentence"):
        one = measure(MeasuringOptions(granularity=granularity, max_tokens=50), source)
        other = measure(MeasuringOptions(granularity=granularity, max_tokens=1000), source)
        assert_close(one.scores, other.scores)
        assert one.settings["num_examples"] == other.settings["num_examples"]


def test_sentence_score_is_the_slope_of_the_loss_along_the_gate(
    loaded: Callable[..., Any], task: Any
) -> None:
    """Central differences in float64: dL/dxi_h of one sentence, with gates of 1 +- epsilon."""
    from admin_nmt.pruning.measuring import gate_gradients

    source = loaded()
    model = source.model.double()
    sample = task.dataset("train").collater([task.dataset("train")[5]])

    def loss() -> float:
        logits = model(**sample["net_input"])[0]
        return float(F.cross_entropy(logits[0], sample["target"][0], reduction="sum"))

    gradients, _ = gate_gradients(model, sample)
    for kind, layer, _, attention in attentions(model):
        slopes = []
        for head in range(attention.num_heads):
            losses = []
            for epsilon in (1e-4, -1e-4):
                gate = torch.ones(attention.num_heads, dtype=torch.float64)
                gate[head] += epsilon
                attention.head_gate = gate
                losses.append(loss())
            attention.head_gate = None
            slopes.append((losses[0] - losses[1]) / 2e-4)
        expected = gradients[kind, layer][0].sum(-1).tolist()
        # gates are float32 inside: a relative error of 1e-6 or so per term
        assert slopes == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_scores_that_are_not_finite_are_refused(loaded: Callable[..., Any]) -> None:
    from admin_nmt.pruning.measuring import MeasuringOptions, measure

    source = loaded()
    with torch.no_grad():
        source.model.decoder.layers[1].fc1.weight[0, 0] = math.nan
    with pytest.raises(UserError, match=r"random\.pt is not finite: its loss is NaN or infinite"):
        measure(MeasuringOptions(max_batches=1), source)


def test_masked_heads_have_no_importance(loaded: Callable[..., Any]) -> None:
    from admin_nmt.pruning.measuring import MeasuringOptions, measure

    source = loaded("--head-mask", "E:1:3,A:2:1")
    scores = measure(MeasuringOptions(max_batches=1), source).scores
    assert scores["E"][0][2] == 0.0 and scores["A"][1][0] == 0.0
    assert sum(score == 0.0 for layers in scores.values() for h in layers for score in h) == 2


@given(
    st.dictionaries(
        st.sampled_from("EAD"),
        st.lists(st.lists(st.just(0.0) | st.floats(1e-99, 100), max_size=5), max_size=7),
    )
)
def test_every_layer_of_every_kind_has_norm_one(scores: dict[str, list[list[float]]]) -> None:
    """Also where one stack is deeper than the other: the official code fails there."""
    normalized = normalize_by_layer(scores)
    assert normalized.keys() == scores.keys()
    for kind, layers in scores.items():
        for before, after in zip(layers, normalized[kind], strict=True):
            if any(before):
                assert math.hypot(*after) == pytest.approx(1.0)
            else:
                assert after == before
    order = ranking(normalized)
    assert sorted(order) == sorted(all_heads({k: [len(h) for h in s] for k, s in scores.items()}))
    ranked = [normalized[h.kind][h.layer - 1][h.head - 1] for h in order]
    assert ranked == sorted(ranked)


def test_files_of_scores_return_what_was_saved(loaded: Callable[..., Any], tmp_path: Any) -> None:
    from admin_nmt.pruning.measuring import MeasuringOptions, measure
    from admin_nmt.pruning.records import load_measurements, measurement_of, save_measurements

    one = measure(MeasuringOptions(max_batches=1), loaded())
    other = measure(MeasuringOptions(max_batches=1), loaded(seed=2))
    path = tmp_path / "heads.json"
    save_measurements([one, other], path)
    read = load_measurements(path)
    assert read == [one, other]
    assert one.fingerprint != other.fingerprint
    assert measurement_of(read, other.fingerprint, "x.pt", "heads.json") == other
    with pytest.raises(UserError, match=r"heads.json holds the importance of another model"):
        measurement_of(read, "0" * 64, "x.pt", "heads.json")
    content = json.loads(path.read_text())
    assert content["measurements"][0]["order"] == list(map(str, one.order()))
    content["measurements"][0]["scores"]["E"][0].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"is damaged: ValueError: scores and head counts disagree"):
        load_measurements(path)


@pytest.mark.parametrize("max_batches", [None, 5])
def test_ranks_share_out_the_batches_of_one_process(
    loaded: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, max_batches: int | None
) -> None:
    """Three ranks measure every batch once: their sums are those of one process."""
    from admin_nmt.evaluation import batches
    from admin_nmt.pruning import measuring

    source = loaded()
    options = measuring.MeasuringOptions(max_tokens=150, max_batches=max_batches)
    whole = measuring.measure(options, source)
    sums: dict[tuple[str, int], list[float]] = {}
    counts = dict.fromkeys("EAD", 0)
    monkeypatch.setattr(measuring, "_add_up_over_ranks", lambda tensor: None)
    for rank in range(3):
        monkeypatch.setattr(batches, "rank_and_count", lambda rank=rank: (rank, 3))
        part = measuring.measure(options, source)
        for kind, layers in part.scores.items():
            number = part.settings["num_examples"][kind]
            counts[kind] += number
            for layer, heads in enumerate(layers):
                before = sums.setdefault((kind, layer), [0.0] * len(heads))
                sums[kind, layer] = [a + b * number for a, b in zip(before, heads, strict=True)]
    assert counts == whole.settings["num_examples"]
    for (kind, layer), totals in sums.items():
        mean = [total / counts[kind] for total in totals]
        assert mean == pytest.approx(whole.scores[kind][layer], rel=1e-5)
