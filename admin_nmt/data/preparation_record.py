"""What a folder of prepared text says of itself: the settings that made it, and `preparation.json`."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from admin_nmt.data.corpora import Corpus
from admin_nmt.data.state import State
from admin_nmt.data.subwords import Subwords
from admin_nmt.files import sha256
from admin_nmt.installed import versions
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

#: Their versions may change the result.
_LIBRARIES = ("admin-nmt", "sacremoses", "subword-nmt")


def settings_of(corpus: Corpus) -> dict[str, Any]:
    """What determines the result, flat, as JSON would give it back."""
    content = asdict(corpus)
    del content["archives"]  # their checksums are compared with those of the inputs
    for key in ("refuse_empty", "published_lines"):  # they warn, stop the work, or change nothing
        del content[key]
    if not corpus.substitute:
        del content["substitute"]  # folders that were made before there was a choice have none
    cleaning = content.pop("cleaning")
    content |= {f"clean_{key}": value for key, value in cleaning.items()}
    pieces = content.pop("sentencepiece")
    if corpus.subword == "sentencepiece":
        content |= {f"sentencepiece_{key}": value for key, value in pieces.items()}
    else:
        del content["subword"]  # folders that were made before there was a choice have none
    settings: dict[str, Any] = json.loads(json.dumps(content))
    return settings


def describe(
    corpus: Corpus, sets: Sequence[str], subwords: Subwords, state: State, folder: Path
) -> dict[str, Any]:
    """The content of `preparation.json`.

    Args:
        corpus: that was prepared.
        sets: of `train`, `valid` and `test` those that it has.
        subwords: learned.
        state: of the steps, which tells how many lines each one kept.
        folder: the binarised text, complete but for this file; file names are relative to it.
    """
    source, target = corpus.languages
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        "format": 1,
        "corpus": corpus.name,
        "variant": corpus.variant,
        "source_lang": source,
        "target_lang": target,
        "tokenizer_langs": dict(zip(corpus.languages, corpus.tokenizer_langs, strict=True)),
        "normalize": "train" in corpus.normalize,
        "normalized_sets": list(corpus.normalize),
        "substitute": corpus.substitute,
        "aggressive_hyphens": corpus.aggressive_hyphens,
        "lowercase": corpus.lowercase,
        "cleaning": asdict(corpus.cleaning),
        "valid_every": corpus.valid_every,
        **_describe_subwords(corpus, subwords, state),
        "joined_dictionary": corpus.joined_dictionary,
        "raw": {
            name: {language: f"raw/{name}.{language}" for language in corpus.languages}
            for name in sets
            if name != "train"
        },
        "lines_read": state.info("tokenize")["read"],
        "lines": state.info("apply_bpe")["lines"],
        "inputs": state.inputs,
        "outputs": {
            str(path.relative_to(folder)): sha256(path)
            for path in progress(logger, "checksums", "files", files, leave=False)
        },
        "versions": versions(_LIBRARIES + ("sentencepiece",) * (not subwords.moses)),
    }


def _describe_subwords(corpus: Corpus, subwords: Subwords, state: State) -> dict[str, Any]:
    """The entry that names the file of subwords, and how it was learned."""
    wanted, info = corpus.bpe_tokens, state.info("learn_bpe")
    ((name, settings),) = subwords.settings(subwords.file_name).items()
    if subwords.moses:
        settings |= {"merges_wanted": wanted, "merges": info["merges"]}
    else:
        settings |= asdict(corpus.sentencepiece)
        settings |= {"pieces_wanted": wanted, "pieces": info["pieces"]}
    return {name: settings}
