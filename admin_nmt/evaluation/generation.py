"""Translate one subset of a binarised data folder with `fairseq-generate`.

fairseq runs as a process of its own, so that what it prints can be read line by line: `H-12` is the
hypothesis of sentence 12, `T-12` its reference. It goes through sentences by length; here they are
put back into the order of the corpus.
"""

import logging
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from admin_nmt.checkpoints.reading import open_checkpoint
from admin_nmt.checkpoints.settings import setting
from admin_nmt.errors import UsageError, UserError
from admin_nmt.evaluation.progress import progress

logger = logging.getLogger(__name__)

#: `<s>`, `<pad>`, `</s>` and `<unk>` are in every fairseq vocabulary but in no dictionary file.
NUM_SPECIAL_SYMBOLS = 4

_BINARY_NAME = re.compile(r"(?P<subset>.+)\.(?P<pair>[^.-]+-[^.-]+)\.(?P<language>[^.]+)\.idx")
# Head of an index as `fairseq-preprocess` writes it: magic, version, type of number, sentences.
_INDEX_MAGIC = b"MMIDIDX\x00\x00"
_INDEX_HEAD = struct.Struct("<9sQBQ")


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        beam: hypotheses kept at every step.
        lenpen: exponent of the length by which scores are divided; above 1 favours long output.
        max_tokens: source tokens in one batch.
        cpu: do not use a GPU.
        fp16: compute in 16 bits (GPU).
    """

    beam: int = 5
    lenpen: float = 1.0
    max_tokens: int = 12000
    cpu: bool = False
    fp16: bool = False

    def __post_init__(self) -> None:
        for option, value in (("--beam", self.beam), ("--max-tokens", self.max_tokens)):
            if value < 1:
                raise UsageError(f"{option} {value}: give a number of at least 1")


@dataclass(frozen=True)
class Translations:
    """Output of fairseq in corpus order, tokenised and in BPE pieces.

    Attributes:
        hypotheses: N sentences.
        references: N sentences as fairseq read them from the data folder, None if it has none.
    """

    hypotheses: list[str]
    references: list[str] | None


def find_direction(
    data: str | os.PathLike[str],
    subset: str,
    source: str | None,
    target: str | None,
    trained: tuple[str | None, str | None] = (None, None),
) -> tuple[str, str]:
    """The languages (source, target) in which to translate `subset` of the folder `data`.

    What is not given is taken from `trained`, the direction of the checkpoint, if the folder has
    those languages, else from the names of the files, provided that they leave no choice.

    Raises:
        UserError: no folder, or it has no such subset, or not in these languages.
        UsageError: several directions are possible, or the one asked for is the reverse of the
            checkpoint's.
    """
    pairs = _pairs(Path(data), subset)
    directions = [pair for a, b in pairs for pair in ((a, b), (b, a))]
    wanted = [
        pair for pair in directions if source in (None, pair[0]) and target in (None, pair[1])
    ]
    if not wanted:
        raise UserError(
            f"{data} has no subset {subset} for --source-lang {source or 'any'} --target-lang "
            f"{target or 'any'}; it has {', '.join('-'.join(pair) for pair in pairs)}"
        )
    if len(wanted) > 1 and trained in wanted:
        wanted = [pair for pair in wanted if pair == trained]
    if len(wanted) > 1:
        # fairseq names files source-target, so that order is the default of a single pair.
        wanted = [pair for pair in wanted if pair in pairs]
    if len(wanted) != 1:
        raise UsageError(
            f"{data} holds {subset} for {', '.join('-'.join(pair) for pair in pairs)}: "
            "give --source-lang and --target-lang"
        )
    if wanted[0] == trained[::-1]:
        # With dictionaries of equal size, or a joint one, fairseq would translate into nonsense.
        raise UsageError(
            f"--source-lang {wanted[0][0]} --target-lang {wanted[0][1]}: the checkpoint was trained "
            f"to translate from {trained[0]} to {trained[1]}"
        )
    return wanted[0]


def _pairs(data: Path, subset: str) -> list[tuple[str, str]]:
    """Language pairs of a subset, from names like `test.de-en.de.idx`."""
    if not data.is_dir():
        raise UserError(f"data folder not found: {data}")
    matches = [match for path in data.iterdir() if (match := _BINARY_NAME.fullmatch(path.name))]
    if not matches:
        raise UserError(
            f"{data} holds no binarised text (files like test.de-en.de.idx); "
            "make it with fairseq-preprocess"
        )
    pairs = {match["pair"] for match in matches if match["subset"] == subset}
    if not pairs:
        known = ", ".join(sorted({match["subset"] for match in matches}))
        raise UserError(f"{data} has no subset {subset}; --gen-subset can be one of {known}")
    return [(a, b) for a, b in (pair.split("-") for pair in sorted(pairs))]


def trained_direction(path: str) -> tuple[str | None, str | None]:
    """(source, target) of the run that wrote the checkpoints `path`, None where it is not known."""
    return recorded_direction(open_checkpoint(path.split(os.pathsep)[0]))


def recorded_direction(state: dict[str, Any]) -> tuple[str | None, str | None]:
    """(source, target) that a checkpoint was trained on, None where it is not known.

    fairseq does not record languages that it took from the names of its files: they still tell if
    they are where they were.
    """
    source, target = (setting(state, "task", side) for side in ("source_lang", "target_lang"))
    folder = Path(str(setting(state, "task", "data") or "/nowhere").split(os.pathsep)[0])
    if source is None and target is None and folder.is_dir():
        names = (_BINARY_NAME.fullmatch(path.name) for path in folder.iterdir())
        pairs = {match["pair"] for match in names if match}
        if len(pairs) == 1:
            source, target = pairs.pop().split("-")
    return source, target


def require_fitting_vocabulary(
    path: str, data: str | os.PathLike[str], source: str, target: str
) -> None:
    """Refuse checkpoints whose embeddings have another number of rows than the dictionaries.

    Raises:
        UserError: naming the checkpoint, the dictionary and both sizes.
    """
    for checkpoint in path.split(os.pathsep):
        model = open_checkpoint(checkpoint)["model"]
        for side, language in (("encoder", source), ("decoder", target)):
            dictionary = Path(data) / f"dict.{language}.txt"
            embedding = model.get(f"{side}.embed_tokens.weight")
            size = _dictionary_size(dictionary)
            if embedding is not None and embedding.shape[0] != size:
                raise UserError(
                    f"checkpoint {checkpoint} does not fit the vocabulary of {data}: its {side} "
                    f"knows {embedding.shape[0]} types, {dictionary} has {size}; "
                    "use the data folder it was trained on, or the other translation direction"
                )


def _dictionary_size(path: Path) -> int:
    try:
        with path.open("rb") as stream:
            return NUM_SPECIAL_SYMBOLS + sum(1 for _ in stream)
    except OSError as error:
        raise UserError(f"cannot read dictionary {path}: {error.strerror or error}") from error


def num_sentences(
    data: str | os.PathLike[str], subset: str, source: str, target: str
) -> int | None:
    """Sentences in a subset, read from its index; None if that is of an older format."""
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        path = Path(data) / f"{subset}.{pair}.{source}.idx"
        if path.is_file():
            with path.open("rb") as stream:
                head = stream.read(_INDEX_HEAD.size)
            if len(head) == _INDEX_HEAD.size and head.startswith(_INDEX_MAGIC):
                return _INDEX_HEAD.unpack(head)[3]
    return None


def translate(
    data: str | os.PathLike[str],
    path: str,
    subset: str,
    source: str,
    target: str,
    options: SearchOptions | None = None,
) -> Translations:
    """Run `fairseq-generate`.

    Args:
        data: folder made by `fairseq-preprocess`.
        path: a checkpoint, or several joined by `:`, which then translate together.
        subset: such as `test`.
        source: language code.
        target: language code.
        options: how to search.

    Raises:
        UserError: fairseq fails (with its own last words), or leaves sentences out.
    """
    command = generate_command(data, path, subset, source, target, options or SearchOptions())
    total = num_sentences(data, subset, source, target)
    environment = os.environ | {"PYTHONUTF8": "1"}
    logger.info("running %s", subprocess.list2cmdline(command[1:]))
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment
        ) as process,
    ):
        try:
            hypotheses, references = _read_output(process.stdout or (), total)
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            errors.seek(0)
            raise _failure(process.returncode, errors.read().decode("utf-8", "replace"))
    count = max(hypotheses, default=-1) + 1 if total is None else total
    return Translations(
        in_corpus_order(hypotheses, count, "hypothesis"),
        in_corpus_order(references, count, "reference") if references else None,
    )


def generate_command(
    data: str | os.PathLike[str],
    path: str,
    subset: str,
    source: str,
    target: str,
    options: SearchOptions,
) -> list[str]:
    """The command line of `fairseq-generate`, with the Python that runs this.

    fairseq leaves out the last batch without a word if its size is no multiple of
    `--required-batch-size-multiple`, by default 8 (`fairseq.data.data_utils.batch_by_size`). In
    training that costs nothing; here it would cost up to seven sentences of the test set.
    """
    command = [sys.executable, "-u", "-m", "fairseq_cli.generate", str(data), "--path", path]
    command += ["--source-lang", source, "--target-lang", target, "--gen-subset", subset]
    command += ["--beam", str(options.beam), "--lenpen", str(options.lenpen)]
    command += ["--max-tokens", str(options.max_tokens), "--required-batch-size-multiple", "1"]
    command += ["--log-format", "none"]
    return command + ["--cpu"] * options.cpu + ["--fp16"] * options.fp16


def _read_output(
    stream: Iterable[bytes], total: int | None
) -> tuple[dict[int, str], dict[int, str]]:
    """Follow fairseq's output: {number: hypothesis} and {number: reference}."""
    found: dict[str, dict[int, str]] = {"H": {}, "T": {}}
    with progress(logger, "translating", "sentences", total=total) as bar:
        for line in stream:
            parsed = parse_line(line.decode("utf-8", "replace").rstrip("\n"))
            if parsed:
                kind, number, sentence = parsed
                found[kind][number] = sentence
                bar.update(kind == "H")
    return found["H"], found["T"]


