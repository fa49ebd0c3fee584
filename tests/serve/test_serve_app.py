"""The application under uvicorn: many requests at once, limits, errors, clients that go, the end."""

import http.client
import json
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest

from admin_nmt.cli.main import main
from admin_nmt.serve.messages import Offer
from admin_nmt.serve.server import listen, url
from tests.support.serving import Shouting, served


def test_of_200_requests_at_once_none_is_lost_or_mixed_up(shouting: Shouting) -> None:
    shouting.may_go.clear()
    with served(shouting) as server, ThreadPoolExecutor(200) as pool:

        def ask(number: int) -> object:
            lines = [f"{number} zeile {line}" for line in range(1 + number % 4)]
            status, answer, _ = server.ask(
                q="\n".join(lines) if number % 2 else lines, alternatives=number % 3
            )
            assert status == 200
            found = answer["translatedText"]
            others = answer.get("alternatives", [])
            assert (found.split("\n") if number % 2 else found) == [x.upper() for x in lines]
            assert len(others if number % 2 else others[:1] and others[0]) == number % 3
            return found

        answers = [pool.submit(ask, number) for number in range(200)]
        total = sum(1 + number % 4 for number in range(200))
        # All have arrived, one batch is held up and the others wait for it.
        server.wait_until(lambda health: health["waiting"] + len(shouting.calls[0][1]) == total)
        shouting.may_go.set()
        assert len({str(answer.result(30)) for answer in answers}) == 200
        server.wait_until(lambda health: health["lines"] == total)
        assert server.ask("/health")[1]["batches"] == len(shouting.calls)
    # 500 lines of three kinds of request, at most 64 in a batch.
    assert total == 500 and 8 <= len(shouting.calls) <= 12
    assert max(len(lines) for _, lines in shouting.calls) == 64
    assert all(len({int(x.split()[0]) % 3 for x in lines}) == 1 for _, lines in shouting.calls)


def test_answers_of_every_kind(shouting: Shouting) -> None:
    with served(shouting) as server:
        status, answer, response = server.ask(q="grün\r\n\r\nist\n")
        assert (status, answer) == (200, {"translatedText": "GRÜN\r\n\r\nIST\n"})
        assert response.headers["content-type"] == "application/json"
        form = "q=gr%C3%BCn&source=auto&target=en"
        assert server.ask(content=form, kind="application/x-www-form-urlencoded")[1] == {
            "translatedText": "GRÜN"
        }
        assert server.ask(q="a", alternatives=2)[1]["alternatives"] == ["A2", "A3"]
        assert server.ask("/languages")[1] == [
            {"code": "de", "name": "de", "targets": ["en"]},
            {"code": "en", "name": "en", "targets": []},
        ]
        assert server.ask("/health")[1]["status"] == "ok"
        settings = server.ask("/frontend/settings")[1]
        assert settings["charLimit"] == 1000 and settings["language"]["target"]["code"] == "en"


def test_errors_are_json_of_one_line(shouting: Shouting) -> None:
    with served(shouting) as server:
        for status, path, content, word in (
            (400, "/translate", "{", "the body cannot be read"),
            (400, "/translate", '{"q": "a", "source": "xx", "target": "en"}', "xx is not supported"),
            (413, "/translate", json.dumps({"q": "a" * 1001, "source": "de", "target": "en"}), "1000"),
            (413, "/translate", " " * 20_000, "16096 bytes"),
            (404, "/nowhere", None, "GET /nowhere: Not Found"),
            (405, "/translate", None, "GET /translate: Method Not Allowed"),
        ):  # fmt: skip
            found, answer, _ = server.ask(path, content)
            assert (found, list(answer)) == (status, ["error"])
            assert word in answer["error"] and "\n" not in answer["error"]
    assert not shouting.calls


def test_a_body_without_end_is_not_read_to_its_end(shouting: Shouting) -> None:
    with served(shouting) as server:
        connection = server.connect()
        connection.putrequest("POST", "/translate")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for _ in range(5):
            connection.send(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        assert connection.getresponse().status == 413
        connection.close()


def test_a_client_that_asks_too_often_is_told_when_to_come_back(shouting: Shouting) -> None:
    with served(shouting, req_limit=3) as server:
        answers = [server.ask(q="a") for _ in range(4)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 429]
        _, answer, response = answers[-1]
        assert answer["error"].startswith("more than 3 requests a minute: wait ")
        assert 1 <= int(response.headers["retry-after"]) <= 20
        assert server.ask("/health")[0] == 200
    assert len(shouting.calls) == 3


def test_a_line_that_cannot_be_translated_harms_nobody_else(shouting: Shouting) -> None:
    with served(shouting, wait=0.2) as server, ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda q: server.ask(q=q)[:2], ("good", "bad", "fine")))
        assert [status for status, _ in found] == [200, 500, 200]
        assert found[1][1] == {"error": "the translation failed; the server's log says why"}
        assert server.ask(q="later")[1] == {"translatedText": "LATER"}


