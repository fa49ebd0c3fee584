"""One clear line instead of a traceback when a fairseq command gets bad input.

fairseq's programs end in a traceback whatever went wrong. Here a missing data folder, a language
pair that is not in it, a corrupt checkpoint, a full disk or an option that makes no sense ends in
`PROGRAM: error: ...` and exit code 1 (2 for a wrong command line). All other exceptions keep their
traceback, and `ADMIN_NMT_TRACEBACK=1` brings back every one.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from admin_nmt.errors import UserError


class DataError(UserError, FileNotFoundError):
    """Binarised data is missing; still the `FileNotFoundError` that callers of fairseq expect."""

    def __str__(self) -> str:
        return str(self.args[0])


def install() -> None:
    """Patch fairseq's data loading, saving and start; calling it again changes nothing."""
    from fairseq import checkpoint_utils
    from fairseq.distributed import utils as distributed_utils
    from fairseq.tasks.translation import TranslationTask

    if hasattr(distributed_utils.call_main, "_admin_nmt_patch"):
        return
    TranslationTask.setup_task = classmethod(_checked_setup(TranslationTask.setup_task.__func__))
    TranslationTask.load_dataset = _checked_load(TranslationTask.load_dataset)
    checkpoint_utils.torch_persistent_save = _checked_save(checkpoint_utils.torch_persistent_save)
    distributed_utils.call_main = clean_exit(distributed_utils.call_main)
    if _program().startswith("fairseq-"):
        # fairseq-generate and fairseq-preprocess do not start through `call_main`.
        sys.excepthook = _excepthook(sys.excepthook)


def _program() -> str:
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "fairseq"


