"""Translate one subset of a binarised data folder with `fairseq-generate`.

fairseq runs as a process of its own, so that what it prints can be read line by line: `H-12` is the
hypothesis of sentence 12, `T-12` its reference. It goes through sentences by length; here they are
put back into the order of the corpus.
"""

import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass

from admin_nmt.data.binarised import num_sentences
from admin_nmt.errors import UsageError, UserError
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)


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
        sources: N sentences as fairseq read them, None if it does not show them.
    """

    hypotheses: list[str]
    references: list[str] | None
    sources: list[str] | None = None


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
            hypotheses, references, sources = _read_output(process.stdout or (), total)
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
        in_corpus_order(sources, count, "source") if sources else None,
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

    fairseq leaves out the last batch without a word if its size is not a multiple of
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
) -> tuple[dict[int, str], dict[int, str], dict[int, str]]:
    """Follow fairseq's output: number -> hypothesis, number -> reference, number -> source."""
    found: dict[str, dict[int, str]] = {"H": {}, "T": {}, "S": {}}
    with progress(logger, "translating", "sentences", total=total) as bar:
        for line in stream:
            parsed = parse_line(line.decode("utf-8", "replace").rstrip("\n"))
            if parsed:
                kind, number, sentence = parsed
                found[kind][number] = sentence
                bar.update(kind == "H")
    return found["H"], found["T"], found["S"]


def parse_line(line: str) -> tuple[str, int, str] | None:
    """(`H`, `T` or `S`, sentence number, text) of a line of `fairseq-generate`; None for other lines."""
    match = re.match(r"H-(\d+)\t[^\t]*\t(.*)", line, re.DOTALL)
    if match:
        return "H", int(match[1]), match[2]
    match = re.match(r"([TS])-(\d+)\t(.*)", line, re.DOTALL)
    return (match[1], int(match[2]), match[3]) if match else None


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