def parse_line(line: str) -> tuple[str, int, str] | None:
    """(`H` or `T`, sentence number, text) of a line of `fairseq-generate`; None for other lines."""
    match = re.match(r"H-(\d+)\t[^\t]*\t(.*)", line, re.DOTALL)
    if match:
        return "H", int(match[1]), match[2]
    match = re.match(r"T-(\d+)\t(.*)", line, re.DOTALL)
    return ("T", int(match[1]), match[2]) if match else None


def in_corpus_order(sentences: dict[int, str], count: int, what: str) -> list[str]:
    """The sentences 0 to `count` - 1.

    Raises:
        UserError: one is missing, so that lines would not be parallel any more.
    """
    missing = [number for number in range(count) if number not in sentences]
    if missing or not count:
        raise UserError(
            f"fairseq-generate returned no {what} for {len(missing) or 'any'} of {count} sentences"
            + (f" (first: line {missing[0] + 1})" if missing else "")
        )
    return [sentences[number] for number in range(count)]


def _failure(code: int, errors: str) -> UserError:
    """One line out of what fairseq wrote before it stopped."""
    if "out of memory" in errors:
        return UserError("fairseq-generate ran out of memory: lower --max-tokens or --beam")
    return UserError(f"fairseq-generate failed: {_last_words(errors.splitlines(), code)}")


def _last_words(lines: list[str], code: int) -> str:
    """The exception at the end of a traceback with its text, on one line, else the last line."""
    starts = [index for index, line in enumerate(lines) if re.match(r"[A-Za-z_][\w.]*: ", line)]
    if not any(line.strip() for line in lines):
        return f"exit status {code}"
    last = lines[starts[-1] :] if starts else [line for line in lines if line.strip()][-1:]
    text = " ".join(" ".join(last).split())
    return re.sub(r"^[\w.]*(UserError|Exception|UsageError): ", "", text)[:500]
