"""Curves and settings out of fairseq's log, in each of its formats.

`--log-format json`, `simple` and `tqdm` are read, from a file of `--log-file`, of the terminal's output
or of `fairseq-hydra-train`, written by this package's runs or by stock fairseq.
"""

import ast
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from admin_nmt.errors import UserError

#: `epoch 001:     10 / 60 loss=7.441, ppl=125.9`, within an epoch.
_WITHIN = re.compile(r"epoch \d+:\s+\d+ / \d+ (\w+=.*)")
#: `epoch 001 | valid on 'valid' subset | loss 6.97 | ppl 125.1`, after an epoch or a validation.
_AFTER = re.compile(r"epoch \d+ \| (?:valid on '([^']+)' subset \| )?(\w+ [^|]*\|.*)")
#: The line with all settings, behind what fairseq's or Hydra's logging puts before it: a dictionary of
#: groups, or one Namespace (fairseq before 0.10).
_SETTINGS = re.compile(
    r"^(?:.* \| INFO \| [\w.]+ \| |\[[^]]*\]\[[\w.]+\]\[INFO\] - )?((?:\{'_name'|Namespace\().*)$"
)

#: fairseq's `wall` of whole epochs and within them.
_CLOCKS = ("train_wall", "wall")


@dataclass(frozen=True)
class Curve:
    """One quantity over updates, in order; of a run that was resumed without what it did again."""

    updates: list[int]
    values: list[float]


@dataclass(frozen=True)
class TrainingLog:
    """What one log holds.

    Attributes:
        curves: name -> curve: `loss`, `ppl`, ... within epochs; `train_loss`, ... of whole epochs;
            `valid_loss`, ... of validations, by the subset's name. Perplexities and losses are per
            token, losses in bits; `wall` in seconds, with that of the program's earlier starts where
            the log shows these by their settings. Values that are not finite are kept.
        settings: option -> value of the last start in the log; empty if it does not show them.
        subsets: names of the validation sets, in the order in which they appear.
    """

    curves: dict[str, Curve]
    settings: dict[str, Any]
    subsets: Sequence[str] = ()


def _json_record(line: str) -> tuple[str, Mapping[str, Any]] | None:
    """Prefix of the names, and names with their prefix -> values."""
    found = re.search(r"\{\".*\}", line)
    if not found:
        return None
    try:
        record = json.loads(found[0])
    except ValueError:
        return None
    keys = [key for key in record if key.endswith("num_updates")]
    if not keys:
        return None
    # The progress within epochs repeats the number of updates; it is not a quantity to plot.
    values = {key: value for key, value in record.items() if key not in ("epoch", "update")}
    return keys[0].removesuffix("num_updates"), values


def _plain_record(line: str) -> tuple[str, Mapping[str, Any]] | None:
    """The same of the formats `simple` and `tqdm`."""
    within, after = _WITHIN.search(line), _AFTER.search(line)
    if within:
        pairs = [part.partition("=")[::2] for part in within[1].split(", ")]
        return "", {name.strip(): value for name, value in pairs}
    if after:
        prefix = f"{after[1] or 'train'}_"
        pairs = [part.strip().partition(" ")[::2] for part in after[2].split("|")]
        return prefix, {prefix + name: value for name, value in pairs}
    return None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def parse_log(lines: Iterable[str]) -> TrainingLog:
    """Curves and settings of a log's lines; other lines are passed over.

    Updates only fall where a run was resumed from a checkpoint: what was logged beyond that is of a run
    that died, whose values and clock have nothing to do with what follows. fairseq's clock, `wall`, begins
    at 0 with each start of the program, which shows its settings then.
    """
    points: dict[str, dict[int, float]] = {}
    settings: dict[str, Any] = {}
    prefixes: dict[str, None] = {}
    last = earlier = 0.0
    started = False
    for line in lines:
        shown = _SETTINGS.match(line.rstrip("\n"))
        if shown:
            started = True
            settings = parse_settings(shown[1]) or settings
            continue
        found = _json_record(line) or _plain_record(line)
        if not found:
            continue
        prefix, record = found
        update = _number(record.get(f"{prefix}num_updates"))
        if update is None or not math.isfinite(update):
            continue
        if update < last:
            for values in points.values():
                for later in [at for at in values if at > update]:
                    del values[later]
        if started:
            earlier, started = _clock_before(points, update), False
        last = update
        prefixes[prefix] = None
        for name, value in record.items():
            # Within an epoch there is a `train_wall`, which is not the `wall` of a whole one.
            foreign = not name.startswith(prefix) if prefix else name.startswith("train_")
            if foreign:
                continue
            number = _number(value)
            if number is not None and not name.endswith("num_updates"):
                number += earlier if name in _CLOCKS else 0.0
                points.setdefault(name, {})[int(update)] = number
    curves = {
        name: Curve(sorted(values), [values[update] for update in sorted(values)])
        for name, values in points.items()
        if values
    }
    subsets = [prefix.removesuffix("_") for prefix in prefixes if prefix not in ("", "train_")]
    return TrainingLog(curves, settings, subsets)


