"""What studies ask of translations and of checkpoints: scores, significance, size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from admin_nmt.data.text_pipeline import FILE_NAME as PREPARATION
from admin_nmt.errors import UserError
from admin_nmt.evaluation.scoring import detokenized_scores
from admin_nmt.evaluation.significance import compare_systems
from admin_nmt.evaluation.text import read_lines
from admin_nmt.json_files import read_json


def raw_texts(data: Path) -> tuple[Path, Path]:
    """The test set before preparation: source, target.

    Raises:
        UserError: the folder was not made by `admin-nmt prepare`.
    """
    path = data / PREPARATION
    if not path.exists():
        raise UserError(f"{data}: no {PREPARATION}; give a data-bin of admin-nmt prepare")
    preparation = read_json(path)
    raw = preparation["raw"]["test"]
    source, target = (data / raw[preparation[f"{side}_lang"]] for side in ("source", "target"))
    return source, target


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
