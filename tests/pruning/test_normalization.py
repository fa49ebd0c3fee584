"""What each `--normalize` leaves unchanged: the sizes that it takes out of the comparison."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_nmt.cli.main import main
from admin_nmt.modules.head_names import Head
from admin_nmt.pruning.records import Measurement, load_measurements

layers = st.lists(
    st.lists(st.integers(1, 1000).map(float), min_size=1, max_size=4), min_size=1, max_size=3
)
scores = st.fixed_dictionaries({"E": layers, "A": layers, "D": layers})


def order(content: dict[str, list[list[float]]], normalize: str) -> list[Head]:
    layout = {kind: tuple(map(len, found)) for kind, found in content.items()}
    return Measurement("x", "x", layout, content).order(normalize)


@settings(max_examples=50, deadline=None)
@given(scores, st.sampled_from("EAD"))
def test_sizes_of_layers_and_kinds_count_or_not(
    content: dict[str, list[list[float]]], kind: str
) -> None:
    # Powers of two scale a float exactly, so equal scores stay equal.
    larger = content | {kind: [[score * 1024 for score in layer] for layer in content[kind]]}
    one_layer = content | {kind: [[s * 1024 for s in content[kind][0]], *content[kind][1:]]}
    for normalize in ("layer", "kind"):
        assert order(larger, normalize) == order(content, normalize)
    assert order(one_layer, "layer") == order(content, "layer")
    # As measured, the larger kind goes last: its smallest score is above all others.
    assert {head.kind for head in order(larger, "none")[-sum(map(len, content[kind])) :]} == {kind}
    for normalize in ("kind", "none"):
        within = [head for head in order(content, normalize) if head.kind == kind]
        assert within == [head for head in order(content, "none") if head.kind == kind]


@pytest.mark.parametrize("normalize", ["layer", "kind", "none"])
def test_prune_takes_heads_in_the_order_asked_for(
    checkpoint: Any, data_bin: Path, tmp_path: Path, normalize: str
) -> None:
    path = checkpoint()
    data = [str(data_bin), "--path", str(path), "--cpu"]
    main(["importance", *data, "--max-batches", "1", "--output", str(tmp_path / "scores.json")])
    (measurement,) = load_measurements(tmp_path / "scores.json")
    main([
        "prune", *data, "--fraction", "0.5", "--importance", str(tmp_path / "scores.json"),
        "--normalize", normalize, "--output", str(tmp_path / "pruned.pt"),
        "--list", str(tmp_path / "removed.json"),
    ])  # fmt: skip
    removed = (tmp_path / "removed.json").read_text()
    heads = measurement.order(normalize)
    named = {head for head in heads if f'"{head}"' in removed}
    assert named == set(heads[: len(heads) // 2])
