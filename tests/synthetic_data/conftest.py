"""An interrupt while a training set is translated, and dry runs of the scripts."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.synthetic_data import translating
from tests.support.programs import BIN


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """`interrupt(n)`: the n-th part to be translated is interrupted, the others are not; returns a list
    to which every part adds its number of lines."""

    def at(number: int) -> list[int]:
        translate: Callable[..., Any] = translating._translate
        calls: list[int] = []

        def interrupted(backend: Any, lines: Any, *rest: Any) -> Any:
            calls.append(len(lines))
            if len(calls) == number:
                raise KeyboardInterrupt
            return translate(backend, lines, *rest)

        monkeypatch.setattr(translating, "_translate", interrupted)
        return calls

    return at


@pytest.fixture
def dry_run(tmp_path: Path) -> Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]:
    """`dry_run(script, *words)` in `tmp_path`, with programs that only write down how they were called:
    the process and the calls."""
    for program in ("admin-nmt", "fairseq-train", "python"):  # an environment has a python
        stub = tmp_path / program
        stub.write_text(f'#!/bin/sh\necho {program} "$@" >> {tmp_path}/calls\n')
        stub.chmod(0o755)
    env = os.environ | {"ADMIN_NMT_VENV": "", "PATH": f"{tmp_path}:{BIN}:{os.environ['PATH']}"}
    scripts = Path(__file__).parents[2] / "scripts"

    def run(script: str, *words: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        calls = tmp_path / "calls"
        calls.write_text("")
        done = subprocess.run(
            ["bash", str(scripts / script), *words],
            capture_output=True, text=True, env=env, cwd=tmp_path,
        )  # fmt: skip
        return done, calls.read_text().splitlines()

    return run
