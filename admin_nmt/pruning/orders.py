"""Orders of heads by importance, kept in a folder: none is measured twice."""

import hashlib
import json
import os
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from admin_nmt.files import make_directory
from admin_nmt.modules.head_names import Head
from admin_nmt.pruning.loading import LoadedModel
from admin_nmt.pruning.measuring import MeasuringOptions, measure
from admin_nmt.pruning.records import checksums, load_measurements, save_measurements


class MeasuredOrders:
    """Orders of the heads of one model, by importance, with some of them masked.

    Args:
        loaded: the model.
        data: its data folder.
        options: how importance is measured.
        folder: of the command's results; orders are kept under `importance/`, in a folder of the
            model's fingerprint.
        normalize: key of `NORMALIZATIONS`, by which scores of all layers and kinds are compared.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        data: str | os.PathLike[str],
        options: MeasuringOptions,
        folder: str | os.PathLike[str],
        normalize: str = "layer",
    ) -> None:
        self.loaded = loaded
        self.data = str(Path(data).absolute())
        self.options = options
        self.normalize = normalize
        self.folder = Path(folder) / "importance" / loaded.fingerprint[:16]

    @cached_property
    def _checksums(self) -> list[tuple[str, str]]:
        """Of the text that is measured on; read once, and only where an order is asked for."""
        return list(checksums(self.data, self.options.subset).items())

    def path(self, removed: Collection[Head] = ()) -> Path:
        """Where the order with the heads `removed` masked is kept: what an earlier version measured,
        which did not look at the text, else a name that changes with it."""
        options = self.options
        settings = [
            self.data, options.subset, options.granularity, options.max_tokens,
            options.max_batches, options.seed, *sorted(map(str, removed)),
        ]  # fmt: skip
        earlier = self._named_after(settings)
        return earlier if earlier.exists() else self._named_after([*settings, *self._checksums])

    def _named_after(self, settings: list[Any]) -> Path:
        name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:20]
        return self.folder / f"{name}.json"

    def order(self, removed: Collection[Head] = ()) -> list[Head]:
        """All heads, the least important first.

        Args:
            removed: heads that are masked in the model now.

        Raises:
            UserError: what is kept is damaged, or importance cannot be measured.
        """
        path = self.path(removed)
        if not path.exists():
            measurement = measure(self.options, self.loaded)
            make_directory(self.folder)
            save_measurements([measurement], path)
        # Read back in any case: what follows does not depend on when it was measured.
        return load_measurements(path)[0].order(self.normalize)
