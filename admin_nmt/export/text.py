"""The languages that a checkpoint translates, and the text processing around it: raw text to subwords and back."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from admin_nmt.data.subwords import SentencePiece, SubwordNmt, Subwords
from admin_nmt.data.text_pipeline import FILE_NAME, TextPipeline
from admin_nmt.data.tokenization import (
    LineTokenizer,
    require_known_language,
    tokenizer_languages,
)
from admin_nmt.errors import UsageError, UserError
from admin_nmt.json_files import read_json


@dataclass(frozen=True)
class TextOptions:
    """What a data folder without `preparation.json` does not say itself.

    Attributes:
        bpe_codes: file of BPE codes of subword-nmt.
        source_lang: language code; also chooses the direction where a folder serves two.
        target_lang: language code.
        normalize: the training text was normalised (punctuation, non-printing characters).
        aggressive_hyphens: it was tokenised with hyphens split off.
        lowercase: it was lower-cased.
        sentencepiece_model: model file of SentencePiece, in place of BPE codes; the text was raw.
        tokenizer_lang: `LANG=LANG`: the first was tokenised by the rules of the second.
    """

    bpe_codes: str | os.PathLike[str] | None = None
    source_lang: str | None = None
    target_lang: str | None = None
    normalize: bool = False
    aggressive_hyphens: bool = False
    lowercase: bool = False
    sentencepiece_model: str | os.PathLike[str] | None = None
    tokenizer_lang: Sequence[str] = ()


@dataclass(frozen=True)
class Text:
    """A direction of translation and its text pipeline."""

    source_lang: str
    target_lang: str
    pipeline: TextPipeline

    def settings(self, file_name: str) -> dict[str, Any]:
        """Content of a `preparation.json` that gives this pipeline.

        Args:
            file_name: of the subwords' file, relative to it.
        """
        source, target = asdict(self.pipeline.source), asdict(self.pipeline.target)
        languages = source.pop("language"), target.pop("language")
        del source["moses"]  # the kind of subwords says so
        substitutions = source.pop("substitute")
        return {
            "format": 1,
            "source_lang": self.source_lang,
            "target_lang": self.target_lang,
            "tokenizer_langs": dict(
                zip((self.source_lang, self.target_lang), languages, strict=True)
            ),
            **source,
            **({"substitute": {"train": substitutions}} if substitutions else {}),
            **self.pipeline.subwords.settings(file_name),
        }


def data_folder(data: str | os.PathLike[str]) -> Path:
    """The folder with dictionaries: `data`, or `data-bin` in the output of `admin-nmt prepare`.

    Raises:
        UserError: there is no such folder.
    """
    path = Path(data)
    if not path.is_dir():
        raise UserError(f"data folder not found: {data}")
    inner = path / "data-bin"
    return inner if (inner / FILE_NAME).is_file() and not (path / FILE_NAME).exists() else path


def load_text(
    data: str | os.PathLike[str],
    trained: tuple[str | None, str | None] = (None, None),
    options: TextOptions | None = None,
) -> Text:
    """The direction and the pipeline of a data folder.

    Args:
        data: folder made by `admin-nmt prepare`, or any binarised folder together with `options`.
        trained: (source, target) that the checkpoint was trained on, None where it does not say.
        options: what the folder does not say.

    Raises:
        UserError: settings are missing, or do not fit each other.
        UsageError: options that contradict the checkpoint or the folder.
    """
    options = options or TextOptions()
    for name, given, known in (
        ("--source-lang", options.source_lang, trained[0]),
        ("--target-lang", options.target_lang, trained[1]),
    ):
        if given and known and given != known:
            raise UsageError(f"{name} {given}: the checkpoint was trained with {known}")
    source = options.source_lang or trained[0]
    target = options.target_lang or trained[1]
    folder = data_folder(data)
    if (folder / FILE_NAME).is_file():
        return _prepared(folder, source, target, options)
    return _described(folder, source, target, options)


def _prepared(folder: Path, source: str | None, target: str | None, options: TextOptions) -> Text:
    """From `preparation.json`, in its direction or the reverse one."""
    for name, given in (
        ("--bpe-codes", options.bpe_codes),
        ("--sentencepiece-model", options.sentencepiece_model),
        ("--tokenizer-lang", " ".join(options.tokenizer_lang)),
    ):
        if given:
            raise UsageError(f"{name} {given}: {folder} has a {FILE_NAME} that says so itself")
    pipeline = TextPipeline.load(folder)
    for name in ("normalize", "aggressive_hyphens", "lowercase"):
        if getattr(options, name) and not getattr(pipeline.source, name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: {folder} has a {FILE_NAME} that says otherwise")
    content = read_json(folder / FILE_NAME)
    first, second = content["source_lang"], content["target_lang"]
    if source in (None, first) and target in (None, second):
        return Text(first, second, pipeline)
    if source in (None, second) and target in (None, first):
        reverse = TextPipeline(pipeline.target, pipeline.source, pipeline.subwords)
        return Text(second, first, reverse)
    raise UserError(
        f"{folder} was prepared for {first} and {second}, not for {source or 'any'} to "
        f"{target or 'any'}"
    )


def _described(folder: Path, source: str | None, target: str | None, options: TextOptions) -> Text:
    """From the options alone."""
    subwords = _subwords(options)
    if not (subwords and source and target):
        raise UserError(
            f"{folder} has no {FILE_NAME} (admin-nmt prepare writes it): give --bpe-codes FILE or "
            "--sentencepiece-model FILE, --source-lang and --target-lang"
        )
    tokenizers = []
    for language in tokenizer_languages((source, target), options.tokenizer_lang):
        if subwords.moses:
            require_known_language(language)
        tokenizers.append(
            LineTokenizer(
                language,
                options.normalize,
                options.aggressive_hyphens,
                options.lowercase,
                subwords.moses,
            )
        )
    subwords.require()
    return Text(source, target, TextPipeline(tokenizers[0], tokenizers[1], subwords))


def _subwords(options: TextOptions) -> Subwords | None:
    """The subwords that options name."""
    if options.sentencepiece_model:
        for name, given in (
            ("--bpe-codes", options.bpe_codes),
            ("--aggressive-hyphens", options.aggressive_hyphens),
            ("--tokenizer-lang", options.tokenizer_lang),
        ):
            if given:
                raise UsageError(f"{name} does not go with --sentencepiece-model")
        return SentencePiece(Path(options.sentencepiece_model))
    return SubwordNmt(Path(options.bpe_codes)) if options.bpe_codes else None
