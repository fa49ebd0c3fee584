"""The table of all that we change in fairseq and around it, and how it is applied and taken back.

`ADMIN_NMT_WITHOUT=batches,errors` in the environment leaves topics out; a topic is a file of this
folder. `python -m admin_nmt.host` prints the table (docs/fairseq-changes.md).
"""

import os
from collections.abc import Callable

from admin_nmt.errors import UsageError
from admin_nmt.host import (
    amp,
    batches,
    best_checkpoints,
    checkpoints,
    command_line,
    compiling,
    cpu,
    criterions,
    data,
    early_stopping,
    embedding_files,
    errors,
    exact_resume,
    fine_tuning,
    flat_weights,
    generation,
    graphs,
    heads,
    launching,
    layer_drop,
    lifeline,
    loss_scaler,
    master_weights,
    multi_tensor,
    nan_detector,
    old_options,
    options,
    profiling,
    quiet,
    rank_faults,
    recipes,
    resuming,
    scoring,
    starting,
    subword_sampling,
    unused_options,
    update_checkpoints,
    waiting,
)
from admin_nmt.host.patch import WITHOUT, Addition, Patch, topics_left_out

#: In the order in which they are applied: where two replace one attribute, the later is called first.
TABLE: tuple[Patch | Addition, ...] = (
    *quiet.PATCHES,
    *starting.PATCHES,
    *checkpoints.PATCHES,
    *embedding_files.PATCHES,
    *cpu.PATCHES,
    *command_line.PATCHES,
    *old_options.PATCHES,
    *batches.PATCHES,
    *data.PATCHES,
    *subword_sampling.PATCHES,
    *options.PATCHES,
    *generation.PATCHES,
    *scoring.PATCHES,
    *errors.PATCHES,
    *nan_detector.PATCHES,
    *resuming.PATCHES,
    *fine_tuning.PATCHES,
    *launching.PATCHES,
    *heads.PATCHES,
    *recipes.PATCHES,
    *profiling.PATCHES,
    *criterions.PATCHES,
    *unused_options.PATCHES,
    *exact_resume.PATCHES,
    *early_stopping.PATCHES,
    *flat_weights.PATCHES,
    *master_weights.PATCHES,
    *loss_scaler.PATCHES,
    *multi_tensor.PATCHES,
    *amp.PATCHES,
    *compiling.PATCHES,
    *graphs.PATCHES,
    *waiting.PATCHES,
    *best_checkpoints.PATCHES,
    *update_checkpoints.PATCHES,
    *layer_drop.PATCHES,
    *lifeline.PATCHES,
    *rank_faults.PATCHES,
)
#: Without these, our models would train with the omegas of no profile, or with other heads.
NEEDED = ("profiling", "heads")

_restore: list[Callable[[], None]] = []


def apply() -> None:
    """Apply the table, except the topics in `ADMIN_NMT_WITHOUT`; a second call changes nothing.

    Raises:
        UsageError: `ADMIN_NMT_WITHOUT` names a topic that does not exist or is needed.
    """
    if _restore:
        return
    left_out = _wanted_without()
    for change in TABLE:
        if change.topic not in left_out and change.is_wanted():
            _restore.append(change.apply())


def restore() -> None:
    """Take back what `apply` did, in the opposite order."""
    while _restore:
        _restore.pop()()


def _wanted_without() -> set[str]:
    """`topics_left_out`, each of which exists and can be left out."""
    topics = list(dict.fromkeys(change.topic for change in TABLE))
    optional = [topic for topic in topics if topic not in NEEDED]
    found = topics_left_out()
    for topic in sorted(found - set(optional)):
        raise UsageError(
            f"{WITHOUT}={os.environ[WITHOUT]}: {topic!r} cannot be left out; there are "
            f"{', '.join(optional)}"
        )
    return found
