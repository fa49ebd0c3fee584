"""The exported folder: everything needed to translate raw text with CTranslate2.

model/              converted model and its vocabularies
dict.LANG.txt       fairseq's dictionaries
codes               BPE codes, or sentencepiece.model
preparation.json    tokenisation settings
README.md           what it is and how to use it
export.json         where it is from, and SHA-256 of every file above
"""

import os
import shutil
from argparse import Namespace
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from admin_nmt.data.subwords import Subwords
from admin_nmt.data.text_pipeline import FILE_NAME as PREPARATION
from admin_nmt.errors import UserError
from admin_nmt.export.ctranslate2_backend import CTranslate2Backend, import_ctranslate2
from admin_nmt.export.search import Alignment
from admin_nmt.export.text import Text, TextOptions, data_folder, load_text
from admin_nmt.files import atomic_folder, atomic_write, sha256
from admin_nmt.installed import versions
from admin_nmt.json_files import read_document, write_document, write_json
from admin_nmt.outputs import require_new_folder

if TYPE_CHECKING:
    from admin_nmt.checkpoints.checkpoint import Checkpoint

MANIFEST = "export.json"
DOCUMENT, VERSION = "export", 1
#: What `--quantization` may be.
QUANTIZATIONS = (
    "float32",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
    "float16",
    "bfloat16",
)
_LIBRARIES = ("admin-nmt", "ctranslate2", "sacremoses", "subword-nmt", "torch")


def export_bundle(
    checkpoint: str | os.PathLike[str],
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quantization: str = "float32",
    options: TextOptions | None = None,
    force: bool = False,
    alignment: Alignment | None = None,
) -> dict[str, Any]:
    """Fold a checkpoint where needed, convert it, and write the exported folder.

    The folder is made under a temporary name, checked against the checkpoint on a few sentences
    and then renamed: it is whole or absent.

    Args:
        checkpoint: of `admin_transformer` or fairseq's own `transformer`.
        data: the folder it was trained on.
        output: the folder to make.
        quantization: one of `QUANTIZATIONS`; how weights are stored.
        options: what `data` does not say about the text (no `preparation.json`).
        force: replace an exported folder of that name.
        alignment: the attention from which `translate --alignments` will read; by default what was
            trained to align.

    Returns:
        the content of `export.json`.

    Raises:
        UserError: bad input, a model that CTranslate2 cannot run, an output that exists, or an
            exported model that does not compute what the checkpoint does.
    """
    from admin_nmt.checkpoints.checkpoint import Checkpoint
    from admin_nmt.checkpoints.direction import require_fitting_vocabulary
    from admin_nmt.export.conversion import convert, find_alignment, plain_model

    output = Path(output)
    require_new_folder(output, force, MANIFEST)
    import_ctranslate2()
    opened = Checkpoint.open(checkpoint)
    model, settings = plain_model(opened)
    alignment, full_context = find_alignment(opened, settings, alignment or Alignment())
    text = load_text(data, opened.languages, options)
    folder = data_folder(data)
    require_fitting_vocabulary(opened, folder, text.source_lang, text.target_lang)
    with atomic_folder(output) as made:
        convert(model, settings, folder, text, made / "model", quantization, alignment)
        write_text_files(text, folder, made)
        content = describe(opened, settings, text, quantization)
        content["alignment"] = asdict(alignment) | {"full_context": full_context}
        content["verification"] = _verify(opened, folder, text, made, content)
        readme = _readme(content, text.pipeline.subwords)
        write_manifest(made, MANIFEST, (DOCUMENT, VERSION), content, readme)
    return content


def write_text_files(text: Text, folder: Path, made: Path) -> None:
    """Dictionaries, subwords and tokenisation settings, into the folder `made`."""
    for language in (text.source_lang, text.target_lang):
        shutil.copyfile(folder / f"dict.{language}.txt", made / f"dict.{language}.txt")
    subwords = text.pipeline.subwords
    shutil.copyfile(subwords.path, made / subwords.file_name)
    write_json(made / PREPARATION, text.settings(subwords.file_name))


