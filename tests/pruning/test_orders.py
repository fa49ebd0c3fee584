"""Measured orders are kept under names that do not change, and nothing is measured twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.modules.head_names import all_heads, parse_heads
from admin_nmt.pruning import orders
from admin_nmt.pruning.measuring import MeasuringOptions
from admin_nmt.pruning.records import Measurement


def test_orders_are_measured_once_for_each_set_of_masked_heads(
    loaded: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = loaded(), []

    def measure_by(options: MeasuringOptions, measured: Any) -> Measurement:
        calls.append(options)
        scores = {k: [[float(h) for h in range(n)] for n in v] for k, v in measured.layout.items()}
        return Measurement(measured.path, measured.fingerprint, measured.layout, scores)

    monkeypatch.setattr(orders, "measure_by", measure_by)
    options = MeasuringOptions(max_batches=2)
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
