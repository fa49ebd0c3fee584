"""From archives to a folder that `fairseq-train` reads, in steps that can be interrupted.

    tokenize    archives -> tokenized/SET.LANG; valid is cut from train; cleaning, if before BPE
    learn_bpe   tokenized/train.* -> codes, or sentencepiece.model
    apply_bpe   tokenized/* -> bpe/*; cleaning, if after BPE; raw/SET.LANG, aligned with the result
    binarize    bpe/* -> data-bin/, with codes, raw text and preparation.json

With SentencePiece, `tokenized/` holds raw text in which single spaces stand between words.

Every step streams: text is read in chunks, a bounded number of which is under way in the worker
processes, and written in order, so that memory does not grow with the number of lines and the
output does not depend on the number of workers. What grows is the table of distinct words that BPE
learning needs. Files of a step appear together when all of them are complete.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, Any, NoReturn

from admin_nmt.data import bpe, sentence_pieces, text_pipeline
from admin_nmt.data.archives import read_first_side, read_pairs
from admin_nmt.data.binarize import binarize
from admin_nmt.data.blocks import (
    Block,
    SplitPairs,
    TokenizePairs,
    blocks_of,
    columns_of,
    count_words,
    num_lines,
    pick,
    write_columns,
)
from admin_nmt.data.corpora import SETS, Archive, Corpus, archive_names, fill
from admin_nmt.data.download import download, local_archives, verify
from admin_nmt.data.odd_lines import Warnings, is_empty
from admin_nmt.data.parallel import chunks, ordered_map
from admin_nmt.data.preparation_record import describe, settings_of
from admin_nmt.data.state import State, require_own_folder
from admin_nmt.data.subwords import SUBWORD_KINDS
from admin_nmt.data.tokenization import LineTokenizer, require_known_language
from admin_nmt.errors import UserError
from admin_nmt.files import atomic_folder, atomic_write, locked, make_directory, sha256
from admin_nmt.json_files import write_json
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

#: Lines that go to a worker at once: enough to make the transport cheap.
CHUNK_LINES = 4000
STEPS = ("tokenize", "learn_bpe", "apply_bpe", "binarize")

#: Lines that are counted at once: their words come back, so more at once come back fewer times.
COUNT_LINES = 10_000

Pair = tuple[str, str]


class PreparationRun:
    """One corpus on its way into one output folder.

    Args:
        corpus: what to prepare, and how.
        output: the folder; made if missing.
        workers: processes.
        files: archive name -> local file, for corpora without URLs.
        archives: folder with the archives; None downloads them into `output`.
    """

    def __init__(
        self,
        corpus: Corpus,
        output: Path,
        workers: int,
        files: dict[str, Path] | None = None,
        archives: Path | None = None,
    ) -> None:
        self.corpus = corpus
        self.output = output
        self.workers = workers
        self.files = files
        self.archives = archives
        self.sets = [name for name in SETS if name in corpus.sources or self._is_cut(name)]
        kind = SUBWORD_KINDS[corpus.subword]
        self.subwords = kind(output / kind.file_name)
        self.state = State(output, settings_of(corpus))

    def run(self) -> Path:
        """Do the steps that are not done yet; returns the folder for `fairseq-train`."""
        if self.subwords.moses:
            for language in self.corpus.tokenizer_langs:
                require_known_language(language)
        else:
            sentence_pieces.require_sentencepiece()
        if self.files is not None:
            self.state.require_same_inputs(self._inputs(self.files))
        elif self.state.is_done(STEPS[-1]) or self.state.is_done(STEPS[0]):
            self._require_same_archives()
        # The last step needs nothing of the others, so what they made may have been deleted.
        if not self.state.is_done(STEPS[-1]):
            for name in STEPS:
                self._run_step(name)
        lines = self.state.info("apply_bpe")["lines"]
        logger.info(
            "%s is ready: %s",
            self.output / "data-bin",
            ", ".join(f"{s} {n}" for s, n in lines.items()),
        )
        return self.output / "data-bin"

    def _run_step(self, name: str) -> None:
        if self.state.is_done(name):
            logger.info("%s: done before", name)
            return
        self.state.start(name, STEPS)
        step: Callable[[], tuple[list[Path], dict[str, Any]]] = getattr(self, f"_{name}")
        self.state.finish(name, *step())

    def _is_cut(self, name: str) -> bool:
        """Whether the set is cut from the training text."""
        return name == "valid" and self.corpus.valid_every is not None

    def _wanted_archives(self) -> list[Archive]:
        names = dict.fromkeys(
            name
            for sources in self.corpus.sources.values()
            for source in sources
            for name in archive_names(source, self.corpus.languages)
        )
        return [self.corpus.archives[name] for name in names]

    def _find_archives(self) -> dict[str, Path]:
        wanted = self._wanted_archives()
        if self.archives is not None:
            return local_archives(wanted, self.archives)
        return download(wanted, self.output / "archives")

    def _require_same_archives(self) -> None:
        """Refuse archives other than those that were tokenised: by the files that are still there, and
        by checksums that the corpus file has got since."""
        folder = self.archives or self.output / "archives"
        for archive in self._wanted_archives():
            known, path = self.state.inputs.get(archive.name), folder / archive.name
            if known is None:
                continue
            if path.is_file():
                self.state.require_same_file(archive.name, path)
            if archive.checksum is None:
                continue
            published = known.get("published_checksum")
            algorithm, _ = archive.checksum.split(":")
            sums = [f"sha256:{known['sha256']}", *([published] if published else [])]
            comparable = [each for each in sums if each.startswith(f"{algorithm}:")]
            if comparable and archive.checksum not in comparable:
                raise UserError(
                    f"the published checksum of {archive.name} has changed since {self.output} was "
                    f"made from it ({comparable[0]} then, {archive.checksum} now): give another "
                    "--output, or delete the folder"
                )
            if not comparable and path.is_file():
                verify(archive, path)

    def _inputs(self, files: dict[str, Path]) -> dict[str, dict[str, Any]]:
        """Checksum of each input; a file that was not published with one is reported."""
        inputs: dict[str, dict[str, Any]] = {}
        for name, path in progress(logger, "checksums", "files", files.items(), leave=False):
            if not path.is_file():
                raise UserError(f"file not found: {path}")
            archive = self.corpus.archives.get(name)
            inputs[name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
            if archive is not None and archive.url is not None:
                inputs[name] |= {"url": archive.url, "published_checksum": archive.checksum}
                if archive.checksum is None:
                    logger.warning(
                        "%s: no published checksum to compare with; recorded sha256 %s",
                        name,
                        inputs[name]["sha256"],
                    )
        return inputs

    def _paths(self, folder: str, name: str, infix: str = "") -> list[Path]:
        return [self.output / folder / f"{name}{infix}.{lang}" for lang in self.corpus.languages]

    # -- tokenize ---------------------------------------------------------------------------------

    def _tokenize(self) -> tuple[list[Path], dict[str, Any]]:
        self.files = self._find_archives() if self.files is None else self.files
        times = {
            name: path.stat().st_mtime_ns for name, path in self.files.items() if path.is_file()
        }
        inputs = self._inputs(self.files)
        self.state.require_same_inputs(inputs)
        make_directory(self.output / "tokenized")
        outputs = {
            name: self._paths("tokenized", name)
            + (self._paths("tokenized", name, ".raw") if name != "train" else [])
            for name in self.sets
        }
        paths = [path for group in outputs.values() for path in group]
        read: dict[str, int] = {}
        written: Counter[str] = Counter()
        with ExitStack() as stack:
            streams = {
                name: [stack.enter_context(atomic_write(path)) for path in group]
                for name, group in outputs.items()
            }
            # Small sets first: what is wrong with them shows before the long work on train.
            for name in sorted(self.corpus.sources, key=SETS.index, reverse=True):
                read[name] = self._tokenize_set(name, streams, written)
        self.state.inputs, self.state.times = inputs, times
        order = {name: read[name] for name in SETS if name in read}
        return paths, {"read": order, "kept": {name: written[name] for name in self.sets}}

    def _tokenize_set(
        self, name: str, streams: dict[str, list[IO[str]]], written: Counter[str]
    ) -> int:
        """Tokenise one set; pairs of train go to valid where that is cut from it."""
        corpus = self.corpus
        every = corpus.valid_every if name == "train" else None
        early = name == "train" and corpus.cleaning.when == "before_bpe"
        source, target = (
            LineTokenizer(
                language,
                name in corpus.normalize,
                corpus.aggressive_hyphens,
                corpus.lowercase,
                self.subwords.moses,
                corpus.substitute.get(name, ()),
            )
            for language in corpus.tokenizer_langs
        )
        function = TokenizePairs(source, target, corpus.cleaning if early else None)
        pairs = chunks(self._raw_pairs(name), CHUNK_LINES)
        blocks = (tuple(map("\n".join, zip(*chunk, strict=True))) for chunk in pairs)
        read = kept = 0
        total = self._num_raw_pairs(name)
        with progress(logger, f"tokenize {name}", "lines", total=total, unit_scale=True) as bar:
            for block, result in ordered_map(function, blocks, self.workers):
                columns = columns_of(result)
                if every:
                    # Those of this chunk that are an `every`th of all.
                    held = slice(every - 1 - kept % every, None, every)
                    kept += len(columns[0])
                    self._write_set("valid", [c[held] for c in columns], block, streams, written)
                    for column in columns:
                        del column[held]
                self._write_set(name, columns, block, streams, written)
                lines = num_lines(block)
                read += lines
                bar.update(lines)
        return read

    def _write_set(
        self,
        name: str,
        columns: list[list[Any]],
        block: Block,
        streams: dict[str, list[IO[str]]],
        written: Counter[str],
    ) -> None:
        """Write tokens to one set, and their raw text of `block` if it is not for training."""
        indices, *texts = columns
        if name != "train":
            texts += [pick(text, indices) for text in block]
        written[name] += len(indices)
        write_columns(streams[name], texts)

    def _num_raw_pairs(self, name: str) -> int:
        """How many pairs a set has; counting them takes no time beside what is done with each."""
        assert self.files is not None  # _tokenize() has set them
        lines = chain.from_iterable(
            read_first_side(source, self.corpus.languages, self.files, self.corpus.invalid_utf8)
            for source in self.corpus.sources[name]
        )
        counted = progress(logger, f"count {name}", "lines", lines, unit_scale=True, leave=False)
        return sum(1 for _ in counted)

    def _raw_pairs(self, name: str) -> Iterator[Pair]:
        """All pairs of a set; an empty line of valid or test is named, or refused where the corpus
        says so."""
        corpus, warnings = self.corpus, Warnings(logger)
        assert self.files is not None  # _tokenize() has set them
        for source in corpus.sources[name]:
            pairs = read_pairs(source, corpus.languages, self.files, corpus.invalid_utf8)
            if name == "train":
                yield from pairs
                continue
            for number, pair in enumerate(pairs, 1):
                if any(map(is_empty, pair)):
                    side = 0 if is_empty(pair[0]) else 1
                    file = self.files[fill(source.archive, corpus.languages, side)]
                    if corpus.refuse_empty:
                        raise UserError(
                            f"{file}, line {number} is empty: {name} sentences are not cleaned, so "
                            "take the line out of both languages"
                        )
                    warnings.add("empty", f"{file}, line {number} is empty: it is kept as it is")
                yield pair
        warnings.close()

    # -- learn_bpe --------------------------------------------------------------------------------

    def _learn_bpe(self) -> tuple[list[Path], dict[str, Any]]:
        counts: Counter[str] = Counter()
        total = 2 * self.state.info("tokenize")["kept"]["train"]
        with progress(logger, "count words", "lines", total=total, unit_scale=True) as bar:
            for path in self._paths("tokenized", "train"):
                for block, partial in ordered_map(
                    count_words, blocks_of([path], COUNT_LINES), self.workers
                ):
                    counts.update(partial)
                    bar.update(num_lines(block))
        if not counts:
            self._refuse_empty("train")
        wanted, path = self.corpus.bpe_tokens, self.subwords.path
        noun = "merges" if self.subwords.moses else "pieces"
        logger.info("learning %d %s on %d words", wanted, noun, len(counts))
        if self.subwords.moses:
            learned = bpe.learn(counts, wanted, path)
        else:
            settings = self.corpus.sentencepiece
            learned = sentence_pieces.learn(
                counts, wanted, settings.model_type, settings.character_coverage, path
            )
        if learned < wanted:
            logger.warning("only %d %s could be learned: the text is small", learned, noun)
        return [path], {"words": len(counts), noun: learned}

    def _refuse_empty(self, name: str) -> NoReturn:
        cleaning = self.corpus.cleaning
        read = self.state.info("tokenize")["read"].get(name, 0)
        if self._is_cut(name):
            raise UserError(
                f"valid is empty: it takes every {self.corpus.valid_every}th training pair and "
                "there are too few"
            )
        raise UserError(
            f"no sentence pair of {name} is left of {read} after cleaning (length "
            f"{cleaning.min_length}-{cleaning.max_length}, ratio {cleaning.ratio:g}): check the "
            "files, --clean-ratio, --min-length and --max-length"
        )

    # -- apply_bpe --------------------------------------------------------------------------------

    def _apply_bpe(self) -> tuple[list[Path], dict[str, Any]]:
        for folder in ("bpe", "raw"):
            make_directory(self.output / folder)
        late = self.corpus.cleaning.when == "after_bpe"
        paths: list[Path] = []
        counts = {}
        with ExitStack() as stack:
            for name in reversed(self.sets):
                cleaned = late and (name == "train" or self._is_cut(name))
                inputs, outputs = self._paths("tokenized", name), self._paths("bpe", name)
                if name != "train":
                    inputs += self._paths("tokenized", name, ".raw")
                    outputs += self._paths("raw", name)
                streams = [stack.enter_context(atomic_write(path)) for path in outputs]
                function = SplitPairs(self.subwords, self.corpus.cleaning if cleaned else None)
                counts[name] = self._split_set(name, function, inputs, streams)
                paths += outputs
                if not counts[name]:
                    self._refuse_empty(name)
        self._compare_with_published(counts)
        return paths, {"lines": {name: counts[name] for name in self.sets}}

    def _compare_with_published(self, counts: Mapping[str, int]) -> None:
        """A truncated archive or another tokenizer shows first in the numbers of lines."""
        for name, published in self.corpus.published_lines.items():
            if counts[name] != published:
                logger.warning(
                    "%s has %s sentence pairs, with the published settings %s",
                    name, f"{counts[name]:,}", f"{published:,}",
                )  # fmt: skip

    def _split_set(
        self, name: str, function: SplitPairs, inputs: list[Path], streams: list[IO[str]]
    ) -> int:
        kept = 0
        total = self.state.info("tokenize")["kept"][name]
        with progress(
            logger, f"split words of {name}", "lines", total=total, unit_scale=True
        ) as bar:
            for block, result in ordered_map(
                function, blocks_of(inputs, CHUNK_LINES), self.workers
            ):
                indices, *texts = columns_of(result)
                write_columns(streams, texts + [pick(text, indices) for text in block[2:]])
                kept += len(indices)
                bar.update(num_lines(block))
        return kept

    # -- binarize ---------------------------------------------------------------------------------

    def _binarize(self) -> tuple[list[Path], dict[str, Any]]:
        final = self.output / "data-bin"
        with atomic_folder(final) as made:
            logger.info("binarize: fairseq-preprocess")
            binarize(
                self.output / "bpe",
                self.corpus.languages,
                self.sets,
                made,
                joined_dictionary=self.corpus.joined_dictionary,
                workers=self.workers,
            )
            shutil.copyfile(self.subwords.path, made / self.subwords.file_name)
            shutil.copytree(self.output / "raw", made / "raw")
            record = describe(self.corpus, self.sets, self.subwords, self.state, made)
            write_json(made / text_pipeline.FILE_NAME, record)
        return [path for path in sorted(final.rglob("*")) if path.is_file()], {}


def prepare(
    corpus: Corpus,
    output: Path,
    *,
    workers: int,
    files: dict[str, Path] | None = None,
    archives: Path | None = None,
) -> Path:
    """Prepare a corpus; steps that an earlier run finished are skipped.

    Args:
        corpus: from `corpus_files.load_corpus`, or made by hand.
        output: folder for everything.
        workers: processes; the output is the same for any number.
        files: name -> local file, for a corpus whose archives have no URL.
        archives: folder with the archives, in place of a download.

    Returns:
        The `data-bin` folder, for `fairseq-train` and `text_pipeline.TextPipeline.load`.

    Raises:
        UserError: bad input, a full disk, or an output folder made with other settings.
    """
    require_own_folder(output)
    make_directory(output)
    with locked(output / ".lock", output):
        try:
            return PreparationRun(corpus, output, workers, files, archives).run()
        except OSError as error:
            name = error.filename or output
            raise UserError(f"cannot write {name}: {error.strerror or error}") from error