def describe(
    checkpoint: "Checkpoint", settings: Namespace, text: Text, quantization: str
) -> dict[str, Any]:
    """What an exported folder says about its origin."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source_lang": text.source_lang,
        "target_lang": text.target_lang,
        "quantization": quantization,
        "max_source": settings.max_source_positions - 1,
        "max_target": settings.max_target_positions - 1,
        "checkpoint": {
            "file": checkpoint.path.name,
            "sha256": sha256(checkpoint.path),
            "architecture": checkpoint.architecture,
            "num_updates": checkpoint.num_updates,
        },
        "model": {name: _json(value) for name, value in sorted(vars(settings).items())},
        "versions": versions(_LIBRARIES + ("sentencepiece",) * (not text.pipeline.subwords.moses)),
    }


def _json(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _verify(checkpoint: Any, folder: Path, text: Text, made: Path, content: dict) -> dict[str, Any]:
    from admin_nmt.export.fairseq_backend import FairseqBackend
    from admin_nmt.export.verification import compare_translations, sample_sentences

    sentences = sample_sentences(folder, text)
    limits = content["max_source"], content["max_target"]
    return compare_translations(
        FairseqBackend(checkpoint, folder, text.source_lang, text.target_lang, 1, "cpu"),
        CTranslate2Backend(made / "model", *limits, 1, "cpu"),
        [sentence[: limits[0]] for sentence in sentences],
        content["quantization"],
    )


def write_manifest(
    made: Path, name: str, document: tuple[str, int], content: dict[str, Any], readme: str
) -> None:
    """Write README.md and, last, what the folder says about itself, with the hashes of all files.

    Args:
        made: the folder.
        name: of the manifest.
        document: its kind and version, as for `write_document`.
        content: of the manifest; gets `files`.
        readme: content of README.md.
    """
    with atomic_write(made / "README.md") as stream:
        stream.write(readme)
    files = sorted(path for path in made.rglob("*") if path.is_file())
    content["files"] = {path.relative_to(made).as_posix(): sha256(path) for path in files}
    write_document(made / name, *document, content)


def _readme(content: dict[str, Any], subwords: Subwords) -> str:
    packages, preparation = (
        ("admin-nmt ctranslate2", f"BPE with `{subwords.file_name}` (subword-nmt)")
        if subwords.moses
        else ("admin-nmt ctranslate2 sentencepiece", f"`{subwords.file_name}` (SentencePiece)")
    )
    if subwords.moses:
        preparation = (
            f"Moses tokenisation with the settings in `preparation.json`, then {preparation}"
        )
    source, target = content["source_lang"], content["target_lang"]
    checkpoint = content["checkpoint"]
    return f"""# {source}-{target} translation model

Exported by admin-nmt {content["versions"]["admin-nmt"] or ""} for CTranslate2, weights in {content["quantization"]}, from
checkpoint `{checkpoint["file"]}` (architecture {checkpoint["architecture"]}, SHA-256 {checkpoint["sha256"]}).
`export.json` holds all settings, versions and the checksum of every file.

Raw text, one sentence a line, in and out:

```bash
admin-nmt translate . --input text.{source} --output text.{target}
```

```python
from admin_nmt.export import load_translator

print(load_translator(".").translate(["..."]))
```

Needed: `pip install {packages}`; no GPU. With CTranslate2 alone, `model/` translates
text in subwords: {preparation}.
"""


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check an exported folder: every file is there and unaltered.

    Raises:
        UserError: it is not an exported folder, or a file is missing or altered.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(f"{folder} is not an exported folder: it has no {MANIFEST}")
    content = read_document(path, DOCUMENT, VERSION, "admin-nmt export")
    try:
        limits = int(content["max_source"]), int(content["max_target"])
        str(content["source_lang"]), str(content["target_lang"])
        files = {str(name): str(digest) for name, digest in content["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is incomplete: {error}; export again") from error
    if min(limits) < 1 or not any(name.startswith("model/") for name in files):
        raise UserError(f"{path} is incomplete; export again")
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise UserError(f"exported folder {folder} is incomplete: {name} is missing")
        if sha256(folder / name) != digest:
            raise UserError(
                f"exported folder {folder} was altered: {name} does not have the checksum in {MANIFEST}"
            )
    return content
