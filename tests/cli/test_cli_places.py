"""Commands in odd places: without a home, with little address space, on disks that are full or read-only."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.cli.cli_process import Cli
from xbench.cli import _replace_characters, _run_command
from xbench.cli.output import print_json
from xbench.isolation.server import too_little_address_space

SUITE = """
suite.name = "places"
[[experiment]]
name = "places"
title = "Größe ±"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
epochs = 1
optimizer = { name = "sgd", label = "sgd-é" }
"""

# May read all files, as the interpreter's may be out of reach for other users, and do nothing else that root
# may do.
READS_ALL = [f"--{kind}=-all,+dac_read_search" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
AS_NOBODY = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", *READS_ALL]

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="these limits and folders are Linux's")


@pytest.fixture
def cli(xbench, tmp_path) -> Cli:
    """With a folder of its own for temporary files."""
    (tmp_path / "temporary").mkdir()
    own = Cli(Path(xbench.environment["XBENCH_CACHE_DIR"]))
    own.environment["TMPDIR"] = str(tmp_path / "temporary")
    return own


@pytest.fixture
def start(cli, tmp_path, allow_user_code):
    """Starts the run of a suite whose cells take long."""
    text = SUITE.replace("epochs = 1", "epochs = 100000")
    (tmp_path / "suite.toml").write_text(text, encoding="utf-8")
    return lambda: cli.start(tmp_path, "run", "suite.toml", *allow_user_code)


def left_in(cli: Cli) -> list[str]:
    """What is among the temporary files, but for torch's own cache."""
    return [name for name in os.listdir(cli.environment["TMPDIR"]) if not name.startswith("torch")]


def wait_for_a_cell(folder: Path, command: subprocess.Popen) -> None:
    for _ in range(1200):
        if any(folder.glob("results/*/*/checkpoints/*")):
            return
        assert command.poll() is None, command.communicate()
        time.sleep(0.1)
    raise AssertionError("no cell began")


class TestUnknownHomes:
    @pytest.mark.parametrize(
        ("args", "source"),
        [
            (("run", "~no-such-user/a.toml"), "suite"),
            (("run", "a.toml", "--out", "~no-such-user/a"), "--out"),
            (("run", "a.toml", "--allow-import", "~no-such-user/a"), "--allow-import"),
            (("show", "--out=~no-such-user/a"), "--out"),
            (("data", "fetch", "chest-xray", "--from", "~no-such-user/a"), "--from"),
        ],
    )
    def test_are_told_in_one_line(self, cli, tmp_path, args, source):
        done = cli(tmp_path, *args)
        assert (done.returncode, done.stdout) == (2, "")
        first, hint = done.stderr.splitlines()
        assert first.startswith(f"error: {source} '~no-such-user/a")
        assert first.endswith("there is no user 'no-such-user' on this machine")
        assert hint.startswith("  hint: write the full path")

    def test_of_the_cache(self, cli, tmp_path):
        cli.environment["XBENCH_CACHE_DIR"] = "~no-such-user/a"
        done = cli(tmp_path, "data", "status")
        assert done.returncode == 2
        assert done.stderr.startswith("error: XBENCH_CACHE_DIR '~no-such-user/a': there is no user")


@pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user"
)
def test_a_user_without_a_home_or_a_name(cli, tmp_path):
    for folder in (tmp_path, Path(cli.environment["TMPDIR"])):
        folder.chmod(0o777)
    for name in ("HOME", "XBENCH_CACHE_DIR", "XDG_CACHE_HOME"):
        cli.environment.pop(name, None)
    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-m", "xbench", "data", "status"],
        cwd=tmp_path,
        env=cli.environment,
        capture_output=True,
        text=True,
        timeout=220,
    )
    assert done.returncode == 0, done.stderr
    assert "made by xbench" in done.stdout
    place = f"{cli.environment['TMPDIR']}/xbench-cache-54321"
    assert f"note: this user has no home folder (HOME is not set), so the cache is in {place}" in done.stderr


@linux_only
class TestTemporaryFiles:
    def test_in_a_folder_of_a_long_name(self, cli, tmp_path):
        folder = tmp_path / ("long" * 30)
        folder.mkdir()
        cli.environment["TMPDIR"] = str(folder)
        done = cli(tmp_path, "doctor", "--device", "cpu", "--format", "json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["device"] == "cpu"
        assert left_in(cli) == []

    def test_none_stay_after_a_kill(self, cli, start, tmp_path):
        command = start()
        try:
            wait_for_a_cell(tmp_path, command)
            children = psutil.Process(command.pid).children(recursive=True)
            assert left_in(cli) == []
        finally:
            command.kill()
            command.communicate()
        psutil.wait_procs(children, timeout=30)
        assert left_in(cli) == []


@linux_only
class TestAddressSpace:
    @pytest.mark.parametrize(
        ("kilobytes", "args"),
        [
            (1_000_000, "doctor --device cpu"),
            (2_000_000, "run suite.toml --device cpu"),
            (2_000_000, "probe-capacity --optimizer adam --device cpu"),
        ],
    )
    def test_that_torch_does_not_fit_into_is_named(self, cli, tmp_path, kilobytes, args):
        (tmp_path / "suite.toml").write_text(SUITE, encoding="utf-8")
        command = f"ulimit -v {kilobytes}; exec {sys.executable} -m xbench {args}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=cli.environment,
            capture_output=True,
            text=True,
            timeout=220,
        )
        assert (done.returncode, done.stdout) == (2, "")
        first, hint = done.stderr.splitlines()
        assert first.startswith("error: a worker process cannot load torch under the address space limit")
        assert f"(`ulimit -v {kilobytes}`)" in first
        assert "ulimit -v unlimited" in hint

    def test_the_text_of_a_cpp_exception_is_not_shown(self):
        error = too_little_address_space("what():  std::bad_alloc")
        assert error.message.endswith(": memory ran out")


