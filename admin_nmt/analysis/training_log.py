"""Reading the curves of a run out of fairseq's log (`--log-format json`, to a file or a terminal)."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from admin_nmt.errors import UserError


@dataclass(frozen=True)
class Curve:
    """One quantity over updates, in order; a resumed run's later lines replace earlier ones."""

    updates: list[int]
    values: list[float]


def _records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        found = re.search(r"\{.*\}", line)
        if not found:
            continue
        try:
            record = json.loads(found[0])
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def read_curve(path: str | os.PathLike[str], name: str) -> Curve:
    """The values logged as `name` together with their update numbers.

    Args:
        path: log of `fairseq-train --log-format json`.
        name: for example `train_nll_loss`, `valid_ppl` (at ends of epochs and validations), or
            `loss`, `ppl` (inside epochs). Values that are not numbers are kept as nan or inf.

    Raises:
        UserError: the file cannot be read or holds no such value.
    """
    updates_name = name.split("_")[0] + "_num_updates" if "_" in name else "num_updates"
    if not name.startswith(("train_", "valid_", "test_")):
        updates_name = "num_updates"
    points: dict[int, float] = {}
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as lines:
            for record in _records(lines):
                if name in record and updates_name in record:
                    points[int(record[updates_name])] = float(record[name])
    except OSError as error:
        raise UserError(f"cannot read log {path}: {error.strerror}") from error
    if not points:
        raise UserError(f"log {path} holds no value '{name}'; train with --log-format json")
    updates = sorted(points)
    return Curve(updates, [points[update] for update in updates])
