"""`admin-nmt serve` as a process over a real model, asked as the documentation asks it."""

import json
import re
import shlex
import signal
import subprocess
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from admin_nmt.export.loading import load_translator
from admin_nmt.serve.server import work
from tests.support.odd_lines import ODD_LINES
from tests.support.pages import REPOSITORY, commands
from tests.support.programs import BIN
from tests.support.words import ENGLISH, GERMAN


def documented() -> dict[str, Any]:
    """The body of the documentation's call of curl."""
    page = (REPOSITORY / "docs" / "serve.md").read_text(encoding="utf-8")
    (command,) = (command for command in commands(page) if command.startswith("curl"))
    words = shlex.split(command)
    assert words[1].endswith(":5000/translate") and words[3] == "Content-Type: application/json"
    content: dict[str, Any] = json.loads(words[words.index("-d") + 1])
    return content


def ask(address: str, **content: Any) -> Any:
    body = json.dumps({"source": "de", "target": "en"} | content).encode()
    request = urllib.request.Request(
        f"{address}/translate", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.load(response)


def test_the_program_translates_and_ends_when_all_is_answered(exported: Path) -> None:
    server = subprocess.Popen(
        [BIN / "admin-nmt", "serve", exported, "--port", "0", "--threads", "1"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    stopped = threading.Timer(120, server.kill)
    stopped.start()
    try:
        assert server.stderr is not None
        (address,) = re.findall(r"de to en on (http://127\.0\.0\.1:\d+) ", server.stderr.readline())
        answer = ask(address, **documented())
        assert answer["translatedText"] == "dog runs." and len(answer["alternatives"]) == 1
        assert ask(address, q="\n\n".join(GERMAN))["translatedText"] == "\n\n".join(ENGLISH)
        odd = ask(address, q=[*ODD_LINES, "\ud800", GERMAN[0]])["translatedText"]
        assert len(odd) == len(ODD_LINES) + 2 and odd[-1] == ENGLISH[0]
        with ThreadPoolExecutor(40) as pool:
            asked = [pool.submit(ask, address, q=GERMAN[n % len(GERMAN)]) for n in range(40)]
            found = [answer.result()["translatedText"] for answer in asked]
            for _ in range(20):  # on a busy machine it may be answered before anybody looks
                late = pool.submit(ask, address, q=GERMAN * 20)
                while not (
                    waiting := json.load(urllib.request.urlopen(f"{address}/health"))["waiting"]
                ):
                    if late.done():
                        break
                if waiting:
                    break
            assert waiting
            server.send_signal(signal.SIGINT)
            assert late.result()["translatedText"] == ENGLISH * 20
        assert found == [ENGLISH[n % len(ENGLISH)] for n in range(40)]
        assert server.wait(60) == 0
        said = server.stderr.read()
        assert said.endswith("ended\n") and "Traceback" not in said
    finally:
        stopped.cancel()
        server.kill()
        server.wait()


def test_a_checkpoint_is_served_as_its_export_is(word_model: Path, exported: Path) -> None:
    answers = []
    for model in (word_model, exported):
        translator = load_translator(model, threads=1)
        assert translator.languages == ("de", "en")
        answers.append(work(translator, beam=3, lenpen=1.0)(2, [*GERMAN, ""]))
    assert answers[0] == answers[1]
    assert [line[0] for line in answers[0]] == [*ENGLISH, ""]
    assert [len(line) for line in answers[0]] == [2 if line else 1 for line in [*ENGLISH, ""]]