class TestAscii:
    @pytest.fixture(scope="class")
    @classmethod
    def ran(cls, run_suite):
        return run_suite(SUITE)

    @pytest.fixture
    def ascii_cli(self, cli):
        cli.environment["PYTHONIOENCODING"] = "ascii"
        return cli

    def test_json_is_json(self, ran, ascii_cli):
        done = ascii_cli(ran.folder, "show", "--format", "json")
        assert done.stdout.isascii()
        (experiment,) = json.loads(done.stdout)["experiments"]
        assert experiment["title"] == "Größe ±"
        assert experiment["columns"][0]["column"] == "sgd-é"

    def test_tables_keep_their_columns(self, ran, ascii_cli):
        done = ascii_cli(ran.folder, "show")
        assert done.returncode == 0
        assert done.stdout.isascii()
        table = [line for line in done.stdout.splitlines() if line.startswith(("|", "+"))]
        assert r"sgd-\xe9" in table[1]
        assert len({len(line) for line in table}) == 1

    def test_documents_keep_characters_of_two_halves(self, capsys):
        print_json({"é": "\N{GRINNING FACE}"})
        print_json('{"é": "ß"}')
        out = capsys.readouterr().out
        assert out.isascii()
        first, second = out.rsplit("\n", 2)[0], out.splitlines()[-1]
        assert (json.loads(first), json.loads(second)) == ({"é": "\N{GRINNING FACE}"}, {"é": "ß"})

    def test_characters_have_others_that_stand_for_them(self):
        error = UnicodeEncodeError("ascii", "a±█é", 1, 4, "")
        assert _replace_characters(error) == ("+-", 2)
        error.start = 3
        assert _replace_characters(error) == (r"\xe9", 4)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk at hand")
@pytest.mark.parametrize("args", [("list",), ("plugins",), ("info", "sgd"), ("data", "status")])
def test_output_that_is_not_taken_is_told(cli, tmp_path, args):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "xbench", *args],
            cwd=tmp_path,
            env=cli.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=220,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: results cannot be printed to stdout: No space left on device\n")


def test_errors_do_not_go_to_stdout_where_stderr_is_closed(cli, tmp_path):
    command = f"exec {sys.executable} -m xbench run nowhere.toml --format json 2>&-"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=cli.environment, stdout=subprocess.PIPE, timeout=220
    )
    assert (done.returncode, done.stdout) == (2, b"")


class TestErrors:
    """Of commands, as they are told and with which exit code."""

    @pytest.fixture
    def told(self, monkeypatch):
        def run(error: Exception) -> tuple[int, str]:
            def fail() -> None:
                raise error

            stderr = io.StringIO()
            with monkeypatch.context() as patch:
                patch.setattr("xbench.cli.app.app", fail)
                patch.setattr(sys, "stderr", stderr)
                with pytest.raises(SystemExit) as caught:
                    _run_command()
            return caught.value.code, stderr.getvalue()

        return run

    def test_of_a_disk_are_the_users(self, told):
        code, text = told(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/file"))
        assert code == 2
        assert text == "error: /cache/file: No space left on device\n  hint: free some space there\n"

    def test_of_permissions_name_the_cache_for_what_is_in_it(self, told, monkeypatch):
        monkeypatch.setenv("XBENCH_CACHE_DIR", "/cache")
        where = {"/cache/file": ", or move the cache with XBENCH_CACHE_DIR", "/elsewhere/file": ""}
        for path, more in where.items():
            code, text = told(PermissionError(errno.EACCES, os.strerror(errno.EACCES), path))
            assert code == 2
            assert text == f"error: {path}: Permission denied\n  hint: check its permissions{more}\n"

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.EBADF, os.strerror(errno.EBADF)),
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/a/file"),
            KeyError("what"),
        ],
        ids=["another", "no file", "a file that is gone", "no OSError"],
    )
    def test_others_are_faults_with_their_traceback(self, told, error):
        code, text = told(error)
        assert code == 1
        assert text.startswith("Traceback (most recent call last):")
        assert f"error: xbench failed: {type(error).__name__}: {error} (see the traceback above)\n" in text
