"""Progress: a bar on a terminal, lines in a log."""

import logging

import pytest

from admin_nmt.progress import progress


def test_log_lines_say_every_place_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    monkeypatch.setattr("admin_nmt.progress.LOG_INTERVAL", 0.0)
    logger = logging.getLogger("test")
    with caplog.at_level(logging.INFO), progress(logger, "counting", "lines", total=3) as bar:
        for _ in range(3):
            bar.update()
    places = [record.getMessage().split(" [")[0] for record in caplog.records]
    assert places[-1].startswith("counting: 100%") and places[-1].endswith("3/3")
    assert len(places) == len(set(places))


def test_short_work_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(progress(logging.getLogger("test"), "counting", "lines", range(3))) == [0, 1, 2]
    assert not caplog.records
