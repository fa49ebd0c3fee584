"""Measured orders are kept under names that do not change, and nothing is measured twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.modules.head_names import all_heads, parse_heads
from admin_nmt.pruning import orders
from admin_nmt.pruning.measuring import MeasuringOptions
from admin_nmt.pruning.records import Measurement


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[MeasuringOptions]:
    """How importance was measured, call by call; a head counts by its number."""
    made: list[MeasuringOptions] = []

    def measure(options: MeasuringOptions, measured: Any) -> Measurement:
        made.append(options)
        scores = {k: [[float(h) for h in range(n)] for n in v] for k, v in measured.layout.items()}
        return Measurement(measured.path, measured.fingerprint, measured.layout, scores)

    monkeypatch.setattr(orders, "measure", measure)
    return made


def test_orders_are_measured_once_for_each_set_of_masked_heads(
    loaded: Callable[..., Any], tmp_path: Path, calls: list[MeasuringOptions]
) -> None:
    model, options = loaded(), MeasuringOptions(max_batches=2)
    kept = orders.MeasuredOrders(model, "/data", options, tmp_path)
    first = kept.order()
    assert set(first) == set(all_heads(model.layout)) and first[0].head == 1
    again = orders.MeasuredOrders(model, "/data", options, tmp_path)
    assert again.order() == first and calls == [options]
    again.order(parse_heads("E:1:2"))
    assert calls == [options] * 2 and len(list(kept.folder.iterdir())) == 2


def test_results_of_earlier_versions_are_found(loaded: Callable[..., Any], tmp_path: Path) -> None:
    kept = orders.MeasuredOrders(loaded(), "/data", MeasuringOptions(seed=3), tmp_path)
    assert kept.path(parse_heads("E:2:1,A:1:2")) == (
        tmp_path / "importance" / kept.loaded.fingerprint[:16] / "be8a249a977618d138ad.json"
    )


@pytest.mark.parametrize("side", ["de", "en"])
def test_another_text_of_that_name_is_measured_again(
    loaded: Callable[..., Any], tmp_path: Path, calls: list[MeasuringOptions], side: str
) -> None:
    for language in ("de", "en"):
        (tmp_path / f"train.de-en.{language}.bin").write_bytes(b"one")

    def measure() -> Path:
        kept = orders.MeasuredOrders(loaded(), tmp_path, MeasuringOptions(), tmp_path / "out")
        kept.order()
        return kept.path()

    first = measure()
    assert measure() == first and len(calls) == 1
    (tmp_path / f"train.de-en.{side}.bin").write_bytes(b"two")
    second = measure()
    assert second != first and len(calls) == 2


def test_orders_of_earlier_versions_are_taken_whatever_the_text(
    loaded: Callable[..., Any], tmp_path: Path, calls: list[MeasuringOptions]
) -> None:
    options = MeasuringOptions()
    earlier = orders.MeasuredOrders(loaded(), tmp_path, options, tmp_path / "out")
    earlier.order()  # without binarised text the name is that of earlier versions
    (tmp_path / "train.de-en.de.bin").write_bytes(b"one")
    now = orders.MeasuredOrders(loaded(), tmp_path, options, tmp_path / "out")
    assert now.order() == earlier.order() and len(calls) == 1
