"""The engine for exported folders: CTranslate2, which needs no torch."""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from admin_nmt.errors import UsageError, UserError
from admin_nmt.export.search import Alignment, Hypothesis, Search, Sentence
from admin_nmt.installed import require_package
from admin_nmt.json_files import read_json
from admin_nmt.search.limits import output_limit

#: Beginning of a sentence and padding, which are not part of a text: large beams find them.
SILENT = ("<s>", "<blank>")


class CTranslate2Backend:
    """CTranslate2 on a converted model.

    Args:
        folder: the converted model.
        max_source: longest input in subwords.
        max_target: longest output in subwords.
        threads: batches translated at the same time, one core each.
        device: `cpu`, `cuda` or `auto`.
        full_context: attention was trained with `--full-context-alignment`, which CTranslate2 lacks.

    Raises:
        UserError: CTranslate2 is not installed, or cannot load the model.
    """

    def __init__(
        self,
        folder: Path,
        max_source: int,
        max_target: int,
        threads: int,
        device: str = "auto",
        full_context: bool = False,
    ) -> None:
        self.max_source = max_source
        self.max_target = max_target
        self.threads = threads
        self.folder = folder
        self.device = device
        self.full_context = full_context
        self.engine = self._load()

    def _load(self) -> Any:
        try:
            # One core per batch beats several cores in one batch: no step waits for the others.
            return import_ctranslate2().Translator(
                str(self.folder), device=self.device, inter_threads=self.threads, intra_threads=1
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"CTranslate2 cannot load {self.folder}: {error}") from error

    @cached_property
    def _vocabulary_size(self) -> int:
        """Of the target language, which CTranslate2 itself does not tell; its older folders keep words
        in another form, for which it is the largest number that CTranslate2 takes."""
        for name in ("target_vocabulary.json", "shared_vocabulary.json"):
            if (self.folder / name).is_file():
                return len(read_json(self.folder / name))
        return 2**31 - 1

    def require_alignment(self, alignment: Alignment) -> None:
        """CTranslate2's layer and heads are part of its model."""
        if alignment != Alignment():
            raise UsageError(
                "an exported folder has its layer of alignments: give --alignment-layer and "
                "--alignment-heads to admin-nmt export"
            )
        if self.full_context:
            raise UserError(
                f"{self.folder} was trained with --full-context-alignment: its attention sees the whole "
                "translation, which CTranslate2 cannot do; translate with the checkpoint"
            )

    def seed(self, seed: int) -> None:
        """With new threads: each takes the seed when it draws its first random number."""
        import_ctranslate2().set_random_seed(seed)
        self.engine = self._load()

    def translate(
        self, batches: Iterable[list[Sentence]], search: Search
    ) -> Iterator[list[list[Hypothesis]]]:
        """Keep all threads busy with a few batches in advance."""
        waiting: deque[list[tuple[Any, Any]]] = deque()
        for batch in batches:
            first_words = self._start_first_words(batch, search)
            waiting.append(list(zip(self._start(batch, search), first_words, strict=True)))
            if len(waiting) > 2 * self.threads:
                yield [self._result(*started) for started in waiting.popleft()]
        while waiting:
            yield [self._result(*started) for started in waiting.popleft()]

    def scores(self, sources: list[Sentence], targets: list[Sentence]) -> list[float]:
        """Mean log-probability of each target's subwords and its end, given the source."""
        results = self.engine.score_batch(sources, targets, max_input_length=0)
        return [sum(result.log_probs) / len(result.log_probs) for result in results]

    def _start(self, batch: list[Sentence], search: Search) -> list[Any]:
        how: dict[str, Any] = {"beam_size": search.beam}
        if search.sampling is not None:
            how = {
                "beam_size": 1,
                "sampling_topk": min(search.sampling.topk, self._vocabulary_size),
                "sampling_topp": search.sampling.topp,
                "sampling_temperature": search.sampling.temperature,
                # Label smoothing gives them some probability.
                "suppress_sequences": [[token] for token in SILENT],
            }
        started: list[Any] = self.engine.translate_batch(
            batch,
            asynchronous=True,
            num_hypotheses=search.nbest,
            length_penalty=search.lenpen,
            max_input_length=0,
            max_decoding_length=output_limit(batch, self.max_target),
            return_scores=True,
            return_attention=search.alignment is not None,
            **how,
        )
        return started

    def _start_first_words(self, batch: list[Sentence], search: Search) -> list[Any]:
        """For each sentence a search that ends after one subword, or None where it is not needed.

        In a batch of several sentences CTranslate2's beam search (4.8.5) gives the first subword the
        attention of another sentence. What a translation begins with does not bear on it, so that a
        search without a beam gives the right one.
        """
        if search.alignment is None or search.sampling or search.beam == 1 or len(batch) == 1:
            return [None] * len(batch)
        started: list[Any] = self.engine.translate_batch(
            batch,
            asynchronous=True,
            beam_size=1,
            max_input_length=0,
            max_decoding_length=1,
            return_attention=True,
        )
        return started

    @staticmethod
    def _result(started: Any, first_word: Any) -> list[Hypothesis]:
        result = started.result()
        hypotheses: list[Hypothesis] = []
        for rank, (tokens, score) in enumerate(zip(result.hypotheses, result.scores, strict=True)):
            # Suppressed in a beam, they would change the scores of all others.
            written = [place for place, token in enumerate(tokens) if token not in SILENT]
            attended = None
            if result.attention:
                weights = result.attention[rank]  # (T, S), without the ends of both sentences
                if first_word is not None:
                    weights = [*first_word.result().attention[0], *weights[1:]][: len(weights)]
                attended = [weights[place].index(max(weights[place])) for place in written]
            hypotheses.append(Hypothesis([tokens[place] for place in written], score, attended))
        return hypotheses


def import_ctranslate2() -> Any:
    """The module `ctranslate2`.

    Raises:
        UserError: it is not installed.
    """
    return require_package("ctranslate2", "ctranslate2>=4.5")
