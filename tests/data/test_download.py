"""Downloads are resumed, retried and verified; local archives need no network."""

import hashlib
import http.server
import threading
from functools import partial

import pytest

from admin_nmt.data.corpora import Archive
from admin_nmt.data.download import download, local_archives
from admin_nmt.errors import UserError

DATA = bytes(range(256)) * 2000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves DATA, honours Range, and breaks off after `server.limit` bytes of each answer."""

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        if self.path != "/a.tgz":
            self.send_error(404)
            return
        start = 0
        if self.headers.get("Range") and self.server.resumes:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start >= len(DATA):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        self.wfile.write(DATA[start:][: self.server.limit])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # pooch waits between its tries
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as instance:
        instance.ranges, instance.limit, instance.resumes = [], None, True
        instance.url = f"http://127.0.0.1:{instance.server_port}/a.tgz"
        # A short poll: the fixture ends without waiting for the default half second.
        thread = threading.Thread(target=partial(instance.serve_forever, 0.01))
        thread.start()
        yield instance
        instance.shutdown()
        thread.join()


def checksum(data=DATA):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.limit = 5 * 65536
    paths = download([Archive("a.tgz", server.url, checksum())], tmp_path / "archives")
    assert paths["a.tgz"].read_bytes() == DATA
    assert server.ranges == [None, "bytes=327680-"]
    assert [path.name for path in (tmp_path / "archives").iterdir()] == ["a.tgz"]


def test_the_next_run_takes_up_what_an_interrupted_one_left(server, tmp_path):
    server.limit = 65536
    with pytest.raises(UserError, match=r"cannot download .*a\.tgz.*run again to resume"):
        download([Archive("a.tgz", server.url, checksum())], tmp_path, retries=0)
    assert not (tmp_path / "a.tgz").exists()
    server.limit = None
    download([Archive("a.tgz", server.url, checksum())], tmp_path, retries=0)
    assert (tmp_path / "a.tgz").read_bytes() == DATA
    assert server.ranges[-1] == "bytes=65536-"


def test_without_a_checksum_an_old_part_is_not_trusted(server, tmp_path):
    (tmp_path / "a.tgz.part").write_bytes(b"of another file")
    download([Archive("a.tgz", server.url)], tmp_path, retries=0)
    assert (tmp_path / "a.tgz").read_bytes() == DATA


def test_servers_that_cannot_resume_send_everything_again(server, tmp_path):
    server.resumes = False
    (tmp_path / "a.tgz.part").write_bytes(DATA[:1000])
    download([Archive("a.tgz", server.url, checksum())], tmp_path, retries=0)
    assert (tmp_path / "a.tgz").read_bytes() == DATA


def test_a_part_that_is_already_complete_is_taken(server, tmp_path):
    (tmp_path / "a.tgz.part").write_bytes(DATA)
    download([Archive("a.tgz", server.url, checksum())], tmp_path, retries=0)
    assert (tmp_path / "a.tgz").read_bytes() == DATA


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    (tmp_path / "a.tgz").write_bytes(DATA)
    download([Archive("a.tgz", server.url, checksum())], tmp_path)
    assert server.ranges == []


def test_a_wrong_checksum_names_both_sums_and_leaves_nothing(server, tmp_path):
    wrong = checksum(b"other")
    with pytest.raises(UserError) as error:
        download([Archive("a.tgz", server.url, wrong)], tmp_path, retries=1)
    assert wrong.removeprefix("sha256:") in str(error.value)
    assert checksum().removeprefix("sha256:") in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_server_and_network_are_one_line(server, tmp_path):
    for url in (server.url + "x", "http://127.0.0.1:9/a.tgz", "http://no-such-host.invalid/a"):
        with pytest.raises(UserError, match="cannot download") as error:
            download([Archive("a.tgz", url)], tmp_path, retries=0)
        assert url in str(error.value)
        assert "\n" not in str(error.value)


def test_downloads_that_cannot_fit_are_refused_at_once(server, tmp_path):
    with pytest.raises(UserError, match="too little disk space"):
        download([Archive("a.tgz", server.url, None, 10**18)], tmp_path)
    assert server.ranges == []


def test_local_archives_are_all_there_and_verified(tmp_path):
    with pytest.raises(UserError, match=r"lacks a\.tgz \(from http://x/a\), b\.tgz"):
        local_archives([Archive("a.tgz", "http://x/a"), Archive("b.tgz", "http://x/b")], tmp_path)
    (tmp_path / "a.tgz").write_bytes(DATA)
    md5 = "md5:" + hashlib.md5(DATA).hexdigest()
    for good in (None, checksum(), md5):
        archive = Archive("a.tgz", "http://x/a", good)
        assert local_archives([archive], tmp_path) == {"a.tgz": tmp_path / "a.tgz"}
    wrong = checksum(b"other")
    with pytest.raises(UserError) as error:
        local_archives([Archive("a.tgz", "http://x/a", wrong)], tmp_path)
    assert wrong.removeprefix("sha256:") in str(error.value)
    assert checksum().removeprefix("sha256:") in str(error.value)
