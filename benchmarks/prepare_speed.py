"""Lines a second of `admin-nmt prepare`, step by step and part by part.

    python benchmarks/prepare_speed.py [--corpus DIR --source-lang de --target-lang en] [--copies N]

A line is one of one language. The first table has the three steps before fairseq-preprocess as the
program runs them, by the clock and by the time of all processes on their CPUs; the time to learn
merges goes by the number of distinct words and not by that of lines, and is shown apart. The second
has the parts beside sacremoses and subword-nmt called line by line, in one process, in turn on the
same lines, after a round that fills the tables. Without `--corpus` the text is generated: words of
a vocabulary of 50,000 by Zipf's law, 20 a line, with commas and periods.
"""

import argparse
import logging
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any
from unittest.mock import patch

from common import interleaved, medians, parse, show

from admin_nmt.data import bpe
from admin_nmt.data.corpora import Corpus, Source
from admin_nmt.data.pipeline import STEPS, PreparationRun
from admin_nmt.data.state import locked
from admin_nmt.data.tokenization import LineTokenizer


def write_corpus(folder: Path, languages: tuple[str, str], num_lines: int) -> None:
    """train.* of generated words."""
    rng = random.Random(1)
    letters = "etaoinshrdlcumwfgypbvk"
    words = ["".join(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(50_000)]
    weights = [*accumulate(1 / rank for rank in range(1, len(words) + 1))]
    for language in languages:
        with (folder / f"train.{language}").open("w") as stream:
            for _ in range(num_lines):
                line = " ".join(rng.choices(words, cum_weights=weights, k=20))
                stream.write(f"{line.replace(' ', ', ', 1).capitalize()}.\n")


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Add the clock's and the CPUs' seconds of the block to `seconds`."""
    clock, cpu = time.perf_counter(), cpu_seconds()
    yield
    seconds[0] += time.perf_counter() - clock
    seconds[1] += cpu_seconds() - cpu


def steps(corpus: Corpus, files: dict[str, Path], workers: int) -> dict[str, list[float]]:
    """Seconds by step, by the clock and of the CPUs; learning apart from counting."""
    seconds = {name: [0.0, 0.0] for name in (*STEPS[:-1], "learn merges")}
    learn = bpe.learn

    def learn_timed(*args: Any) -> int:
        with timed(seconds["learn merges"]):
            return learn(*args)

    with tempfile.TemporaryDirectory() as name, patch.object(bpe, "learn", learn_timed):
        output = Path(name)
        with locked(output):
            preparation = PreparationRun(corpus, output, workers, files)
            for step in STEPS[:-1]:
                with timed(seconds[step]):
                    preparation._run_step(step)
    for index, learning in enumerate(seconds["learn merges"]):
        seconds["learn_bpe"][index] -= learning
    return seconds


def parts(lines: dict[str, list[str]], codes: Path, rounds: int) -> list[list[Any]]:
    """Rows: part, lines a second of the library, ours."""
    import regex
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    subword_nmt = bpe.load(codes)
    rows = []
    for language, text in lines.items():
        normalizer = MosesPunctNormalizer(lang=language, perl_parity=True)
        tokenizer = MosesTokenizer(lang=language)
        ours = LineTokenizer(language)
        normalized = LineTokenizer(language, normalize=True, moses=False)
        tokens = [*map(ours, text)]

        def theirs_normalized(line: str, normalizer: Any = normalizer) -> str:
            return " ".join(regex.sub(r"\p{C}", " ", normalizer.normalize(line)).split())

        def theirs_tokens(line: str, tokenizer: Any = tokenizer) -> str:
            return tokenizer.tokenize(line, return_str=True)

        pairs: list[tuple[str, list[str], Callable[[str], str], Callable[[str], str]]] = [
            ("normalise", text, theirs_normalized, normalized),
            ("tokenise", text, theirs_tokens, ours),
            ("split words", tokens, subword_nmt.segment, lambda line: bpe.split(line, codes)),
        ]
        for name, given, theirs, own in pairs:
            assert [*map(theirs, given)] == [*map(own, given)], name

            def run(function: Callable[[str], str], given: list[str] = given) -> None:
                for line in given:
                    function(line)

            functions = [lambda _, f=function: run(f) for function in (theirs, own)]
            found = medians(interleaved(functions, rounds, warm_up=1, clock=time.process_time))
            rates = [len(given) / seconds for seconds in found]
            rows.append([f"{name} ({language})", *rates, rates[1] / rates[0]])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--corpus", type=Path, metavar="DIR", help="folder with train.SRC and train.TGT"
    )
    parser.add_argument("--source-lang", default="de", metavar="LANG")
    parser.add_argument("--target-lang", default="en", metavar="LANG")
    parser.add_argument(
        "--copies", type=int, default=1, metavar="N", help="the corpus N times over"
    )
    parser.add_argument("--lines", type=int, default=100_000, help="of generated text")
    parser.add_argument("--sample", type=int, default=2000, help="lines for the second table")
    parser.add_argument("--bpe-tokens", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parse(
        parser, corpus=None, copies=1, lines=300, sample=20, bpe_tokens=20, workers=1, rounds=1
    )
    logging.disable(logging.INFO)
    languages = (args.source_lang, args.target_lang)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.corpus is None:
            write_corpus(folder, languages, args.lines)
        files, samples, count = {}, {}, 0
        for language in languages:
            path = (args.corpus or folder) / f"train.{language}"
            text = path.read_text(encoding="utf-8")
            samples[language] = text.split("\n")[: args.sample]
            files[f"train.{language}"] = folder / f"copies.{language}"
            files[f"train.{language}"].write_text(
                text * args.copies, encoding="utf-8", newline="\n"
            )
            count += text.count("\n") * args.copies
        corpus = Corpus(
            "custom", languages, languages, {"train": (Source("train.{lang}"),)}, {}, valid_every=100,
            bpe_tokens=args.bpe_tokens,
        )  # fmt: skip
        found = steps(corpus, files, args.workers)
        learning = found.pop("learn merges")
        found["all"] = [sum(column) for column in zip(*found.values(), strict=True)]
        rows = [[step, *(count / seconds for seconds in pair)] for step, pair in found.items()]
        show(
            args, ["step", "lines/s", "lines/s of one CPU"], rows, ".0f",
            f"{count} lines, {args.workers} workers; learning {args.bpe_tokens} merges: "
            f"{learning[0]:.1f} s, {learning[1]:.1f} s of one CPU",
        )  # fmt: skip
        codes = folder / "codes"
        words = [
            line
            for language, text in samples.items()
            for line in map(LineTokenizer(language), text)
        ]
        bpe.learn(bpe.count_words(words), args.bpe_tokens, codes)
        show(
            args, ["part", "library, lines/s", "ours, lines/s", "times"],
            parts(samples, codes, args.rounds), ".1f", "one process, tables filled",
        )  # fmt: skip


if __name__ == "__main__":
    main()
