"""Results of one stage: a JSON file and a readable table, both written anew with every row."""

from pathlib import Path
from typing import Any

from tabulate import tabulate

from admin_nmt.files import atomic_write
from admin_nmt.json_files import read_json, write_json

#: How a stage may end, besides `running`, which a stage that was killed leaves behind.
PASSED, FAILED, SKIPPED, OUT_OF_TIME = "passed", "failed", "skipped", "out of time"


def described(error: BaseException) -> str:
    """An exception in one line, with the one that it came from: what is raised while another one is
    handled, such as at the end of a recording, says little."""
    first = error
    while first.__context__ is not None and not first.__suppress_context__:
        first = first.__context__
    lines = [
        f"{type(found).__name__}: {(str(found).splitlines() or [''])[0]}"[:200]
        for found in (error, first)
    ]
    return lines[0] if error is first else f"{lines[1]}; then {lines[0]}"


class Report:
    """What a stage has found so far; whole on disk at any moment.

    Args:
        folder: an existing folder; `STAGE.json` and `STAGE.txt` go there.
        stage: its name.
        about: facts that hold for all rows, such as the device.
    """

    def __init__(self, folder: Path, stage: str, **about: Any) -> None:
        self.folder, self.stage = folder, stage
        self.content: dict[str, Any] = {"stage": stage, "status": "running", "reason": "", **about}
        self.content["tables"] = {}
        self.failures: list[str] = []
        self._write()

    def row(self, table: str, **values: Any) -> None:
        """Add a row to one of the stage's tables."""
        self.content["tables"].setdefault(table, []).append(values)
        self._write()

    def check(self, table: str, what: str, passed: bool, **values: Any) -> None:
        """Add a row that says whether `what` is as it must be; one that is not fails the stage."""
        if not passed:
            self.fail(what)
        self.row(table, check=what, ok="yes" if passed else "NO", **values)

    def fail(self, what: str) -> None:
        """Go on, but the stage will have failed because of `what`."""
        self.failures.append(what)

    def finish(self) -> None:
        """The stage has come to its end."""
        reason = f"{len(self.failures)} failed: {'; '.join(self.failures[:3])}"
        self.end(FAILED if self.failures else PASSED, reason if self.failures else "")

    def end(self, status: str, reason: str) -> None:
        """The stage ends here, with a reason in one line."""
        self.content.update(status=status, reason=reason)
        self._write()

    def _write(self) -> None:
        write_json(self.folder / f"{self.stage}.json", self.content)
        with atomic_write(self.folder / f"{self.stage}.txt") as stream:
            stream.write(render(self.content))


def render(content: dict[str, Any]) -> str:
    """A stage's results as text: its status, its facts, its tables."""
    reason = f": {content['reason']}" if content["reason"] else ""
    lines = [f"{content['stage']}: {content['status']}{reason}"]
    known = ("stage", "status", "reason", "tables")
    lines += [f"  {name}: {value}" for name, value in content.items() if name not in known]
    for name, rows in content["tables"].items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        cells = [[row.get(column, "") for column in columns] for row in rows]
        table = tabulate(cells, columns, tablefmt="github", floatfmt=".4g")
        lines += ["", name, "", table]
    return "\n".join(lines) + "\n"


def outcome(folder: Path, stage: str) -> dict[str, Any]:
    """What `stage` has left in `folder`, if only that it left nothing."""
    path = folder / f"{stage}.json"
    if not path.exists():
        return {"stage": stage, "status": "running", "reason": "", "tables": {}}
    return read_json(path)
