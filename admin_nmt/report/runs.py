"""What the report shows of one training run, found from its log, its folder or its result file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from admin_nmt.analysis.training_log import Curve, TrainingLog, read_log
from admin_nmt.errors import UsageError, UserError
from admin_nmt.evaluation.scoring import Score
from admin_nmt.json_files import read_json
from admin_nmt.report.model_state import HeadMap, OmegaProfile, omega_profile, read_models
from admin_nmt.report.translations import Evaluated, find_evaluations


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        label: its name on the page.
        origin: the log or result file that the curves are from.
        curves: as in `TrainingLog.curves`.
        settings: option -> value.
        evaluations: its scored translations.
        omegas: of its earliest and its latest checkpoint, as far as there are any.
        heads: maps of its attention heads.
        subsets: names of its validation sets.
    """

    label: str
    origin: Path
    curves: Mapping[str, Curve]
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Evaluated] = ()
    omegas: Sequence[OmegaProfile] = ()
    heads: Sequence[HeadMap] = ()
    subsets: Sequence[str] = ()


def read_runs(paths: Sequence[str], labels: Sequence[str] | None = None) -> list[Run]:
    """The runs at `paths`, each a log, a run's folder, or a result file of `studies`.

    Args:
        paths: files and folders.
        labels: a name for each; default: the names of their folders or files, the paths where these
            are not distinct.

    Raises:
        UsageError: names and paths do not match.
        UserError: nothing to show at a path.
    """
    if labels is not None and len(labels) != len(paths):
        raise UsageError(f"--label: {len(labels)} names for {len(paths)} runs")
    names = list(labels) if labels is not None else [default_label(path) for path in paths]
    if labels is None and len(set(names)) < len(names):
        names = list(paths)
    if len(set(names)) < len(names):
        raise UsageError("two runs have the same name: give every run a --label of its own")
    return [read_run(path, name) for path, name in zip(paths, names, strict=True)]


def default_label(path: str | os.PathLike[str]) -> str:
    """The folder's name for `NAME/train.log` and `NAME/checkpoints`, else that of the file itself."""
    place = _as_named(Path(path))
    if place.name in ("train.log", "hydra_train.log", "checkpoints"):
        place = place.parent
    return place.name if place.is_dir() else place.stem


def read_run(path: str | os.PathLike[str], label: str) -> Run:
    """One run.

    Raises:
        UserError: the file or folder is missing, or has no curves.
    """
    place = Path(path)
    if not place.exists():
        raise UserError(f"run {path} does not exist: give a training log or a run's folder")
    if place.is_dir():
        origin, log = find_log(home_of(place))
    else:
        origin, log = place, read_log(place)
        # A log of `--log-file train.json` is a line of settings and JSON objects: not one of them.
        if place.suffix == ".json" and (not log.curves or _is_json(place)):
            return _of_result(place, label)
    if not log.curves:
        raise UserError(f"{origin} holds no progress of fairseq-train: give the log of a training")
    folders = result_folders(place if place.is_dir() else save_dir_of(origin, log))
    omegas, heads = read_models(folders)
    evaluations = find_evaluations(folders)
    return Run(
        label, origin, log.curves, log.settings, evaluations, omegas, heads, log.subsets
    )  # fmt: skip


def save_dir_of(path: Path, log: TrainingLog) -> Path | None:
    """`--save-dir` as a log shows it, from the log's folder or from here; None if it is not there.

    Beside the log first: `checkpoints`, fairseq's default, may be there in any folder.
    """
    name = log.settings.get("save_dir")
    if not isinstance(name, str):
        return None
    return next((place for place in (path.parent / name, Path(name)) if place.is_dir()), None)


def result_folders(folder: Path | None) -> list[Path]:
    """Where the result files of a run may be: its folder, its checkpoints', and those in them."""
    if folder is None:
        return []
    home = home_of(folder)
    tops = [home, *([home / "checkpoints"] if (home / "checkpoints").is_dir() else [])]
    below = [path for top in tops for path in sorted(top.iterdir()) if path.is_dir()]
    return list(dict.fromkeys([*tops, *below]))


def home_of(folder: Path) -> Path:
    """The run's folder when `folder` is its folder of checkpoints, which may be a link to another disk."""
    named = _as_named(folder)
    return named.parent if named.name == "checkpoints" else folder


def _as_named(path: Path) -> Path:
    """In full, under the name that was given: a link at its end is not followed."""
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def find_log(folder: Path) -> tuple[Path, TrainingLog]:
    """The training log in a run's folder: `train.log`, fairseq-hydra-train's, or the only one.

    Raises:
        UserError: none, or several.
    """
    for name in ("train.log", "hydra_train.log"):
        if (folder / name).is_file():
            return folder / name, read_log(folder / name)
    logs = {path: read_log(path) for path in sorted(folder.glob("*.log"))}
    found = {path: log for path, log in logs.items() if log.curves}
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder} holds several training logs ({names}): give one of them")
    raise UserError(
        f"{folder} holds no training log (train.log, hydra_train.log or another *.log): give the file "
        "that fairseq-train's output or --log-file went to"
    )


def _is_json(path: Path) -> bool:
    """Whether a file as a whole is JSON, as a result file is."""
    try:
        read_json(path)
    except UserError:
        return False
    return True


def _of_result(path: Path, label: str) -> Run:
    """A run out of a result file of `studies`.

    Raises:
        UserError: it is another file, or its entries have another form.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a result file of a study")
    try:
        return _of_entries(path, label, content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _of_entries(path: Path, label: str, content: Mapping[str, Any]) -> Run:
    """A run out of those of a result file: curves are entries with `updates` and `values`."""
    curves: dict[str, Curve] = {}
    settings: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict) and set(value) == {"updates", "values"}:
            # Theirs are named after the log: what is within epochs there is called train_.
            curves[name] = Curve(
                list(map(int, value["updates"])), list(map(float, value["values"]))
            )
        elif not isinstance(value, dict | list):
            settings[name] = value
    if not curves:
        raise UserError(f"{path} holds no curves: give a training log or a result file of a study")
    scores = [
        Score(measure, float(found["score"]), str(found["signature"]))
        for measure, found in content.get("test", {}).items()
    ]
    profiles = [
        omega_profile({name: float(mean) for name, (mean, _) in omegas.items()}, int(update))
        for update, omegas in content.get("omegas", {}).items()
    ]
    return Run(
        label, path, curves, settings,
        [Evaluated("test", scores, None)] if scores else [],
        [profile for profile in profiles if profile],
        subsets=["valid"],
    )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One setting of all runs.

    Attributes:
        name: of the option.
        values: its value in each run as text, None where the run does not show it.
        differs: for each run whether its value is another than the first run's.
    """

    name: str
    values: list[str | None]
    differs: list[bool]


def compare_settings(runs: Sequence[Run]) -> tuple[list[Row], list[Row]]:
    """Settings that differ between runs, and those that all have in common; by name."""
    different: list[Row] = []
    common: list[Row] = []
    for name in sorted({name for run in runs for name in run.settings}):
        values = [str(run.settings[name]) if name in run.settings else None for run in runs]
        row = Row(name, values, [value != values[0] for value in values])
        (different if any(row.differs) else common).append(row)
    return different, common
