"""In which direction a checkpoint translates a data folder, and whether it fits its vocabulary."""

import os
from pathlib import Path

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.data.data_folder import dictionary_size, pairs_of
from admin_nmt.errors import UsageError, UserError


def find_direction(
    data: str | os.PathLike[str],
    subset: str,
    source: str | None,
    target: str | None,
    trained: tuple[str | None, str | None] = (None, None),
    option: str | None = "--gen-subset",
) -> tuple[str, str]:
    """The languages (source, target) in which to translate `subset` of the folder `data`.

    What is not given is taken from `trained`, the direction of the checkpoint, if the folder has
    those languages, else from the names of the files, provided that they leave no choice. `option` names
    the subset, for messages; None if none does.

    Raises:
        UserError: no folder, or it has no such subset, or not in these languages.
        UsageError: several directions are possible, or the one asked for is the reverse of the
            checkpoint's.
    """
    pairs = pairs_of(data, subset, option)
    # Each once: a folder can hold files for both directions.
    directions = dict.fromkeys(pair for a, b in pairs for pair in ((a, b), (b, a)))
    wanted = [
        pair for pair in directions if source in (None, pair[0]) and target in (None, pair[1])
    ]
    if not wanted:
        raise UserError(
            f"{data} has no subset {subset} for --source-lang {source or 'any'} --target-lang "
            f"{target or 'any'}; it has {', '.join('-'.join(pair) for pair in pairs)}"
        )
    if len(wanted) > 1 and trained in wanted:
        wanted = [pair for pair in wanted if pair == trained]
    if len(wanted) > 1:
        # fairseq names files source-target, so that order is the default of a single pair.
        wanted = [pair for pair in wanted if pair in pairs]
    if len(wanted) != 1:
        raise UsageError(
            f"{data} holds {subset} for {', '.join('-'.join(pair) for pair in pairs)}: "
            "give --source-lang and --target-lang"
        )
    if wanted[0] == trained[::-1]:
        # With dictionaries of equal size, or a joint one, fairseq would translate into nonsense.
        raise UsageError(
            f"--source-lang {wanted[0][0]} --target-lang {wanted[0][1]}: the checkpoint was trained "
            f"to translate from {trained[0]} to {trained[1]}"
        )
    return wanted[0]


def require_fitting_vocabulary(
    checkpoint: Checkpoint, data: str | os.PathLike[str], source: str, target: str
) -> None:
    """Refuse a checkpoint whose embeddings have another number of rows than the dictionaries.

    Raises:
        UserError: naming the checkpoint, the dictionary and both sizes.
    """
    for side, language in (("encoder", source), ("decoder", target)):
        dictionary = Path(data) / f"dict.{language}.txt"
        embedding = checkpoint.weights.get(f"{side}.embed_tokens.weight")
        size = dictionary_size(dictionary)
        if embedding is not None and embedding.shape[0] != size:
            raise UserError(
                f"checkpoint {checkpoint.path} does not fit the vocabulary of {data}: its {side} "
                f"knows {embedding.shape[0]} types, {dictionary} has {size}; "
                "use the data folder it was trained on, or the other translation direction"
            )
