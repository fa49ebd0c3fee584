"""COMET (Rei et al. 2020, "COMET: A Neural Framework for MT Evaluation"): a learned metric.

Its package (`unbabel-comet`, the extra `comet`) and a model have to be there already; nothing is
downloaded. A model is a folder with `hparams.yaml` and `checkpoints/model.ckpt`, as COMET's own
downloads make it; the tokeniser of its encoder has to lie in Hugging Face's cache, where they put it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from admin_nmt.errors import UserError
from admin_nmt.evaluation.scoring import Score
from admin_nmt.files import sha256
from admin_nmt.installed import installed, require_package

#: Sentences in a batch.
BATCH = 16


def require_comet(path: str | os.PathLike[str]) -> Path:
    """The checkpoint of a COMET model; found out before anything long is done.

    Args:
        path: the folder of the model, or its checkpoint.

    Raises:
        UserError: COMET is not installed, or there is no such model.
    """
    _import_comet()
    given = Path(path)
    checkpoint = given / "checkpoints" / "model.ckpt" if given.is_dir() else given
    for needed in (checkpoint, checkpoint.absolute().parents[1] / "hparams.yaml"):
        if not needed.is_file():
            raise UserError(
                f"--comet {path}: {needed} is missing; give the folder of a COMET model, which has "
                "hparams.yaml and checkpoints/model.ckpt"
            )
    return checkpoint


def comet_score(
    path: str | os.PathLike[str],
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    cpu: bool = False,
) -> Score:
    """COMET's score of a whole test set, times 100.

    COMET takes one reference; with several the score is the mean of those against each.

    Args:
        path: as in `require_comet`.
        sources: N sentences as they were before any preparation.
        hypotheses: N detokenised sentences.
        references: R references of N sentences each.
        cpu: do not use a GPU.

    Raises:
        UserError: as `require_comet`, or COMET cannot load the model.
    """
    import torch

    checkpoint = require_comet(path)
    model = _load(checkpoint)
    samples = [
        {"src": source, "mt": hypothesis, "ref": reference}
        for lines in references
        for source, hypothesis, reference in zip(sources, hypotheses, lines, strict=True)
    ]
    gpus = int(torch.cuda.is_available() and not cpu)
    # COMET's own bar, on stderr; in a log it would be one long line.
    bar = sys.stderr.isatty()
    found = model.predict(samples, batch_size=BATCH, gpus=gpus, progress_bar=bar)
    name = checkpoint.absolute().parents[1].name
    signature = (
        f"nrefs:{len(references)}|case:mixed|model:{name}|sha256:{sha256(checkpoint)[:12]}|"
        f"scale:100|version:{installed('unbabel-comet') or 'unknown'}"
    )
    return Score("COMET", 100 * float(found["system_score"]), signature)


def _load(checkpoint: Path) -> Any:
    try:
        return _import_comet().load_from_checkpoint(str(checkpoint), local_files_only=True)
    except Exception as error:  # whatever Lightning, transformers or the file itself raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"COMET cannot load {checkpoint}: {reason[:500]}") from error


def _import_comet() -> Any:
    """The module `comet`, kept from the network."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.setdefault(variable, "1")
    return require_package("comet", "unbabel-comet>=2.2.7")
