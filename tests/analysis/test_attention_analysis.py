"""Entropy and divergence of attention against loops, over random models of every kind."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from admin_nmt.analysis.attention import AttentionStatistics, watch_attention
from admin_nmt.analysis.attention_report import statistics_rows, table, write_report
from admin_nmt.analysis.distributions import entropy, jensen_shannon
from admin_nmt.cli.main import main
from admin_nmt.errors import UsageError

REALFORMER = ("--residual-attention", "all", "--init-type", "default")


def distribution(numbers: list[float]) -> list[float]:
    return [x / sum(numbers) for x in numbers]


def slow_entropy(p: list[float]) -> float:
    return -sum(x * math.log2(x) for x in p if x > 0)


def slow_divergence(p: list[float], q: list[float]) -> float:
    """Mean of the two Kullback-Leibler divergences from the middle."""
    total = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        total += (a * math.log2(a / middle) if a else 0) / 2
        total += (b * math.log2(b / middle) if b else 0) / 2
    return total


pairs = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        *[
            st.lists(st.floats(0, 1, allow_subnormal=False), min_size=n, max_size=n).filter(
                lambda x: sum(x) > 0.01
            )
            for _ in range(2)
        ]
    )
)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_entropy_and_divergence_are_their_definitions(numbers: tuple) -> None:
    p, q = map(distribution, numbers)
    tensors = [torch.tensor(x, dtype=torch.float64) for x in (p, q)]
    assert entropy(tensors[0]).item() == pytest.approx(slow_entropy(p), abs=1e-9)
    found = jensen_shannon(*tensors).item()
    assert found == pytest.approx(slow_divergence(p, q), abs=1e-9)
    assert 0 <= found <= 1


def test_extremes() -> None:
    sharp = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]])
    assert entropy(sharp).tolist() == [0, 0]
    assert entropy(torch.full((4,), 0.25)).item() == pytest.approx(2)
    assert jensen_shannon(sharp[0], sharp[1]).item() == pytest.approx(1)
    assert jensen_shannon(sharp[0], sharp[0]).item() == 0


def expected_numbers(model: Any, task: Any, num_tokens: int) -> dict[str, dict]:
    """By hand: weights of every attention, sentence by sentence, token by token."""
    from admin_nmt.evaluation.batches import random_batches
    from admin_nmt.models.heads import attentions

    caught: dict[tuple[str, int], Tensor] = {}

    def catch(place: tuple[str, int]) -> Callable:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            arguments = {**kwargs, "need_head_weights": True}
            if arguments.get("prev_scores") is not None:  # may be overwritten
                arguments["prev_scores"] = arguments["prev_scores"].clone()
            caught[place] = type(module).forward(module, *args, **arguments)[1]

        return hook

    handles = [
        attention.register_forward_pre_hook(catch((kind, layer)), with_kwargs=True)
        for kind, layer, _, attention in attentions(model)
    ]
    values: dict[str, dict] = {"entropy": {}, "divergence": {}}
    seen = dict.fromkeys("EAD", 0)
    for sample in random_batches(task, model, "train", 100, 1):
        model(**sample["net_input"])
        for (kind, layer), weights in caught.items():
            tokens = sample["net_input"]["src_tokens" if kind == "E" else "prev_output_tokens"]
            count = seen[kind]
            for sentence, row in enumerate(tokens.tolist()):
                for position, token in enumerate(row):
                    if token == 1 or count >= num_tokens:
                        continue
                    count += 1
                    for head in range(weights.shape[0]):
                        p = weights[head, sentence, position].double().tolist()
                        key = (kind, layer, head)
                        values["entropy"].setdefault(key, []).append(slow_entropy(p))
                        if layer > 1:
                            q = caught[kind, layer - 1][head, sentence, position].double().tolist()
                            values["divergence"].setdefault(key, []).append(slow_divergence(p, q))
        for kind in seen:
            last = values["entropy"][kind, 1, 0]
            seen[kind] = len(last)
        if min(seen.values()) >= num_tokens:
            break
    for handle in handles:
        handle.remove()
    return values


@pytest.mark.parametrize("options", [(), REALFORMER], ids=["admin", "realformer"])
def test_statistics_equal_loops_over_tokens(
    build: Callable[..., Any], task: Any, options: tuple[str, ...]
) -> None:
    model = build(*options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        expected = expected_numbers(model, task, 70)
        found = watch_attention(model, task, "train", num_tokens=70, max_tokens=100)
    assert found.num_tokens == {"E": 70, "A": 70, "D": 70}
    for quantity in ("entropy", "divergence"):
        rows = {
            (kind, layer, head): numbers.tolist()
            for (kind, layer), heads in found.values[quantity].items()
            for head, numbers in enumerate(heads)
        }
        assert rows.keys() == expected[quantity].keys()
        for key, numbers in rows.items():
            assert numbers == pytest.approx(expected[quantity][key], abs=2e-5), key


def test_pruned_heads_are_compared_with_their_counterparts(
    build: Callable[..., Any], task: Any, tmp_path: Path
) -> None:
    """Places in the chain, not counts; nothing is compared across a layer without heads."""
    model = build(
        "--encoder-layers", "3", "--decoder-layers", "3", *REALFORMER, "--residual-attention",
        "encoder", "--heads-per-layer", "E:4(1.3.4),4,2() A:4,0,4 D:2,4,4",
    ).eval()  # fmt: skip
    found = watch_attention(model, task, "train", num_tokens=40)
    divergence, median = found.values["divergence"], found.medians("divergence")
    assert divergence.keys() == {("E", 2), ("D", 2), ("D", 3)}
    compared = {place: (~heads.isnan()).all(dim=1).tolist() for place, heads in divergence.items()}
    assert compared["E", 2] == [True, False, True, True]
    assert compared["D", 2] == [True, True, False, False] and all(compared["D", 3])
    assert list(map(len, median["E"])) == [3, 4] and list(map(len, median["A"])) == [4, 0, 4]
    assert math.isnan(median["A"][2][0]) and math.isnan(median["D"][1][3])
    write_report({"pruned \udce9 $a$": found}, tmp_path, {})
    rows = list(csv.DictReader((tmp_path / "heads.csv").open()))
    assert sum(row["quantity"] == "divergence" for row in rows) == 3 + 2 + 4
    assert "NaN" not in (tmp_path / "attention.json").read_text()


def test_watching_leaves_the_model_as_it_was(build: Callable[..., Any], task: Any) -> None:
    model = build().eval()
    sample = task.dataset("train").collater([task.dataset("train")[0]])
    before = model(**sample["net_input"])[0]
    watch_attention(model, task, "train", num_tokens=10)
    assert torch.equal(model(**sample["net_input"])[0], before)
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_number_of_tokens_does_not_depend_on_the_batches(
    build: Callable[..., Any], task: Any
) -> None:
    """Memory is bounded by --num-tokens: later tokens are not kept."""
    model = build().eval()
    for limit in (1, 37, 10**6):
        small, large = (
            watch_attention(model, task, "train", num_tokens=limit, max_tokens=max_tokens)
            for max_tokens in (60, 500)
        )
        assert small.num_tokens == large.num_tokens
        for heads in (*small.values["entropy"].values(), *large.values["entropy"].values()):
            assert heads.shape[1] <= limit
        assert limit == 10**6 or set(small.num_tokens.values()) == {limit}
    assert small.num_tokens["A"] == sum(len(task.dataset("train")[i]["target"]) for i in range(200))
    # All tokens, in whatever order: padding counts in neither.
    for quantity, places in small.values.items():
        for place, heads in places.items():
            torch.testing.assert_close(
                heads.sort(dim=1).values, large.values[quantity][place].sort(dim=1).values,
                rtol=1e-4, atol=1e-4,
            )  # fmt: skip
    with pytest.raises(UsageError, match="--num-tokens 0"):
        watch_attention(model, task, "train", num_tokens=0)


def test_rows_and_table_show_every_head(build: Callable[..., Any], task: Any) -> None:
    found = watch_attention(build().eval(), task, "train", num_tokens=50)
    rows = statistics_rows("m", found)
    assert len(rows) == 3 * 2 * 4 + 3 * 1 * 4  # entropy of all layers, divergence of the second
    for row in rows:
        assert row["q05"] <= row["q25"] <= row["q50"] <= row["q75"] <= row["q95"]
        assert row["num_tokens"] == 50
    collapsed = AttentionStatistics(found.values, found.num_tokens, 1.5e-13)
    text = table({"one": found, "two": collapsed})
    assert "encoder-decoder attention" in text and "one" in text and "two" in text
    (shares,) = [line.split() for line in text.splitlines() if "encoder output" in line]
    assert 0 < float(shares[-2]) < 1 and shares[-1] == "1.5e-13"


def test_any_number_of_tokens_is_summarised() -> None:
    many = torch.zeros(1, 2**24 + 1)
    many[0, : 2**23] = 1
    (row,) = statistics_rows(
        "m", AttentionStatistics({"entropy": {("E", 1): many}}, {"E": many.numel()})
    )
    assert (row["q25"], row["q50"], row["q75"]) == (0, 0, 1)
    assert row["mean"] == pytest.approx(0.5, abs=1e-3)


def test_analyze_command_compares_models(
    data_bin: Path, tmp_path: Path, checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """fairseq's own transformer beside a RealFormer of another depth."""
    output = tmp_path / "report"
    command = [
        "analyze", data_bin, "--path",
        checkpoint("--arch", "transformer_tiny", "--encoder-layers", "1"), checkpoint(*REALFORMER),
        "--label", "stock", "real", "--num-tokens", 60, "--output", output, "--cpu",
    ]  # fmt: skip
    assert main(list(map(str, command))) == 0
    said = capsys.readouterr().out
    assert "stock" in said and "divergence" in said
    names = {path.name for path in output.iterdir()}
    assert names == {
        "attention.json", "heads.csv", "entropy-heads.png", "divergence-heads.png",
        "entropy-encoder-self-attention.png", "entropy-decoder-self-attention.png",
        "entropy-encoder-decoder-attention.png", "divergence-encoder-self-attention.png",
        "divergence-decoder-self-attention.png", "divergence-encoder-decoder-attention.png",
    }  # fmt: skip
    with (output / "heads.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    content = json.loads((output / "attention.json").read_text())
    assert len(rows) == len(content["heads"]) and {row["model"] for row in rows} == {
        "stock",
        "real",
    }
    path = data_bin / "dict.de.txt"
    command = ["analyze", str(data_bin), "--path", str(path), "--output", str(output)]
    assert main(command) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("admin-nmt analyze: error: ") and str(path) in line
    assert main([*command[:3], str(checkpoint("--arch", "lstm")), *command[4:]]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "only admin_transformer* and transformer* can have their attention analysed" in line
