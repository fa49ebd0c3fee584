"""Stage `export`: a checkpoint becomes a CTranslate2 folder in float16 and translates on the GPU."""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from admin_nmt.data.text_pipeline import FILE_NAME as PREPARATION
from admin_nmt.json_files import read_json
from gpu_check.data import data_folder
from gpu_check.decode import checkpoint
from gpu_check.stage import Context, SkippedError
from trainings import BIN
from trainings import run as run_program


def translated(context: Context, data: Path, folder: Path) -> dict[str, Any]:
    """Translate the raw test set; sentences a second with tokenisation and BPE, and BLEU."""
    from sacrebleu.metrics import BLEU

    from admin_nmt.evaluation.text import read_lines
    from admin_nmt.export import load_translator

    about = read_json(data / PREPARATION)
    raw = data / "raw"
    source, target = (read_lines(raw / f"test.{about[f'{s}_lang']}") for s in ("source", "target"))
    translator = load_translator(folder, device=context.device)
    translator.translate(source[:32])  # libraries load their kernels
    start = time.monotonic()
    found = translator.translate(source)
    seconds = time.monotonic() - start
    return {
        "sentences/s": len(source) / seconds,
        "BLEU": round(BLEU().corpus_score(found, [target]).score, 2),
    }


def run(context: Context) -> None:
    """Table `CTranslate2`; the export itself compares it with the checkpoint.

    Raises:
        SkippedError: CTranslate2 is missing, or the data do not say how text is split.
    """
    if find_spec("ctranslate2") is None:
        raise SkippedError("ctranslate2 is not installed (pip install ctranslate2)")
    data = data_folder(context)
    if not (data / "raw").is_dir():
        raise SkippedError(f"{data} was not made by 'admin-nmt prepare': no raw test text")
    path, _ = checkpoint(context, data)
    quantization = "float16" if context.device == "cuda" else "float32"
    folder = context.output / "exported"
    command = [BIN / "admin-nmt", "export", path, data, "--output", folder, "--force"]
    run_program([*command, "--quantization", quantization], context.output / "export-command.log")
    checked = read_json(folder / "export.json")["verification"]
    context.report.row(
        "CTranslate2", quantization=quantization, compared=checked["num_sentences"],
        identical=checked["num_identical"], difference=checked["largest_score_difference"],
        **translated(context, data, folder),
    )  # fmt: skip
