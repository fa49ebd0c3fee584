"""What studies ask of data, translations and checkpoints: texts, scores, significance, size."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from admin_nmt.data.text_pipeline import FILE_NAME as PREPARATION
from admin_nmt.errors import UserError
from admin_nmt.evaluation.preparation import read_preparation
from admin_nmt.evaluation.scoring import detokenized_scores
from admin_nmt.evaluation.significance import compare_systems
from admin_nmt.evaluation.text import read_lines
from admin_nmt.files import sha256
from admin_nmt.json_files import read_json


def raw_texts(data: Path) -> tuple[Path, Path]:
    """The test set before preparation: source, target.

    Raises:
        UserError: the folder was not made by `admin-nmt prepare`, or has no test set.
    """
    path = data / PREPARATION
    if not path.exists():
        raise UserError(f"{data}: no {PREPARATION}; give a data-bin of admin-nmt prepare")
    raw = read_preparation(data).raw.get("test", {})
    languages = [read_json(path).get(f"{side}_lang") for side in ("source", "target")]
    if not set(languages) <= raw.keys():
        raise UserError(f"{path} names no raw text of a test set: prepare the data with one")
    source, target = (raw[language] for language in languages)
    return source, target


def fingerprint(data: Path) -> str:
    """SHA-256 of the dictionaries and, where there is one, of the raw test set: a result says with it
    which data it is of.

    Raises:
        UserError: the folder has no dictionaries.
    """
    paths = sorted(data.glob("dict.*.txt"))
    if not paths:
        raise UserError(f"{data}: no dict.*.txt; give a data-bin of admin-nmt prepare")
    raw = read_preparation(data).raw.get("test", {})
    paths += [raw[language] for language in sorted(raw) if raw[language].exists()]
    return _digest(paths)


def training_fingerprint(data: Path) -> str:
    """SHA-256 of the binarised training and validation sets."""
    paths = (*data.glob("train*.*"), *data.glob("valid*.*"))
    return _digest(path for path in sorted(paths) if path.suffix in (".bin", ".idx"))


def _digest(paths: Iterable[Path]) -> str:
    """SHA-256 of names and contents of files."""
    lines = [f"{path.name} {sha256(path)}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def bleu_and_chrf(text: Path, reference: Sequence[str]) -> dict[str, float]:
    """`BLEU` and `chrF2` of a file of translations, rounded."""
    found = {score.name: score.score for score in detokenized_scores(read_lines(text), reference)}
    return {name: round(found[name], 2) for name in ("BLEU", "chrF2")}


def p_value(base: Path, other: Path, reference: Sequence[str]) -> float | None:
    """p of the difference in BLEU of two files of translations, by approximate randomisation."""
    texts = {"base": read_lines(base), "other": read_lines(other)}
    return compare_systems(texts, reference, metrics=["bleu"]).results[1].p_randomisation


def num_parameters(checkpoint: Path, data: Path) -> int:
    """Parameters of the model; the file of a 16-bit training has shared ones several times."""
    from fairseq import checkpoint_utils

    import admin_nmt  # noqa: F401

    models, *_ = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data)}
    )
    model: Any = models[0]
    return sum(parameter.numel() for parameter in model.parameters())


def num_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