def _clock_before(points: Mapping[str, Mapping[int, float]], update: float) -> float:
    """The latest value of the clock, in seconds, that is of fewer updates; 0 if there is none."""
    values = [item for name in _CLOCKS for item in points.get(name, {}).items() if item[0] < update]
    return max(values, default=(0, 0.0))[1]


def parse_settings(text: str) -> dict[str, Any]:
    """Option -> value of the line in which fairseq shows its settings; empty if it is cut off.

    The text is Python, but only read: calls such as `Namespace(...)` become dictionaries, what is
    neither number, text nor collection becomes its text.
    """
    try:
        content = _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return flat_settings(content) if isinstance(content, dict) else {}


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """fairseq's groups of settings as one table: `task`, `criterion`, ... name what was chosen, `arch`
    the architecture; an option that several groups repeat is taken from the first."""
    flat: dict[str, Any] = {}
    for group, content in config.items():
        if not isinstance(content, Mapping):
            if group != "_name":
                flat.setdefault(group, content)
            continue
        if content.get("_name") is not None:
            flat.setdefault("arch" if group == "model" else group, content["_name"])
        for name, value in content.items():
            if not name.startswith("_"):
                flat.setdefault(name, value)
    return flat


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple() | ast.Set():
            return [_value(item) for item in node.elts]
        case ast.Dict():
            return {
                _value(key): _value(value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
        case ast.Call(keywords=keywords) if keywords and not node.args:
            return {word.arg: _value(word.value) for word in keywords if word.arg}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
    return ast.unparse(node)


def read_log(path: str | os.PathLike[str]) -> TrainingLog:
    """All curves of a log file and the settings it shows.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as lines:
            return parse_log(lines)
    except OSError as error:
        raise UserError(f"cannot read log {path}: {error.strerror}") from error


def read_curve(path: str | os.PathLike[str], name: str) -> Curve:
    """The values logged as `name` together with their update numbers.

    Args:
        path: log of `fairseq-train`.
        name: as in `TrainingLog.curves`.

    Raises:
        UserError: the file cannot be read or holds no such value.
    """
    curves = read_log(path).curves
    if name not in curves:
        raise UserError(f"log {path} holds no value '{name}' of fairseq-train's progress")
    return curves[name]


def minutes_at(curves: Mapping[str, Curve], updates: Iterable[int]) -> list[float] | None:
    """Minutes since the start of the training at each update, interpolated between the log's lines.

    Taken from fairseq's `wall`, which includes validation and saving. Where that clock falls, a restart
    that the log does not show by its settings, its time is added to that of the earlier part. None if
    the log has no `wall`.
    """
    seconds: dict[int, float] = {}
    for name in _CLOCKS:
        curve = curves.get(name, Curve([], []))
        seconds |= dict(zip(curve.updates, curve.values, strict=True))
    if not seconds:
        return None
    places, clock = [0], [0.0]
    before = offset = 0.0
    for update in sorted(seconds):
        if seconds[update] < before:
            offset += before
        before = seconds[update]
        places.append(update)
        clock.append(offset + before)
    return (np.interp(list(updates), places, clock) / 60).tolist()
