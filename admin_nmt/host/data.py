"""Data folders: checked before fairseq stumbles over them, and read in the formats before `mmap`, too."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from fairseq.data.data_utils import infer_language_pair
from fairseq.utils import split_paths

from admin_nmt.data.data_folder import language_pairs
from admin_nmt.errors import UserError
from admin_nmt.host.patch import Patch, Scope


class DataError(UserError, FileNotFoundError):
    """Binarised data is missing; still the `FileNotFoundError` that callers of fairseq expect."""

    def __str__(self) -> str:
        return str(self.args[0])


def check_data(data: Path, source_lang: str | None, target_lang: str | None) -> None:
    """Refuse a folder for which `translation` cannot be set up.

    Only what fairseq opens then is asked for: two dictionaries are enough to translate lines of text, and
    the binarised text may be of any `--dataset-impl`.

    Raises:
        DataError: it is missing, names no languages where none are given, or has no dictionary of one.
    """
    if not data.is_dir():
        kind = "is a file, not a folder" if data.exists() else "does not exist"
        raise DataError(f"data folder {data} {kind}")
    if source_lang is None or target_lang is None:
        if None in infer_language_pair(str(data)):
            raise DataError(
                f"{data} holds no binarised data whose names tell the languages, such as "
                "train.de-en.de.idx: make it with fairseq-preprocess, or give --source-lang and "
                "--target-lang"
            )
        return
    missing = [
        name
        for lang in (source_lang, target_lang)
        if not (data / (name := f"dict.{lang}.txt")).is_file()
    ]
    if not missing:
        return
    pairs = language_pairs(data)
    if {f"{source_lang}-{target_lang}", f"{target_lang}-{source_lang}"} & set(pairs):
        raise DataError(f"dictionary {data / missing[0]} is missing")
    if pairs:
        raise DataError(
            f"language pair {source_lang}-{target_lang} is not in {data}; it holds {', '.join(pairs)}"
        )
    raise DataError(
        f"{data} holds no binarised data of {source_lang}-{target_lang} ({missing[0]} is missing); "
        "make it with fairseq-preprocess"
    )


def _checked_setup(setup_task: Callable) -> Any:
    """A missing data folder, language pair or dictionary ends in one line that names it."""
    original = setup_task.__func__  # type: ignore[attr-defined]

    @wraps(original)
    def wrapped(cls: Any, cfg: Any, **kwargs: Any) -> Any:
        if cfg.data:
            first = str(cfg.data).split(os.pathsep)[0]
            if "://" not in first:
                check_data(Path(first), cfg.source_lang, cfg.target_lang)
        return original(cls, cfg, **kwargs)

    return classmethod(wrapped)


def _checked_load(load_dataset: Callable) -> Callable:
    """A subset that is not in the data folder ends in one line that names it, and of several folders with
    training data (`A:B`) all are there before the first epoch."""

    @wraps(load_dataset)
    def wrapped(self: Any, split: str, epoch: int = 1, *args: Any, **kwargs: Any) -> Any:
        folders = split_paths(self.cfg.data)
        if split != self.cfg.train_subset:
            folders = folders[:1]  # as fairseq
        for folder in folders[1:]:  # not in `setup_task`: with a finished model they are not needed
            if "://" not in folder and not Path(folder).is_dir():
                raise DataError(f"data folder {folder} does not exist")
        try:
            return load_dataset(self, split, epoch, *args, **kwargs)
        except FileNotFoundError as error:
            pair = f"{self.cfg.source_lang}-{self.cfg.target_lang}"
            folder = folders[(epoch - 1) % len(folders)]
            raise DataError(f"split '{split}' of {pair} is not in {folder}") from error

    return wrapped


def _read_before(getitem: Callable) -> Callable:
    """Data that was binarised with `--dataset-impl lazy` or `cached` is read without that option, and by
    `admin-nmt`: fairseq takes a cache for it, asks it for a sentence before it has filled it, and ends in
    a KeyError."""

    @wraps(getitem)
    def wrapped(self: Any, index: int) -> Any:
        if index not in self.cache_index:
            self.prefetch(range(len(self)))
        return getitem(self, index)

    return wrapped


_TASK = "fairseq.tasks.translation:TranslationTask"
PATCHES = (
    Patch(
        "fairseq.data.indexed_dataset:IndexedCachedDataset",
        "__getitem__",
        _read_before,
        Scope.FAILURES,
    ),
    Patch(_TASK, "setup_task", _checked_setup, Scope.ERRORS),
    Patch(_TASK, "load_dataset", _checked_load, Scope.ERRORS),
)
