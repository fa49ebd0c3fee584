"""Progress: a bar on a terminal, lines in a log."""

import io
import logging
import time

import pytest

from admin_nmt.cli._streams import open_output
from admin_nmt.progress import LogHandler, clock, progress


class Terminal(io.StringIO):
    """Remembers what was written to it; bytes, as to standard output, too."""

    def isatty(self) -> bool:
        return True

    @property
    def buffer(self) -> "Terminal":
        return self

    def write(self, text: str | bytes) -> int:
        return super().write(text.decode() if isinstance(text, bytes) else text)

    def lines(self) -> list[str]:
        """What a terminal shows."""
        shown = []
        for line in self.getvalue().split("\n"):
            cells: list[str] = []
            for text in line.split("\r"):
                cells[: len(text)] = text
            shown.append("".join(cells).rstrip())
        return shown


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """A logger whose lines come as often as the bar would be drawn."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    monkeypatch.setattr("admin_nmt.progress.LOG_INTERVAL", 0.0)
    caplog.set_level(logging.INFO)
    return logging.getLogger("test")


def test_log_lines_say_every_place_once(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    with progress(log, "counting", "lines", total=3) as bar:
        for _ in range(3):
            bar.update()
    places = [message.split(" [")[0] for message in caplog.messages]
    assert places[-1].startswith("counting: 100%") and places[-1].endswith("3/3")
    assert len(places) == len(set(places))


def test_log_lines_are_evenly_spaced(
    log: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where work slows down, after tqdm has guessed how many iterations a line takes."""
    monkeypatch.setattr("admin_nmt.progress.LOG_INTERVAL", 10.0)
    now = [0.0]
    with progress(log, "counting", "lines", total=200) as bar:
        bar._time = lambda: now[0]
        bar.start_t = bar.last_print_t = 0.0
        for _ in range(100):
            now[0] += 0.5
            bar.update()
        for _ in range(100):
            now[0] += 5
            bar.update()
    seconds = [record.args[0].split("[")[1][:5] for record in caplog.records]  # type: ignore[index, union-attr]
    assert seconds[:7] == ["00:10", "00:20", "00:30", "00:40", "00:50", "01:00", "01:10"]


def test_short_work_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(progress(logging.getLogger("test"), "counting", "lines", range(3))) == [0, 1, 2]
    assert not caplog.records


def test_the_clock_of_a_step_goes_on(
    log: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admin_nmt.progress.TICK", 0.01)
    with clock(log, "learning"):
        time.sleep(0.1)
    assert "learning: 00:00" in caplog.messages


def test_output_and_log_lines_stand_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    logger = logging.Logger("test")
    logger.addHandler(LogHandler())
    with progress(logger, "translating", "lines", total=2) as bar, open_output(None) as write:
        write("A dog runs.\n")
        bar.update()
        logger.warning("line 2 is long")
        write("A woman sings.\n")
        bar.update()
    *texts, bar_line, rest = terminal.lines()
    assert texts == ["A dog runs.", "line 2 is long", "A woman sings."]
    assert bar_line.startswith("translating: 100%") and rest == ""
