"""The average of a run's last checkpoints, or its best checkpoint where that has the lower validation loss.

Averaging helps where the last checkpoints lie close together, at the end of a long training. After a
short one, with a learning rate that is still high, their mean can be far worse than each of them.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from admin_nmt.checkpoints.averaging import average, require_same_model
from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.checkpoints.direction import find_direction, require_fitting_vocabulary
from admin_nmt.errors import UsageError, UserError
from admin_nmt.evaluation.decoding import SearchOptions
from admin_nmt.evaluation.generation import load_ensemble
from admin_nmt.evaluation.validation_loss import nll_loss

BEST, SUBSET = "checkpoint_best.pt", "valid"
#: Entry of a checkpoint file that says what was kept, and why.
RECORD = "keep_better"


@dataclass(frozen=True)
class Better:
    """The better one of an average and the best single checkpoint.

    Attributes:
        checkpoint: the one that is kept, in the form of an average.
        is_average: whether that is the average.
        average_loss: `nll_loss` of the average on the validation set, bits per target token.
        best_loss: that of the best single checkpoint.
    """

    checkpoint: Checkpoint
    is_average: bool
    average_loss: float
    best_loss: float


def best_of_folder(inputs: Sequence[str | os.PathLike[str]]) -> Path:
    """fairseq's best checkpoint of the folder whose last ones are averaged.

    Raises:
        UsageError: there are files in place of a folder.
        UserError: the folder has no best checkpoint.
    """
    folder = Path(inputs[0])
    if len(inputs) > 1 or folder.is_file():
        raise UsageError(
            f"--keep-better compares with {BEST} of a folder: give one folder to --inputs"
        )
    if not (folder / BEST).is_file():
        raise UserError(
            f"--keep-better: {folder} has no {BEST} (a training without validation writes none); "
            "average without --keep-better"
        )
    return folder / BEST


def keep_better(
    paths: Sequence[str | os.PathLike[str]],
    best: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    source: str | None = None,
    target: str | None = None,
    cpu: bool = False,
) -> Better:
    """Average, and compare with the best single checkpoint by the loss on the validation set.

    The average is kept unless the other one is better. Loss is `nll_loss`: teacher forced, without
    label smoothing, in float32.

    Args:
        paths: checkpoints to average, the newest first.
        best: a single checkpoint of the same training.
        data: folder of binarised text with a subset `valid`.
        source: language code; None leaves it to the checkpoint and the names of the files.
        target: language code; None as well.
        cpu: do not use a GPU.

    Raises:
        UserError: a bad checkpoint or one of another model, data that do not fit, or a loss that is
            finite for neither; all but the last before anything is averaged, where that can be.
    """
    checkpoints, single = [Checkpoint.open(path) for path in paths], Checkpoint.open(best)
    require_same_model(checkpoints[0], single)
    source, target = find_direction(data, SUBSET, source, target, single.languages, option=None)
    require_fitting_vocabulary(single, data, source, target)
    (model,), task = load_ensemble(
        data, str(best), SUBSET, source, target, SearchOptions(cpu=cpu), for_search=False
    )
    best_loss = nll_loss(model, task, SUBSET)
    mean = average(checkpoints)
    model.load_state_dict(dict(mean.weights))
    average_loss = nll_loss(model, task, SUBSET)
    if not (math.isfinite(best_loss) or math.isfinite(average_loss)):
        raise UserError(f"the loss of {best} is NaN or infinite, and so is that of the average")
    # Comparisons with NaN are false: where the best checkpoint has diverged the average is kept.
    is_average = math.isfinite(average_loss) and not best_loss < average_loss
    # The mean of one checkpoint has its values in the form of an average (float32, tied).
    kept = mean if is_average else average([single])
    name = Path(best).name
    record = {
        "kept": "average" if is_average else name,
        "averaged": [str(path) for path in paths],
        "nll_loss": {"average": average_loss, name: best_loss},
        "data": str(data),
        "subset": SUBSET,
    }
    return Better(
        Checkpoint(kept.path, dict(kept.state) | {RECORD: record}),
        is_average,
        average_loss,
        best_loss,
    )
