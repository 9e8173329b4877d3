"""Downloading: the whole right file or nothing, whatever the server does."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from xbench.errors import DownloadFailed, XbenchError
from xbench.storage import downloads
from xbench.storage.downloads import download
from xbench.storage.locks import hold_place

CONTENT = bytes(range(256)) * 4096  # more than one piece
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `CONTENT` on this machine in several ways, and counts what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        getattr(self, self.path.strip("/"))()

    def log_message(self, *_) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def right(self) -> None:
        self.answer(200, CONTENT, Content_Length=str(len(CONTENT)))

    def without_length(self) -> None:
        self.answer(200, CONTENT)

    def truncated(self) -> None:
        self.answer(200, CONTENT[:600_000], Content_Length=str(len(CONTENT)))

    def cut_at_once(self) -> None:
        self.close_connection = True

    def huge(self) -> None:
        self.answer(200, CONTENT, Content_Length=str(10**18))

    def moved(self) -> None:
        self.answer(302, b"", Location="/right", Content_Length="0")

    def missing(self) -> None:
        self.answer(404, b"no", Content_Length="2")

    def broken(self) -> None:
        self.answer(503, b"", Content_Length="0")

    def nonsense(self) -> None:
        self.answer(200, b"", Content_Length="many")

    def slow(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        for start in range(0, len(CONTENT), 1 << 18):
            self.wfile.write(CONTENT[start : start + (1 << 18)])
            time.sleep(0.3)

    def stuck(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:600_000])
        self.wfile.flush()
        time.sleep(60)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    """A place for locks that is not beside the files."""
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def silent(done: int, total: int) -> None:
    pass


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_is_there_whole_and_alone(server, tmp_path, capfd):
    path = tmp_path / "folders" / "to be made" / "file.bin"
    heard = []
    download(server.url("/right"), path, SHA256, lambda *at: heard.append(at))
    assert path.read_bytes() == CONTENT
    assert files_in(path.parent) == ["file.bin"]
    done = [at for at, _ in heard]
    assert len(set(done)) > 2
    assert done == sorted(done)
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in heard} == {len(CONTENT)}
    assert capfd.readouterr() == ("", "")  # pooch has a logger that writes to the terminal


@pytest.mark.parametrize("sha256", [SHA256[:8], SHA256.upper(), SHA256[:20].upper()])
def test_the_beginning_of_a_hash_is_enough_and_case_is_nothing(server, tmp_path, sha256):
    download(server.url("/right"), tmp_path / "file", sha256, silent)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_the_right_file_is_not_fetched_again(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    download(server.url("/right"), tmp_path / "file", SHA256, silent)
    assert server.asked == []


def test_a_wrong_file_is_fetched_again(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT[:-1])
    download(server.url("/right"), tmp_path / "file", SHA256, silent)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_redirections_are_followed(server, tmp_path):
    download(server.url("/moved"), tmp_path / "file", SHA256, silent)
    assert server.asked == ["/moved", "/right"]


def test_a_body_of_unknown_length_is_judged_by_its_hash(server, tmp_path):
    heard = []
    download(server.url("/without_length"), tmp_path / "file", SHA256, lambda *at: heard.append(at))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert {total for _, total in heard} == {0}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/truncated", r"broke off after 0\.\d+ MB of 1\.05 MB"),
        ("/cut_at_once", "cannot be reached"),
        ("/missing", "the server answered 404 Not Found"),
        ("/broken", "the server answered 503 Service Unavailable"),
        ("/nonsense", "cannot be reached"),
    ],
)
def test_trouble_of_the_network_leaves_nothing(server, tmp_path, path, message):
    with pytest.raises(DownloadFailed, match=message) as caught:
        download(server.url(path), tmp_path / "file", SHA256, silent)
    assert server.url(path) in caught.value.message
    assert caught.value.hint
    assert files_in(tmp_path) == []


def test_trouble_leaves_the_file_that_was_there(server, tmp_path):
    (tmp_path / "file").write_bytes(b"older")
    for path in ("/truncated", "/missing"):
        with pytest.raises(DownloadFailed):
            download(server.url(path), tmp_path / "file", SHA256, silent)
    assert (tmp_path / "file").read_bytes() == b"older"
    assert files_in(tmp_path) == ["file"]


def test_a_server_that_falls_silent_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_READ_TIMEOUT_S", 0.2)
    with pytest.raises(DownloadFailed, match=r"broke off after 0\.\d+ MB of 1\.05 MB"):
        download(server.url("/stuck"), tmp_path / "file", SHA256, silent)
    assert files_in(tmp_path) == []


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as taken:  # bound, but it does not listen
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file"
        with pytest.raises(DownloadFailed) as caught:
            download(url, tmp_path / "file", SHA256, silent)
    assert caught.value.message == f"{url} cannot be reached: Connection refused"
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("wanted", ["0" * 64, "00000000"])
def test_another_content_is_not_kept(server, tmp_path, wanted):
    with pytest.raises(XbenchError) as caught:
        download(server.url("/right"), tmp_path / "file", wanted, silent)
    assert not isinstance(caught.value, DownloadFailed)
    assert f"expected sha256 {wanted}, got {SHA256}" in caught.value.message
    assert "file discarded" in caught.value.message
    assert files_in(tmp_path) == []


def test_room_is_checked_against_what_the_server_announces(server, tmp_path):
    with pytest.raises(XbenchError, match=r"downloading file needs .* free"):
        download(server.url("/huge"), tmp_path / "file", SHA256, silent)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/tmp/x", "https://", ""])
def test_only_the_web_is_asked(tmp_path, url):
    with pytest.raises(XbenchError, match="not a web address"):
        download(url, tmp_path / "file", SHA256, silent)


@pytest.mark.parametrize("sha256", ["", "abc", "0" * 65, "z" * 64])
def test_a_hash_that_is_none_is_refused(server, tmp_path, sha256):
    with pytest.raises(XbenchError, match="not a sha256"):
        download(server.url("/right"), tmp_path / "file", sha256, silent)
    assert server.asked == []


def test_what_the_callback_raises_comes_through_and_leaves_nothing(server, tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.url("/right"), tmp_path / "file", SHA256, stop)
    assert files_in(tmp_path) == []


CODE = (
    "import sys; from pathlib import Path; from xbench.storage.downloads import download\n"
    "download(sys.argv[1], Path(sys.argv[2]), sys.argv[3], lambda *at: print(*at, flush=True))"
)


def start_download(url: str, path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CODE, url, str(path), SHA256],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background of a shell ignore interrupts, and would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_an_interrupt_leaves_nothing(server, tmp_path):
    process = start_download(server.url("/stuck"), tmp_path / "file")
    process.stdout.readline()
    assert not (tmp_path / "file").exists()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in stderr
    assert files_in(tmp_path) == []


def test_after_a_kill_the_next_try_is_clean(server, tmp_path):
    process = start_download(server.url("/stuck"), tmp_path / "file")
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    assert files_in(tmp_path) != []
    download(server.url("/right"), tmp_path / "file", SHA256, silent)
    assert files_in(tmp_path) == ["file"]


def test_two_processes_fetch_a_file_once(server, tmp_path):
    processes = [start_download(server.url("/slow"), tmp_path / "file") for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr) == (0, "")
    assert server.asked == ["/slow"]
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert files_in(tmp_path) == ["file"]


def test_waiting_for_another_process_and_checking_are_told(server, tmp_path):
    told = []
    with ExitStack() as held:
        held.enter_context(hold_place(tmp_path / "file"))

        def tell(step: str) -> None:
            told.append(step)
            held.close()

        download(server.url("/right"), tmp_path / "file", SHA256, silent, on_step=tell)
    assert told == ["waiting for another process to finish downloading it", "verifying it"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_hashing_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_HASH_BLOCK_BYTES", 4)
    (tmp_path / "file").write_bytes(b"ten bytes.")
    told = []
    assert downloads.sha256_of(tmp_path / "file", lambda *at: told.append(at)) == (
        hashlib.sha256(b"ten bytes.").hexdigest()
    )
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_a_place_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/deeper", Path("/proc/xbench")):
        with pytest.raises(XbenchError, match="cannot save") as caught:
            download(server.url("/whole"), folder / "weights", SHA256, lambda done, total: None)
        assert str(folder) in caught.value.message
        assert "XBENCH_CACHE_DIR" in caught.value.hint
