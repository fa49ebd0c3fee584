"""Errors a user can fix: shown as one line, never as a traceback."""

#: Of numpy and CTranslate2.
LARGEST_SEED = 2**32 - 1


class UserError(Exception):
    """Something the user gave is wrong: a file, an option, a value.

    The message is one line that names it and says what to do. Command-line programs print the
    message and exit with `exit_code`.
    """

    exit_code = 1


class UsageError(UserError):
    """The command line itself is wrong (unknown choice, options that exclude each other)."""

    exit_code = 2


def require_at_least_one(option: str, value: float | None) -> None:
    """Refuse numbers under 1 (and NaN) for an option that counts; None is an option not given.

    Raises:
        UsageError: names the option and the value.
    """
    if value is not None and not value >= 1:
        raise UsageError(f"{option} {value}: give a number of at least 1")


def require_length_penalty(value: float) -> None:
    """Refuse exponents of the length (`--lenpen`) under which scores are no numbers any more.

    Raises:
        UsageError: names the option and the value.
    """
    if not abs(value) <= 10:  # 1,000 tokens to this power still fit into float32
        raise UsageError(f"--lenpen {value}: give a number from -10 to 10")


def require_seed(seed: int) -> None:
    """Refuse numbers that numpy and CTranslate2 do not take as a `--seed`.

    Raises:
        UsageError: names the option and the value.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"--seed {seed}: give a number of at least 0 and at most {LARGEST_SEED}")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, of a GPU or of the host."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(word in str(error) for word in ("out of memory", "DefaultCPUAllocator"))
    )
