"""Values of fairseq's options on data and generation that its own code does not understand."""

import ast
import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from admin_nmt.errors import UsageError, require_at_least_one
from admin_nmt.host.patch import Patch, Scope

#: What `--replace-unk` without a file is on fairseq's command line.
_NO_FILE = "@@ "


def _by_subset(find_extra_valid_paths: Callable) -> Callable:
    """`--valid-subset valid,valid1` takes both: fairseq compares the names of subsets with names of
    files (`valid1.de-en`), finds none of them and stops."""

    @wraps(find_extra_valid_paths)
    def wrapped(dataset_path: str) -> set[str]:
        return {Path(name).name.split(".")[0] for name in find_extra_valid_paths(dataset_path)}

    return wrapped


def _ignored_in_one_line(raise_if_ignored: Callable) -> Callable:
    """Validation sets in DATA that are not named by `--valid-subset` end in one line."""

    @wraps(raise_if_ignored)
    def wrapped(train_cfg: Any) -> None:
        try:
            raise_if_ignored(train_cfg)
        except ValueError as error:
            raise UsageError(
                f"{error} Or name them: --valid-subset {train_cfg.dataset.valid_subset},..."
            ) from error

    return wrapped


def _once_by_default(load_langpair_dataset: Callable) -> Callable:
    """`train` and `train1` in one folder are joined: the default of `--upsample-primary`, -1, means
    once (fairseq repeats the first set -1 times and stops in numpy)."""
    signature = inspect.signature(load_langpair_dataset)

    @wraps(load_langpair_dataset)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        times = given.arguments["upsample_primary"]
        if times == -1:
            given.arguments["upsample_primary"] = 1
        else:
            require_at_least_one("--upsample-primary", times)
        return load_langpair_dataset(*given.args, **given.kwargs)

    return wrapped


def _without_a_file(load_align_dict: Callable) -> Callable:
    """`--replace-unk` without a file copies source words: fairseq's command line gives `@@ `, the
    mark of an older option, and its code then opens a file of that name."""

    @wraps(load_align_dict)
    def wrapped(replace_unk: str | None) -> Any:
        return load_align_dict("" if replace_unk == _NO_FILE else replace_unk)

    return wrapped


def _of_a_task(get_validation_parser: Callable) -> Callable:
    """`fairseq-validate` without `--task` takes the checkpoint's: fairseq looks up the options of the
    task `None` and ends in a KeyError. What the command line gives for `translation` is accepted."""

    @wraps(get_validation_parser)
    def wrapped(default_task: str | None = None) -> Any:
        return get_validation_parser(default_task or "translation")

    return wrapped


def require_dictionary(option: str, value: str) -> None:
    """Refuse a value that is not a dictionary in Python's notation.

    Raises:
        UsageError: it is not.

    >>> require_dictionary("--model-overrides", "{'dropout': 0.1}")
    """
    try:
        readable = isinstance(ast.literal_eval(value), dict)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        readable = False
    if not readable:
        raise UsageError(
            f"{option} {value}: give a dictionary as Python writes it, such as \"{{'dropout': 0.1}}\""
        )


def _overrides_in_one_line(parse: Callable) -> Callable:
    """`--model-overrides` with another thing than a dictionary ends in one line, before anything is
    loaded."""

    @wraps(parse)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        parsed = parse(*args, **kwargs)
        found = parsed[0] if isinstance(parsed, tuple) else parsed
        require_dictionary("--model-overrides", getattr(found, "model_overrides", None) or "{}")
        return parsed

    return wrapped


_DATA_UTILS = "fairseq.data.data_utils"
PATCHES = (
    Patch(_DATA_UTILS, "_find_extra_valid_paths", _by_subset, Scope.FAILURES),
    Patch(
        _DATA_UTILS,
        "raise_if_valid_subsets_unintentionally_ignored",
        _ignored_in_one_line,
        Scope.ERRORS,
    ),
    Patch("fairseq.tasks.translation", "load_langpair_dataset", _once_by_default, Scope.FAILURES),
    Patch("fairseq.utils", "load_align_dict", _without_a_file, Scope.FAILURES),
    Patch("fairseq.options", "parse_args_and_arch", _overrides_in_one_line, Scope.ERRORS),
    Patch("fairseq.options", "get_validation_parser", _of_a_task, Scope.FAILURES),
)
