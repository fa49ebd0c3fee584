"""A synthetic German-English corpus: thousands of distinct, grammatical sentence pairs.

Nothing is downloaded: the sentences are drawn from our own grammar (`lexicon`, `syntax`,
`sentences`) with gender, case, agreement and word order of the real languages: verb-second main
clauses, separable verbs, perfect tenses and modal verbs with their brackets, verb-final subordinate
and relative clauses, three adjective declensions, negation, questions. The English of a sentence
follows from its German, so that a model can learn to translate without guessing.

The corpus depends on the sizes and the seed, and on nothing else.
"""

import os
import random
from itertools import islice
from pathlib import Path

from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write, make_directory
from corpus.sentences import Pair, SentenceSampler

MIN_WORDS, MAX_WORDS = 3, 14
# Number of draws in a row without a new sentence that shows that the grammar is nearly used up.
MAX_FAILED_DRAWS = 1000


def generate(num_pairs: int, seed: int) -> list[Pair]:
    """Draw `num_pairs` pairs (German, English) of detokenised sentences, 3 to 14 words each.

    All German sentences differ from each other, and so do all English ones. A shorter list is the
    beginning of a longer one with the same seed.

    Raises:
        UserError: the number is negative, or larger than what the grammar offers.
    """
    if num_pairs < 0:
        raise UserError(f"the number of sentence pairs must not be negative: {num_pairs}")
    sampler = SentenceSampler(random.Random(seed))
    pairs: list[Pair] = []
    german_seen: set[str] = set()
    english_seen: set[str] = set()
    failed = 0
    while len(pairs) < num_pairs:
        german, english = sampler.sentence()
        if (
            german in german_seen
            or english in english_seen
            or not _has_good_length(german, english)
        ):
            failed += 1
            if failed == MAX_FAILED_DRAWS:
                raise UserError(
                    f"the grammar is used up after {len(pairs)} distinct sentence pairs; "
                    f"ask for fewer than {num_pairs}"
                )
            continue
        failed = 0
        german_seen.add(german)
        english_seen.add(english)
        pairs.append((german, english))
    return pairs


def write_corpus(
    directory: str | os.PathLike[str],
    num_train: int = 10_000,
    num_valid: int = 500,
    num_test: int = 500,
    seed: int = 1,
) -> Path:
    """Write train, valid and test sets as `train.de`, `train.en` and so on; return the folder.

    No German sentence and no English sentence occurs twice in the six files, so validation and test
    sentences are unseen in training on both sides (their words and constructions are not). The test
    and validation sets depend on their sizes and the seed, not on the size of the training set.
    Files of an earlier run are replaced.

    Raises:
        UserError: the folder cannot be written, or a number is negative or too large.
    """
    sizes = {"test": num_test, "valid": num_valid, "train": num_train}
    for name, size in sizes.items():
        if size < 0:
            raise UserError(f"num_{name} must not be negative: {size}")
    pairs = iter(generate(sum(sizes.values()), seed))
    directory = make_directory(directory)
    for name, size in sizes.items():
        part = list(islice(pairs, size))
        for side, language in enumerate(("de", "en")):
            with atomic_write(directory / f"{name}.{language}") as stream:
                stream.writelines(pair[side] + "\n" for pair in part)
    return directory


def _has_good_length(german: str, english: str) -> bool:
    return all(MIN_WORDS <= len(text.split()) <= MAX_WORDS for text in (german, english))
