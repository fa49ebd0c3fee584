"""`admin-nmt prepare`: argument parsing of `data.pipeline`."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from admin_nmt.errors import UsageError
from admin_nmt.outputs import require_folder

HELP = "corpus to binarised data: download, tokenise, clean, BPE, fairseq-preprocess"

_CUSTOM_OPTIONS = (
    "corpus_dir", "source_lang", "target_lang", "trainpref", "validpref", "testpref", "valid_every",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that are not given keep what the corpus file says."""
    from admin_nmt.data.corpus_files import corpus_names

    parser.add_argument(
        "name",
        metavar="CORPUS",
        help=f"{', '.join(corpus_names())}; custom for your own text; or a corpus file (.yaml)",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder for all that is made; the data for fairseq is DIR/data-bin",
    )
    parser.add_argument(
        "--archives", metavar="DIR", help="take the archives from here; no network is used"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: all cores); same output"
    )
    parser.add_argument(
        "--variant", metavar="NAME", help="variant of the corpus file (wmt14-en-de: icml17, admin)"
    )
    parser.add_argument("--icml17", action="store_true", help="short for --variant icml17")
    _add_text_arguments(parser)
    _add_custom_arguments(parser)


def _add_text_arguments(parser: argparse.ArgumentParser) -> None:
    """What becomes of the text; each option changes a field of the corpus."""
    switch = argparse.BooleanOptionalAction
    text = parser.add_argument_group(
        "text",
        "Defaults are in the corpus file. For custom: no normalisation, hyphens and case as they "
        "are, ratio 9, 1 to 175 words (with sentencepiece: pieces), 10000 merges or pieces, two "
        "vocabularies.",
    )
    text.add_argument(
        "--normalize", action=switch, help="normalise punctuation, remove non-printing characters"
    )
    text.add_argument("--aggressive-hyphens", action=switch, help="a-b becomes a @-@ b")
    text.add_argument("--lowercase", action=switch, help="lower-case everything")
    text.add_argument(
        "--tokenizer-lang",
        action="append",
        default=[],
        metavar="LANG=LANG",
        help="tokenise the first language by the rules of the second",
    )
    text.add_argument(
        "--clean-ratio",
        type=float,
        metavar="R",
        help="drop pairs in which one side is more than R times as long as the other",
    )
    text.add_argument(
        "--min-length", type=int, metavar="N", help="shortest sentence to keep, in words"
    )
    text.add_argument(
        "--max-length", type=int, metavar="N", help="longest sentence to keep, in words"
    )
    text.add_argument(
        "--subword",
        metavar="KIND",
        help="subword-nmt: BPE over Moses tokens (default); sentencepiece: pieces of raw text, with no "
        "tokenisation before (pip install sentencepiece)",
    )
    text.add_argument(
        "--bpe-tokens",
        type=int,
        metavar="N",
        help="number of BPE merges, or of SentencePiece pieces",
    )
    text.add_argument("--sentencepiece-model-type", metavar="TYPE", help="unigram (default) or bpe")
    text.add_argument(
        "--sentencepiece-character-coverage",
        type=float,
        metavar="R",
        help="share of the characters of the text that become pieces (default 1; 0.9995 for "
        "scripts with thousands of characters)",
    )
    text.add_argument(
        "--joined-dictionary",
        action=switch,
        help="one vocabulary for both languages, which --share-all-embeddings needs",
    )


def _add_custom_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the user's own files are."""
    custom = parser.add_argument_group("custom: parallel files, plain or .gz")
    custom.add_argument("--source-lang", metavar="LANG", help="source language, such as de")
    custom.add_argument("--target-lang", metavar="LANG", help="target language, such as en")
    custom.add_argument(
        "--corpus",
        dest="corpus_dir",
        metavar="DIR",
        help="folder with train.LANG, valid.LANG, test.LANG; or the prefixes below",
    )
    custom.add_argument(
        "--trainpref", metavar="PATH", help="training set in PATH.LANG, or PATH.LANG.gz"
    )
    custom.add_argument("--validpref", metavar="PATH", help="validation set, likewise")
    custom.add_argument(
        "--valid-every",
        type=int,
        metavar="N",
        help="in place of --validpref: take every Nth training pair for validation",
    )
    custom.add_argument("--testpref", metavar="PATH", help="test set, likewise; may be left out")