def test_what_a_client_that_left_had_asked_for_is_left_out(
    shouting: Shouting, caplog: pytest.LogCaptureFixture
) -> None:
    shouting.may_go.clear()
    with served(shouting) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.ask, q="first")
        server.wait_until(lambda health: bool(shouting.calls))
        connection = server.connect()
        connection.request("POST", "/translate", '{"q": "left", "source": "de", "target": "en"}')
        server.wait_until(lambda health: health["waiting"] == 1)
        connection.close()
        server.wait_until(lambda health: health["waiting"] == 0)
        last = pool.submit(server.ask, q="last")
        server.wait_until(lambda health: health["waiting"] == 1)
        shouting.may_go.set()
        assert first.result()[1]["translatedText"] == "FIRST"
        assert last.result()[1]["translatedText"] == "LAST"
    assert shouting.calls == [(1, ["first"]), (1, ["last"])]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_more_than_may_wait_is_refused_at_once(shouting: Shouting) -> None:
    shouting.may_go.clear()
    offer = Offer("de", "en", char_limit=30_000)
    with served(shouting, offer=offer) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.ask, q=["a"] * 15_000)
        server.wait_until(lambda health: health["waiting"] == 15_000 - 64)
        status, answer, response = server.ask(q=["a"] * 15_000)
        assert (status, answer["error"]) == (503, "too much text is waiting: try again later")
        assert response.headers["retry-after"] == "5"
        shouting.may_go.set()
        assert first.result()[1]["translatedText"] == ["A"] * 15_000


def test_requests_that_outlast_the_end_are_told(
    shouting: Shouting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In JSON, as all errors; and the server ends with the batch that is translated."""
    monkeypatch.setattr("admin_nmt.serve.server.GRACE", 1)
    shouting.may_go.clear()
    with served(shouting) as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.ask, q="line")
        server.wait_until(lambda health: bool(shouting.calls))
        server.server.should_exit = True
        status, said, response = answer.result(30)
        assert (status, said) == (503, {"error": "the server is ending: try again later"})
        assert response.headers["retry-after"] == "5"
        assert server.thread.is_alive()
        shouting.may_go.set()
        server.thread.join(30)
        assert not server.thread.is_alive()
    assert "Traceback" not in caplog.text


def test_the_end_waits_for_answers_and_takes_no_more_requests(shouting: Shouting) -> None:
    shouting.may_go.clear()
    with served(shouting) as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.ask, q=[f"line {number}" for number in range(100)])
        server.wait_until(lambda health: health["waiting"] == 36)
        server.server.should_exit = True
        server.thread.join(0.5)
        assert server.thread.is_alive()
        shouting.may_go.set()
        assert answer.result(30)[1]["translatedText"][99] == "LINE 99"
        server.thread.join(30)
        assert not server.thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        server.ask("/health")
    assert not [t for t in threading.enumerate() if t.name.startswith("batcher")]


def test_the_page_is_self_contained_and_may_ask_nobody_else(shouting: Shouting) -> None:
    with served(shouting) as server:
        connection = server.connect()
        connection.request("GET", "/")
        response = connection.getresponse()
        html = response.read().decode("utf-8")
        connection.close()
    assert html == (files("admin_nmt.serve") / "page.html").read_text(encoding="utf-8")
    assert "innerHTML" not in html and "://" not in html and "import" not in html
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'; connect-src 'self'" in policy and "unsafe" not in policy
    assert policy.count("'sha256-") == 2


def fails(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    """Exit code and the only line of a call that says what is wrong."""
    code = main(["serve", *map(str, args)])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    return code, error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", -1], "--port -1: give a number of at least 0"),
        (["--port", 99_999], "--port 99999: give a number of at most 65535"),
        (["--batch-size", 0], "--batch-size 0: give a number of at least 1"),
        (["--char-limit", 0], "--char-limit 0"),
        (["--req-limit", -1], "--req-limit -1"),
        (["--beam", 0], "--beam 0"),
    ],
)
def test_a_wrong_option_is_named(
    options: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = fails(capsys, "model", *options)
    assert code == 2 and message in error


def test_an_address_that_cannot_be_had_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert taken.proto == socket.IPPROTO_TCP  # or asyncio leaves Nagle's algorithm on
        assert url(taken) == f"http://127.0.0.1:{port}"
        code, error = fails(capsys, tmp_path, "--port", port)
    assert code == 1 and f"--port {port} (Address already in use): give another" in error
    for options in (["--host", "192.0.2.1"], ["--host", "no such host"]):
        assert fails(capsys, tmp_path, *options)[0] == 1
    # The port is free, and what is wrong is the model.
    assert "export.json" in fails(capsys, tmp_path, "--port", 0)[1]


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "admin_nmt.serve.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, error = fails(capsys, "model")
    assert code == 1 and "uvicorn is not installed" in error
    assert "pip install admin_nmt[serve]" in error


def test_a_connection_serves_many_requests(shouting: Shouting) -> None:
    with served(shouting) as server:
        connection: http.client.HTTPConnection = server.connect()
        for number in range(3):
            body = json.dumps({"q": f"a{number}", "source": "de", "target": "en"})
            connection.request("POST", "/translate", body)
            response = connection.getresponse()
            assert json.loads(response.read()) == {"translatedText": f"A{number}"}
        connection.close()
