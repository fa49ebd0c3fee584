"""A translator from a path: an exported folder or a fairseq checkpoint."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import joblib

from admin_nmt.data.text_pipeline import TextPipeline
from admin_nmt.errors import UsageError, UserError, require_at_least_one
from admin_nmt.export.backend import Backend
from admin_nmt.export.bundle import read_manifest
from admin_nmt.export.ctranslate2_backend import CTranslate2Backend
from admin_nmt.export.text import TextOptions, data_folder, load_text
from admin_nmt.export.translator import Translator

if TYPE_CHECKING:  # exported folders need no torch
    from admin_nmt.checkpoints.checkpoint import Checkpoint

DEVICES = ("auto", "cpu", "cuda")


def load_translator(
    path: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    device: str = "auto",
    options: TextOptions | None = None,
) -> Translator:
    """Load a model for translating raw text.

    Args:
        path: a folder made by `admin-nmt export` (its files are checked against their checksums),
            or a fairseq checkpoint of an encoder-decoder model.
        data: for a checkpoint, the folder it was trained on; default: where it says that was.
        threads: cores to use; default: all that this process may use.
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.
        options: for a checkpoint, what `data` does not say about the text.

    Raises:
        UserError: no such model, an altered folder, a vocabulary that does not fit, settings that
            are missing.
        UsageError: an option that makes no sense here.
    """
    path, threads = Path(path), _usable_threads(threads, device)
    if path.is_dir():
        if data is not None or (options or TextOptions()) != TextOptions():
            raise UsageError(
                f"{path} is an exported folder, which has all settings itself: --data and the "
                "options that describe text are for checkpoints"
            )
        return _exported(path, threads, device)
    return _checkpoint(path, data, threads, device, options)


def load_backend(
    path: str | os.PathLike[str],
    data: Path,
    subset: str,
    *,
    threads: int | None = None,
    device: str = "auto",
) -> tuple[Backend, tuple[str, str]]:
    """The engine of a model for text that is binarised, and the languages it translates from and to.

    Args:
        path: as for `load_translator`.
        data: for a checkpoint, the folder it was trained on; it need not say how raw text becomes subwords.
        subset: of `data`, whose names tell the languages where a checkpoint does not.
        threads: cores to use; default: all that this process may use.
        device: `cpu`, `cuda` or `auto`.

    Raises:
        UserError: no such model or data, an altered folder, a vocabulary that does not fit.
        UsageError: an option that makes no sense here.
    """
    path, threads = Path(path), _usable_threads(threads, device)
    if path.is_dir():
        translator = _exported(path, threads, device)
        assert translator.languages is not None  # an exported folder knows them
        return translator.backend, translator.languages
    from admin_nmt.checkpoints.direction import find_direction
    from admin_nmt.export.fairseq_backend import FairseqBackend

    checkpoint = _opened(path)
    known = checkpoint.languages
    languages = find_direction(data, subset, *known, known, option=None)
    return FairseqBackend(checkpoint, data, *languages, threads, device), languages


def _usable_threads(threads: int | None, device: str) -> int:
    """Cores to use; refuses options that make no sense."""
    threads = joblib.cpu_count() if threads is None else threads
    require_at_least_one("--threads", threads)
    if device not in DEVICES:
        raise UsageError(f"--device {device}: choose from {', '.join(DEVICES)}")
    return threads


def _exported(path: Path, threads: int, device: str) -> Translator:
    content = read_manifest(path)
    text = TextPipeline.load(path)
    limits = content["max_source"], content["max_target"]
    full_context = bool(content.get("alignment", {}).get("full_context"))  # none in older folders
    backend = CTranslate2Backend(path / "model", *limits, threads, device, full_context)
    languages = content["source_lang"], content["target_lang"]
    return Translator(backend, text, languages=languages)


def _opened(path: Path) -> "Checkpoint":
    """A checkpoint of an architecture that fairseq knows."""
    from admin_nmt.checkpoints.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(path)
    if checkpoint.family is None:
        raise UserError(
            f"checkpoint {path} is of architecture {checkpoint.architecture or 'unknown'}, which is "
            "not registered here"
        )
    return checkpoint


def _checkpoint(
    path: Path,
    data: str | os.PathLike[str] | None,
    threads: int,
    device: str,
    options: TextOptions | None,
) -> Translator:
    from admin_nmt.export.fairseq_backend import FairseqBackend

    checkpoint = _opened(path)
    if data is None:
        data = checkpoint.data_folder
        if data is None or not data.is_dir():
            raise UserError(
                f"checkpoint {path} was trained on {data or 'an unknown folder'}, which is not here: "
                "give --data DATA"
            )
    text = load_text(data, checkpoint.languages, options)
    backend = FairseqBackend(
        checkpoint, data_folder(data), text.source_lang, text.target_lang, threads, device
    )
    return Translator(backend, text.pipeline, languages=(text.source_lang, text.target_lang))
