"""What an output folder remembers: its settings, its inputs, and which steps are done.

Kept in `state.json`, rewritten atomically after every step, so that a run that was interrupted goes
on where it stopped and a run with other settings is refused instead of mixed in.
"""

import json
from pathlib import Path
from typing import Any

from admin_nmt.errors import UserError
from admin_nmt.files import sha256
from admin_nmt.json_files import read_json_object, write_json

FILE_NAME = "state.json"
#: Settings that version 0.2 recorded although they do not change the result.
IRRELEVANT = {"refuse_empty"}


def require_own_folder(folder: Path) -> None:
    """Refuse a non-empty folder that we did not create.

    Raises:
        UserError: it is not empty and has no state.
    """
    if not folder.is_dir() or (folder / FILE_NAME).exists():
        return
    if any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UserError(
            f"{folder} is not empty and was not made by admin-nmt prepare: "
            "give a new folder as --output"
        )


class State:
    """The state of one output folder.

    Args:
        folder: the output folder; it must exist.
        settings: everything that determines the result, flat and as JSON can hold it.

    Raises:
        UserError: the folder was made with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self.inputs: dict[str, dict[str, Any]] = {}
        #: Input -> time of change in ns, of the file that was compared last. Not among `inputs`, which
        #: `preparation.json` repeats: it is not the same for a copy.
        self.times: dict[str, int] = {}
        self.steps: dict[str, dict[str, Any]] = {}
        path = folder / FILE_NAME
        if path.exists():
            self._load(path)
        self._save()

    def _load(self, path: Path) -> None:
        content = read_json_object(path, f"delete {self.folder}")
        settings, steps, inputs = (content.get(key) for key in ("settings", "steps", "inputs"))
        if not (
            isinstance(settings, dict) and isinstance(steps, dict) and isinstance(inputs, dict)
        ):
            raise UserError(f"{path} is damaged; delete {self.folder}")
        # A run that finished no step made nothing that could be mixed up.
        if not steps:
            return
        differences = [
            f"{key} is {json.dumps(settings.get(key), ensure_ascii=False)} there and "
            f"{json.dumps(self.settings.get(key), ensure_ascii=False)} now"
            for key in sorted((settings.keys() | self.settings.keys()) - IRRELEVANT)
            if settings.get(key) != self.settings.get(key)
        ]
        if differences:
            raise UserError(
                f"{self.folder} was made with other settings ({'; '.join(differences)}): "
                "give another --output, or delete the folder"
            )
        self.steps, self.inputs = steps, inputs
        times = content.get("times")  # earlier versions did not record them
        self.times = times if isinstance(times, dict) else {}

    def _save(self) -> None:
        content = {
            "settings": self.settings,
            "inputs": self.inputs,
            "times": self.times,
            "steps": self.steps,
        }
        write_json(self.folder / FILE_NAME, content)

    def is_done(self, step: str) -> bool:
        """Whether the step was finished and its files are there with the sizes they had."""
        outputs = self.steps.get(step, {}).get("outputs")
        if outputs is None:
            return False
        return all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size == size
            for name, size in outputs.items()
        )

    def start(self, step: str, order: tuple[str, ...]) -> None:
        """Forget `step` and all after it in `order`, and remove what killed runs left behind."""
        for name in order[order.index(step) :]:
            self.steps.pop(name, None)
        self._save()
        for pattern in (".*.tmp", "*/.*.tmp"):
            for path in self.folder.glob(pattern):
                if path.is_file():
                    path.unlink()

    def finish(self, step: str, outputs: list[Path], info: dict[str, Any]) -> None:
        """Write down that the step is done, with its files and what it found out."""
        sizes = {str(path.relative_to(self.folder)): path.stat().st_size for path in outputs}
        self.steps[step] = {"outputs": sizes, "info": info}
        self._save()

    def info(self, step: str) -> dict[str, Any]:
        """What a finished step found out."""
        return self.steps[step]["info"]

    def require_same_inputs(self, inputs: dict[str, dict[str, Any]]) -> None:
        """Refuse inputs that are not those which the folder was made from.

        Raises:
            UserError: names the file and both checksums.
        """
        for name, value in inputs.items():
            known = self.inputs.get(name, value)
            if known["sha256"] != value["sha256"]:
                raise UserError(
                    f"{name} has changed since {self.folder} was made from it (sha256 "
                    f"{known['sha256']} then, {value['sha256']} now): give another --output, "
                    "or delete the folder"
                )

    def require_same_file(self, name: str, path: Path) -> None:
        """The same of one input; a file of the known size and time of change is not read again.

        Raises:
            UserError: as `require_same_inputs`.
        """
        found = path.stat()
        if [found.st_size, found.st_mtime_ns] == [self.inputs[name]["bytes"], self.times.get(name)]:
            return
        self.require_same_inputs({name: {"sha256": sha256(path)}})
        self.times[name] = found.st_mtime_ns
        self._save()
