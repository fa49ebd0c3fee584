"""One clear line instead of a traceback when a fairseq command gets bad input.

fairseq's programs end in a traceback whatever went wrong. Here a missing data folder, a language
pair that is not in it, a corrupt checkpoint, a full disk or an option that makes no sense ends in
`PROGRAM: error: ...` and exit code 1 (2 for a wrong command line). All other exceptions keep their
traceback, and `ADMIN_NMT_TRACEBACK=1` brings back every one.
"""

import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from admin_nmt.checkpoints.validation import of_another_repository
from admin_nmt.errors import UserError, out_of_memory
from admin_nmt.host.patch import Patch, Scope


def describe(error: BaseException) -> str | None:
    """The line that explains `error` to a user, or None if a traceback says more."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error.__context__, UserError):
        # fairseq's trainer puts "architectures match" in the place of every error while loading.
        return str(error.__context__)
    told = describe_failure(error)
    if told:
        return told
    if type(error) is FileExistsError and error.filename is None:  # of fairseq-preprocess
        return f"{error} exists: delete it, or give another folder"
    if isinstance(error, OSError):
        return str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
    kind = type(error).__name__
    if kind == "ProcessRaisedException":  # a rank that torch spawned
        found = re.findall(r"^admin_nmt\.\S*\w*Error: (.*)$", str(error), re.M)
        if found:
            return found[-1]
        short = re.findall(
            r"^(?:\S*OutOfMemoryError|MemoryError|RuntimeError: .*out of memory).*",
            str(error),
            re.M,
        )
        return _NO_MEMORY.format(short[-1]) if short else lost_rank(str(error))
    if kind == "ProcessExitedException":  # a rank that torch spawned was killed
        return _lost_rank_line(str(error))
    for failed in (error, error.__context__):  # of fairseq's trainer, which hides why
        if isinstance(failed, RuntimeError):
            told = _unexpected_names(str(failed)) or _other_vocabulary(str(failed))
            if told:
                return told
    return lost_rank(f"{kind}: {error}") if isinstance(error, RuntimeError) else None


#: What fairseq raises where a user can do something: kind, text, line with the groups of the text.
_KNOWN = (
    (
        AssertionError,
        r"[Ss]entences? (?:lengths|at index).* max_tokens(?:=| limit of )(\d+)",
        "a sentence is longer than --max-tokens {0} (or --max-tokens-valid): give a larger number, or "
        "leave longer sentences out by --max-source-positions {0} --max-target-positions {0} "
        "--skip-invalid-size-inputs-valid-test",
    ),
    (
        Exception,
        r"Size of sample #(\d+) is invalid \(=(.*)\) since max_positions=(.*), skip",
        "sentence {0} (counted from 0) has {1} tokens, and the model reads at most {2}: "
        "--skip-invalid-size-inputs-valid-test leaves such sentences out; admin-nmt translate and "
        "admin-nmt evaluate translate them in pieces",
    ),
    (
        AssertionError,
        r"world size is (\d+) but have (\d+) available devices",
        "--distributed-world-size {0} starts one process per GPU, and there are {1}: on CPUs "
        "scripts/train-multi-gpu.sh --cpu --procs {0} starts them, on several machines "
        "scripts/train-multi-node.sh",
    ),
    (
        AssertionError,
        r"(?:Criterion|Optimizer) does not match; please reset the optimizer .*\. (\S+) vs (\S+)",
        "the checkpoint was written by a training with {0}, and this one has {1}: give the --criterion, "
        "--optimizer and precision that it had, or {reset}",
    ),
    (
        ValueError,
        r"loaded state dict (?:contains a parameter group|has a different number of parameter groups)",
        "the checkpoint's optimizer trained other parameters than this training does (with or without "
        "--admin-freeze-omega, for example): give the options that it had, or {reset}",
    ),
    (
        ValueError,
        r"Unsupported optimizer: Fairseq(\S+)",
        "this --optimizer ({0}) has no update for weights of 16 bits alone: give --optimizer radam or adam, "
        "or --fp16 or --bf16 in place of --memory-efficient-fp16 or --memory-efficient-bf16",
    ),
    (
        FloatingPointError,
        r"gradients are Nan/Inf",
        "gradients are NaN or infinite; the log names the modules in which they arise. Lower --lr, give a "
        "longer --warmup-updates or --clip-norm 1.0: training goes on from the last checkpoint (crash.pt has "
        "the weights that failed)",
    ),
    (
        FloatingPointError,
        r"(Minimum loss scale reached \(\S+\))\.",
        "{0}: gradients overflow at every scale of --fp16. Lower --lr, give a longer --warmup-updates, or "
        "--bf16 in place of --fp16",
    ),
    (
        ValueError,
        r"--finetune-from-model (.*) does not exist",
        "--finetune-from-model {0} does not exist",
    ),
    (
        RuntimeError,
        r"Cannot resume training due to dataloader mismatch",
        "the checkpoint lies further inside its epoch than this training's epochs have batches: give the "
        "data, --max-tokens, --batch-size and number of ranks that it had, or --reset-dataloader, which "
        "keeps weights and updates and counts epochs anew",
    ),
)
#: What leaves the state of the optimizer in a checkpoint alone.
_RESET = "--reset-optimizer, which keeps the weights and counts updates anew"


def known_failure(error: BaseException) -> str | None:
    """The line for an error of fairseq whose text says what is wrong, else None.

    >>> known_failure(AssertionError("world size is 2 but have 0 available devices"))[:26]
    '--distributed-world-size 2'
    >>> known_failure(AssertionError("another one"))
    """
    for kind, pattern, line in _KNOWN:
        found = re.search(pattern, str(error)) if type(error) is kind else None
        if found:
            return re.sub(r"np\.int64\((\d+)\)", r"\1", line.format(*found.groups(), reset=_RESET))
    return None


_NO_MEMORY = "out of memory ({}); smaller batches need less: lower --max-tokens or --batch-size"


def describe_failure(error: BaseException) -> str | None:
    """The line for too little memory, or for an error of fairseq that says what is wrong, else None."""
    return _NO_MEMORY.format(first_line(error)) if out_of_memory(error) else known_failure(error)


def first_line(error: BaseException) -> str:
    """Kind and text of an error, as far as they fit into one short line.

    >>> first_line(ValueError("first\\nsecond"))
    'ValueError: first'
    """
    line = f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(": ")
    return line if len(line) <= 300 else f"{line[:297]}..."


#: Part of the names of embeddings, of which at least one has a row for each word.
_EMBEDDING_KEY = ".embed_tokens."


def _unexpected_names(text: str) -> str | None:
    """The line for weights of another repository, which PyTorch refuses to load by their names."""
    unexpected = re.findall(r"Unexpected key\(s\) in state_dict: (.*)", text)
    told = of_another_repository(re.findall(r'"([^"]+)"', "".join(unexpected)))
    return f"the checkpoint {told}" if told else None


def _other_vocabulary(text: str) -> str | None:
    """The line for embeddings of another number of words, where nothing else differs."""
    sizes = re.findall(
        r"size mismatch for (\S+): .*?torch.Size\(\[(\d+), (\d+)\]\) from checkpoint, .*?"
        r"torch.Size\(\[(\d+), (\d+)\]\)",
        text,
    )
    words = [
        (old, new) for name, old, d, new, width in sizes if _EMBEDDING_KEY in name and d == width
    ]
    if not words or "Unexpected key" in text or "Missing key" in text:
        return None
    return (
        f"the checkpoint knows {words[0][0]} words, the data {words[0][1]}: use the data that it was "
        "trained on, or give it this vocabulary by 'admin-nmt extend-vocabulary' and train on from that "
        "with --finetune-from-model"
    )


def resume_line(what: str) -> str:
    """The line for the end of a training because of another rank, which `what` says."""
    return (
        f"{what}; see its log, then run the same command again: training resumes from the last "
        "checkpoint"
    )


def _lost_rank_line(how: str) -> str:
    return resume_line(f"another rank ended or cannot be reached ({how})")


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
    return _lost_rank_line(found[0]) if found else None


def collective_failed(error: BaseException) -> bool:
    """Whether an operation of torch.distributed failed, which another rank may have caused."""
    return isinstance(error, RuntimeError) and bool(
        _COLLECTIVE.search(f"{type(error).__name__}: {error}")
    )


def program() -> str:
    """The name of the program that runs."""
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "fairseq"


def _exit_with(error: BaseException, line: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"{program()}: error: {line}\n")
    raise SystemExit(getattr(error, "exit_code", 1))


def _wants_traceback() -> bool:
    return os.environ.get("ADMIN_NMT_TRACEBACK") == "1"


def clean_exit(call_main: Callable) -> Callable:
    """Training programs end in one line instead of a traceback where a user can fix the cause."""

    @wraps(call_main)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return call_main(*args, **kwargs)
        except Exception as error:
            line = None if _wants_traceback() else describe(error)
            if line is None:
                raise
            _exit_with(error, line)

    return wrapped


def _excepthook(previous: Callable) -> Callable:
    """The same for `fairseq-generate`, `fairseq-preprocess` and other programs that do not start
    through `call_main`."""

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


def _is_fairseq_program() -> bool:
    return program().startswith("fairseq-")


PATCHES = (
    Patch("fairseq.distributed.utils", "call_main", clean_exit, Scope.ERRORS),
    Patch("sys", "excepthook", _excepthook, Scope.ERRORS, applies=_is_fairseq_program),
)
