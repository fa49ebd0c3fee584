"""`--bpe-dropout`, `--subword-regularization`: the words of the training text are split anew in every batch.

fairseq has BPE-dropout only as a step before binarising, so that every epoch sees the same pieces.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from admin_nmt.host.patch import Addition, Patch, Scope

#: The options that ask for it, and all of ours.
CHANCES = ("bpe_dropout", "subword_regularization")
OPTIONS = (*CHANCES, "bpe_dropout_side")
#: The seed of the run while its trainer loads training data; else None.
_seed: ContextVar[int | None] = ContextVar("_seed", default=None)


@contextmanager
def _training(seed: int) -> Iterator[None]:
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


def _with_our_options(dataclass: Any) -> Any:
    """Training with `translation` takes `--bpe-dropout`, `--subword-regularization` and
    `--bpe-dropout-side`."""
    from admin_nmt.host.resegmented import ResegmentingTranslationConfig

    assert issubclass(ResegmentingTranslationConfig, dataclass)
    return ResegmentingTranslationConfig


def _registered_options() -> Callable[[], None]:
    """The same options where tasks are set up from configurations, and in Hydra's files
    (`task.bpe_dropout`)."""
    from fairseq.tasks import TASK_DATACLASS_REGISTRY
    from hydra.core.config_store import ConfigStore

    from admin_nmt.host.resegmented import ResegmentingTranslationConfig

    def register(dataclass: Any) -> None:
        TASK_DATACLASS_REGISTRY[_NAME] = dataclass
        node = dataclass()
        node._name = _NAME
        ConfigStore.instance().store(name=_NAME, group="task", node=node, provider="fairseq")

    before = TASK_DATACLASS_REGISTRY[_NAME]
    register(ResegmentingTranslationConfig)
    return lambda: register(before)


def _during_training(get_train_iterator: Callable) -> Callable:
    """Only training itself splits words anew: not validation, and no analysis of training text."""

    @wraps(get_train_iterator)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _training(self.cfg.common.seed):
            return get_train_iterator(self, *args, **kwargs)

    return wrapped


def _split_anew(load_dataset: Callable) -> Callable:
    """With `--bpe-dropout` or `--subword-regularization` the training set splits the words of each batch
    anew, by seed, epoch and sentence, so that a resumed run sees the same."""

    @wraps(load_dataset)
    def wrapped(self: Any, split: str, *args: Any, **kwargs: Any) -> Any:
        load_dataset(self, split, *args, **kwargs)
        seed = _seed.get()
        if seed is None or split != self.cfg.train_subset:
            return
        if any(getattr(self.cfg, name, 0.0) != 0 for name in CHANCES):
            from admin_nmt.host.resegmented import resegmented

            self.datasets[split] = resegmented(self, self.datasets[split], seed)

    return wrapped


_NAME = "translation"
_TASK = "fairseq.tasks.translation:TranslationTask"
PATCHES = (
    Patch(_TASK, "__dataclass", _with_our_options, Scope.ALL),
    Addition("fairseq.tasks.TASK_DATACLASS_REGISTRY", _registered_options, Scope.ALL),
    Patch("fairseq.trainer:Trainer", "get_train_iterator", _during_training, Scope.ALL),
    Patch(_TASK, "load_dataset", _split_anew, Scope.ALL),
)