def run(args: argparse.Namespace) -> None:
    """Settings from corpus file and options, then the pipeline."""
    require_folder(args.output)

    from admin_nmt.data.corpora import check_corpus
    from admin_nmt.data.corpus_files import load_corpus
    from admin_nmt.data.parallel import available_cores
    from admin_nmt.data.pipeline import prepare

    workers = available_cores() if args.workers is None else args.workers
    if workers < 1:
        raise UsageError(f"--workers must be at least 1, not {workers}")
    if args.icml17 and args.variant not in (None, "icml17"):
        raise UsageError(f"--icml17 and --variant {args.variant} exclude each other")
    variant = "icml17" if args.icml17 else args.variant
    files = None
    if args.name == "custom":
        if args.archives or variant:
            raise UsageError("--archives, --variant and --icml17 do not go with custom")
        corpus, files = _custom_corpus(args)
    else:
        for option in _CUSTOM_OPTIONS:
            if getattr(args, option) is not None:
                name = "corpus" if option == "corpus_dir" else option.replace("_", "-")
                raise UsageError(f"--{name} goes with custom only, not with {args.name}")
        corpus = load_corpus(args.name, variant)
    corpus = replace(corpus, **_overrides(args, corpus))
    check_corpus(corpus, "command line", UsageError)
    archives = Path(args.archives) if args.archives else None
    prepare(corpus, Path(args.output), workers=workers, files=files, archives=archives)


def _overrides(args: argparse.Namespace, corpus: Any) -> dict[str, Any]:
    """The fields of the corpus that options change."""
    from admin_nmt.data.corpora import SETS
    from admin_nmt.data.tokenization import tokenizer_languages

    names = ("aggressive_hyphens", "lowercase", "subword", "bpe_tokens", "joined_dictionary")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    changes |= _subword_overrides(args, corpus)
    if args.normalize is not None:
        changes["normalize"] = (corpus.normalize or SETS) if args.normalize else ()
    cleaning = {
        field: value
        for field, value in (
            ("ratio", args.clean_ratio),
            ("min_length", args.min_length),
            ("max_length", args.max_length),
        )
        if value is not None
    }
    changes["cleaning"] = replace(corpus.cleaning, **cleaning)
    changes["tokenizer_langs"] = tokenizer_languages(
        corpus.languages, args.tokenizer_lang, corpus.tokenizer_langs
    )
    return changes


def _subword_overrides(args: argparse.Namespace, corpus: Any) -> dict[str, Any]:
    """The fields that follow from the kind of subwords, and those of SentencePiece."""
    given = {
        name: value
        for name, value in (
            ("model_type", args.sentencepiece_model_type),
            ("character_coverage", args.sentencepiece_character_coverage),
        )
        if value is not None
    }
    kind = args.subword or corpus.subword
    if kind != "sentencepiece":
        for name in given:
            option = f"--sentencepiece-{name.replace('_', '-')}"
            raise UsageError(f"{option} goes with --subword sentencepiece, not with {kind}")
        return {}
    for option, unwanted in (
        ("--aggressive-hyphens", args.aggressive_hyphens),
        ("--tokenizer-lang", args.tokenizer_lang),
    ):
        if unwanted:
            raise UsageError(f"{option} is about Moses tokens: sentencepiece takes raw text")
    return {
        "aggressive_hyphens": False,
        "sentencepiece": replace(corpus.sentencepiece, **given),
    }


def _custom_corpus(args: argparse.Namespace) -> tuple[Any, dict[str, Path]]:
    """The corpus of the user's own files, and where they are, from options that go together."""
    from admin_nmt.data.custom_corpus import custom_corpus

    if not (args.source_lang and args.target_lang):
        raise UsageError("custom needs --source-lang and --target-lang")
    prefixes: dict[str, Any] = {
        "train": args.trainpref, "valid": args.validpref, "test": args.testpref
    }  # fmt: skip
    if args.corpus_dir is not None:
        if any(prefixes.values()):
            raise UsageError("--corpus excludes --trainpref, --validpref and --testpref")
        folder = Path(args.corpus_dir)
        if not folder.is_dir():
            raise UsageError(f"--corpus {folder} is not a folder")
        prefixes = {name: folder / name for name in prefixes}
        if args.valid_every is not None:
            prefixes["valid"] = None
    elif not prefixes["train"]:
        raise UsageError("custom needs --corpus DIR, or --trainpref with --validpref")
    if (prefixes["valid"] is None) == (args.valid_every is None):
        raise UsageError("custom needs one of --validpref and --valid-every")
    return custom_corpus(
        (args.source_lang, args.target_lang),
        {name: prefix for name, prefix in prefixes.items() if prefix},
        valid_every=args.valid_every,
        subword=args.subword,
    )