def describe(error: BaseException) -> str | None:
    """The line that explains `error` to a user, or None if a traceback says more."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error.__context__, UserError):
        # fairseq's trainer puts "architectures match" in the place of every error while loading.
        return str(error.__context__)
    if isinstance(error, OSError):
        return str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
    kind = type(error).__name__
    if kind == "ProcessRaisedException":  # a rank that torch spawned
        found = re.findall(
            r"^admin_nmt\.\S*(?:UserError|UsageError|DataError): (.*)$", str(error), re.M
        )
        return found[-1] if found else lost_rank(str(error))
    if kind == "ProcessExitedException":  # a rank that torch spawned was killed
        return _LOST_RANK_LINE.format(str(error))
    return lost_rank(f"{kind}: {error}") if isinstance(error, RuntimeError) else None


_LOST_RANK_LINE = (
    "another rank ended or cannot be reached ({}); see its log, then run the same command again: "
    "training resumes from the last checkpoint"
)
_COLLECTIVE = re.compile(r"gloo|NCCL|ProcessGroup|TCPStore|\bDist(?:Backend|Network|Store)Error\b")
_LOST = re.compile(
    r"connection (?:closed|reset) by peer|connection refused|broken pipe"
    r"|timed out[^.\n]{0,60}|remote process exit(?:ed|ing)",
    re.IGNORECASE,
)


def lost_rank(text: str) -> str | None:
    """The line for an error of torch.distributed that says that a rank is gone, else None.

    PyTorch has no exception type for it: gloo raises a plain RuntimeError.
    """
    found = _LOST.search(text) if _COLLECTIVE.search(text) else None
    return _LOST_RANK_LINE.format(found[0]) if found else None


def _exit_with(error: BaseException, line: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"{_program()}: error: {line}\n")
    raise SystemExit(getattr(error, "exit_code", 1))


def _wants_traceback() -> bool:
    return os.environ.get("ADMIN_NMT_TRACEBACK") == "1"


def clean_exit(call_main: Callable) -> Callable:
    """A start function of fairseq that ends in one line instead of a traceback."""

    @wraps(call_main)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return call_main(*args, **kwargs)
        except Exception as error:
            line = None if _wants_traceback() else describe(error)
            if line is None:
                raise
            _exit_with(error, line)

    wrapped._admin_nmt_patch = True  # type: ignore[attr-defined]
    return wrapped


def _excepthook(previous: Callable) -> Callable:
    def hook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        line = None if _wants_traceback() else describe(error)
        if line is None:
            previous(kind, error, traceback)
            return
        try:
            _exit_with(error, line)
        except SystemExit as leave:
            # An exception hook cannot choose the exit code except by leaving at once.
            sys.stderr.flush()
            os._exit(int(leave.code or 1))

    return hook


def language_pairs(data: Path) -> list[str]:
    """Language pairs binarised in a folder, such as `["de-en"]`."""
    names = (entry.name for entry in data.iterdir())
    found = (re.fullmatch(r"[^.]+\.([^.]+-[^.]+)\.[^.]+\.(?:idx|bin)", name) for name in names)
    return sorted({match[1] for match in found if match})


def check_data(data: Path, source_lang: str | None, target_lang: str | None) -> None:
    """Refuse a folder from which `translation` cannot load this language pair.

    Raises:
        DataError: it is missing, not binarised, or holds other pairs only.
    """
    if not data.is_dir():
        kind = "is a file, not a folder" if data.exists() else "does not exist"
        raise DataError(f"data folder {data} {kind}")
    pairs = language_pairs(data)
    if not pairs:
        raise DataError(f"{data} holds no binarised data; make it with fairseq-preprocess")
    if source_lang is None or target_lang is None:
        return
    if not {f"{source_lang}-{target_lang}", f"{target_lang}-{source_lang}"} & set(pairs):
        raise DataError(
            f"language pair {source_lang}-{target_lang} is not in {data}; it holds {', '.join(pairs)}"
        )
    for lang in (source_lang, target_lang):
        if not (data / f"dict.{lang}.txt").is_file():
            raise DataError(f"dictionary {data / f'dict.{lang}.txt'} is missing")


def _checked_setup(setup_task: Callable) -> Callable:
    @wraps(setup_task)
    def wrapped(cls: Any, cfg: Any, **kwargs: Any) -> Any:
        if cfg.data:
            first = str(cfg.data).split(os.pathsep)[0]
            if "://" not in first:
                check_data(Path(first), cfg.source_lang, cfg.target_lang)
        return setup_task(cls, cfg, **kwargs)

    return wrapped


def _checked_load(load_dataset: Callable) -> Callable:
    @wraps(load_dataset)
    def wrapped(self: Any, split: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return load_dataset(self, split, *args, **kwargs)
        except FileNotFoundError as error:
            pair = f"{self.cfg.source_lang}-{self.cfg.target_lang}"
            raise DataError(f"split '{split}' of {pair} is not in {self.cfg.data}") from error

    return wrapped


def _tensor_bytes(value: Any) -> int:
    """Bytes of all tensors inside nested containers; shared storage counts as often as it shows."""
    if hasattr(value, "untyped_storage"):
        return value.numel() * value.element_size()
    children: Iterable[Any] = ()
    if isinstance(value, dict):
        children = value.values()
    elif isinstance(value, list | tuple):
        children = value
    return sum(_tensor_bytes(child) for child in children)


def _checked_save(save: Callable) -> Callable:
    """Refuse to start writing a checkpoint that the disk cannot hold.

    fairseq tries three times, logs a traceback for each and leaves a partial temporary file.
    """

    @wraps(save)
    def torch_persistent_save(obj: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        folder = Path(filename).parent
        if folder.is_dir():
            # Parameters that share memory are written once: half is a safe lower bound.
            needed, free = _tensor_bytes(obj) // 2, shutil.disk_usage(folder).free
            if free < needed:
                raise UserError(
                    f"disk full: checkpoint {filename} needs at least {needed / 2**20:.0f} MiB, "
                    f"{free / 2**20:.0f} MiB are free; free some space and run the command again"
                )
        return save(obj, filename, *args, **kwargs)

    return torch_persistent_save
