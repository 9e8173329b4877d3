"""`xbench data`: what is here, getting it from a server of this machine or from a file, checking it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.cli_process import Cli, Ran, StandingCli, one_line
from tests.data.look_alikes import change, compress, crop, make_scene
from xbench.data.near_copies import RELATIONS, TRAIN_AND_TEST
from xbench.data.perceptual import HASH_BITS, MAX_DISTANCE, MAX_FALSE_ALARM_RATE

# A dataset that a package registers, as large as tests can wait for.
PLUGIN = """
import os
from pathlib import Path
from xbench import DataNotFound, DatasetSpec, Source
from xbench.components.image_folder import build_folder
from xbench.storage.paths import cache_dir

def find_root():
    named = os.environ.get("TINY_ROOT")
    root = Path(named) if named else cache_dir() / "tiny-set"
    if not (root / "train").is_dir():
        raise DataNotFound(f"tiny: nothing in {root}")
    return root

def build():
    return build_folder(str(find_root()), image_size=64)

TINY = DatasetSpec(
    factory=build,
    source=Source(
        url="http://127.0.0.1:1/tiny.zip",
        sha256="ab" * 32,
        size_bytes=10_000,
        unpacked_bytes=100_000,
        counts={"train/A": 3, "train/B": 2, "test/A": 1, "test/B": 1},
        folder="tiny-set",
        page="https://tiny.example/page",
        licence="Tiny Licence 1.0",
        citation="Tiny, T. (2026), Seven images",
    ),
    find_root=find_root,
)
"""


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (12, 10), shade).save(stream, "png")
    return stream.getvalue()


# No pairs of images, in JSON.
NONE = {
    "counts": dict.fromkeys(RELATIONS, 0),
    "named": {relation: [] for relation in RELATIONS},
}

NAMES = ("train/A/1.png", "train/A/2.png", "train/B/3.png", "train/B/4.png", "test/A/5.png", "test/B/6.png")
IMAGES = {name: png(10 * i) for i, name in enumerate((*NAMES, "val/A/7.png"))}
CLUTTER = {"__MACOSX/set/train/A/._1.png": b"x", "set/.DS_Store": b"x", "set/set/train/A/1.png": b"x"}
COUNTS = "1 test/A, 1 test/B, 2 train/A, 2 train/B, 1 val/A"


def make_zip(path: Path, images: dict[str, bytes], more: dict[str, bytes] | None = None) -> str:
    """Write an archive, and give its hash."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {f"set/{k}": v for k, v in images.items()}.items():
            archive.writestr(name, content)
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        if self.path != "/stuck.zip":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(bytes(500_000))
        time.sleep(60)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the folder that it serves."""
    folder = tmp_path_factory.mktemp("served")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with a package that registers the dataset `tiny`."""
    folder = tmp_path_factory.mktemp("packages")
    info = folder / "tiny_set-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-set\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[xbench.datasets]\ntiny = tiny_set:TINY\n")
    (folder / "tiny_set.py").write_text(PLUGIN)
    return folder


@pytest.fixture(scope="module")
def own_xbench(packages, tmp_path_factory) -> Iterator[StandingCli]:
    """`xbench` with a cache of its own, where the dataset `tiny` is registered."""
    with StandingCli(tmp_path_factory.mktemp("data") / "cache") as cli:
        path = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")]))
        cli.environment |= {"PYTHONPATH": path, "NO_PROXY": "127.0.0.1"}
        yield cli


def empty_cache(cli: Cli) -> Path:
    path = Path(cli.environment["XBENCH_CACHE_DIR"])
    shutil.rmtree(path, ignore_errors=True)
    return path


@pytest.fixture
def cache(own_xbench) -> Path:
    """The cache of `own_xbench`, which is empty."""
    return empty_cache(own_xbench)


@pytest.fixture
def cli(own_xbench, cache) -> StandingCli:
    return own_xbench


@pytest.fixture(scope="module")
def fetched_once(own_xbench, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fetched")
    make_zip(folder / "tiny.zip", IMAGES, CLUTTER)
    cache = empty_cache(own_xbench)
    done = own_xbench(folder, "data", "fetch", "tiny", "--from", "tiny.zip")
    assert done.returncode == 0, done.stderr
    cache.rename(folder / "cache")
    return folder


@pytest.fixture
def fetched(fetched_once, cache, tmp_path) -> Path:
    """`tiny`, in its place, with its archive in the current folder."""
    shutil.copy(fetched_once / "tiny.zip", tmp_path)
    return Path(shutil.copytree(fetched_once / "cache", cache)) / "tiny-set"


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def status_of(cli: Cli, folder: Path, name: str) -> dict:
    done = cli(folder, "data", "status", "--format", "json")
    assert done.returncode == 0, done.stderr
    (row,) = [row for row in json.loads(done.stdout)["datasets"] if row["dataset"] == name]
    return row


def assert_refused(
    done: subprocess.CompletedProcess, message: str, cache: Path, hint: str = "hint: "
) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {message}" in done.stderr or message in one_line(done.stderr)
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert kept_in(cache) == []


def kept_in(cache: Path) -> list[str]:
    """What is in the cache besides the files by which processes lock it."""
    return sorted(path.name for path in cache.glob("*") if path.name != "locks")


def wait_for_part(cache: Path) -> Path:
    """The file that is being downloaded, as soon as it is there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for part in cache.rglob("archive.zip"):
            return part
        time.sleep(0.02)
    raise AssertionError("nothing is being downloaded")


class TestFetch:
    def test_from_a_server(self, cli, cache, served, tmp_path):
        url, folder = served
        sha256 = make_zip(folder / "tiny.zip", IMAGES, CLUTTER)
        done = cli(tmp_path, "data", "fetch", "tiny", "--url", f"{url}/tiny.zip", "--sha256", sha256.upper())
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [str(cache / "tiny-set"), COUNTS]
        assert "Tiny Licence 1.0" in done.stderr
        assert "this is not the published archive" in done.stderr
        files = files_in(cache / "tiny-set")
        assert {name: files.pop(name) for name in IMAGES} == IMAGES
        assert set(files) == {"LICENCE.txt", "CITATION.txt", "MANIFEST.sha256"}
        assert files["LICENCE.txt"].decode() == "Tiny Licence 1.0\n"
        citation = files["CITATION.txt"].decode()
        assert all(part in citation for part in ("Tiny, T. (2026)", f"{url}/tiny.zip", sha256))
        assert kept_in(cache) == ["tiny-set"]

    def test_from_a_file_which_stays(self, cli, cache, tmp_path):
        sha256 = make_zip(tmp_path / "my tiny.zip", IMAGES)
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", "my tiny.zip")
        assert done.returncode == 0, done.stderr
        assert f"sha256 {sha256}, not abab" in one_line(done.stderr)
        assert set(IMAGES) < set(files_in(cache / "tiny-set"))
        assert (tmp_path / "my tiny.zip").exists()

    def test_the_manifest_is_what_sha256sum_reads(self, fetched):
        done = subprocess.run(
            ["sha256sum", "--strict", "-c", "MANIFEST.sha256"], cwd=fetched, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == len(IMAGES)

    def test_what_is_complete_is_left_alone(self, cli, fetched, tmp_path):
        before = fetched.stat().st_ino
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", "none.zip")
        assert done.returncode == 0
        assert "already complete" in done.stderr
        assert done.stdout.splitlines() == [str(fetched), COUNTS]
        assert fetched.stat().st_ino == before

    def test_what_is_incomplete_is_replaced_only_if_asked(self, cli, fetched, tmp_path):
        (fetched / "train/A/1.png").unlink()
        (fetched / "mine.txt").touch()
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", "tiny.zip")
        assert done.returncode == 2
        assert "already exists" in done.stderr and "--force" in done.stderr
        assert (fetched / "mine.txt").exists()
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", "tiny.zip", "--force")
        assert done.returncode == 0, done.stderr
        assert (fetched / "train/A/1.png").exists() and not (fetched / "mine.txt").exists()
        assert kept_in(fetched.parent) == ["tiny-set"]

    def test_what_is_replaced_stays_if_the_new_one_is_no_good(self, cli, fetched, tmp_path):
        before = files_in(fetched)
        make_zip(
            tmp_path / "bad.zip", {k: v for k, v in IMAGES.items() if k != "test/B/6.png"} | {"test/x": b""}
        )
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", "bad.zip", "--force")
        assert done.returncode == 2
        assert "1 missing in test/B" in done.stderr
        assert files_in(fetched) == before

    def test_a_copy_that_is_found_first_is_told(self, cli, cache, fetched, tmp_path):
        (tmp_path / "mine/train").mkdir(parents=True)
        alone = Cli(cache)
        alone.environment = cli.environment | {"TINY_ROOT": str(tmp_path / "mine")}
        done = alone(tmp_path, "data", "fetch", "tiny", "--from", "tiny.zip")
        assert done.returncode == 0
        assert (
            f"warning: suites do not use this copy, because tiny is also in {tmp_path / 'mine'}"
            in done.stderr
        )

    def test_nobody_answers(self, cli, cache, tmp_path):
        done = cli(tmp_path, "data", "fetch", "tiny")
        assert_refused(done, "http://127.0.0.1:1/tiny.zip cannot be reached: Connection refused", cache)
        assert "https://tiny.example/page" in done.stderr and "--from" in done.stderr

    @pytest.mark.parametrize(
        ("name", "message"),
        [("none.zip", "the server answered 404"), ("tiny.zip", "checksum mismatch")],
    )
    def test_the_server_has_something_else(self, cli, cache, served, tmp_path, name, message):
        url, folder = served
        make_zip(folder / "tiny.zip", IMAGES)
        done = cli(tmp_path, "data", "fetch", "tiny", "--url", f"{url}/{name}", "--sha256", "0" * 64)
        assert_refused(done, message, cache)

    def test_a_dangerous_archive(self, cli, cache, tmp_path):
        make_zip(tmp_path / "bad.zip", IMAGES, {"set/../../../escaped.png": b"x"})
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", "bad.zip")
        assert_refused(
            done, "bad.zip was not unpacked: 'set/../../../escaped.png' would be written outside", cache
        )
        assert not list(tmp_path.parent.rglob("escaped.png"))

    def test_a_bomb(self, cli, cache, tmp_path):
        with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("set/train/A/1.png", bytes(10**7))
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", "bomb.zip")
        assert_refused(done, "it would unpack to 10 MB, more than the limit of 0.40 MB", cache)

    def test_too_few_images(self, cli, cache, tmp_path):
        make_zip(tmp_path / "few.zip", {name: IMAGES[name] for name in NAMES})
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", "few.zip")
        assert_refused(
            done, "few.zip does not contain the images of this dataset: 1 missing in train/A", cache
        )

    @pytest.mark.parametrize("file", ["none.zip", ".", "page.html"])
    def test_a_file_that_is_no_archive(self, cli, cache, tmp_path, file):
        (tmp_path / "page.html").write_text("<html>Please log in</html>")
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", file)
        assert_refused(done, f"{file} ", cache, hint="")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("synthetic-xray",), "is generated by xbench"),
            (("folder",), "has no published archive"),
            (("tinny",), "unknown dataset 'tinny'. Did you mean 'tiny'?"),
            (("tiny", "--url", "http://127.0.0.1:1/x.zip"), "--url and --sha256 must be given together"),
            (("tiny", "--sha256", "0" * 64), "--url and --sha256 must be given together"),
            (("tiny", "--url", "file:///x.zip", "--sha256", "0" * 64), "is not a web address"),
            (("tiny", "--url", "http://x/x.zip", "--sha256", "0123"), "has 64 digits, got 4"),
            (("tiny", "--url", "http://x/x.zip", "--sha256", "y" * 64), "is not a sha256"),
            (("tiny", "--from", "x", "--url", "http://x/x", "--sha256", "0" * 64), "name different archives"),
        ],
    )
    def test_mistakes(self, cli, cache, tmp_path, arguments, message):
        assert_refused(cli(tmp_path, "data", "fetch", *arguments), message, cache)

    @pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_an_interrupt_leaves_nothing(self, cli, cache, served, tmp_path, number):
        url, _ = served
        process = cli.start(
            tmp_path, "data", "fetch", "tiny", "--url", f"{url}/stuck.zip", "--sha256", "0" * 64
        )
        part = wait_for_part(cache)
        deadline = time.monotonic() + 30
        while not part.stat().st_size and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.Signals[number])
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stdout) == (130, "")
        assert "interrupted; nothing of tiny was kept" in stderr
        assert kept_in(cache) == []

    def test_two_at_once_and_after_a_kill(self, cli, cache, served, tmp_path):
        url, _ = served
        make_zip(tmp_path / "tiny.zip", IMAGES)
        process = cli.start(
            tmp_path, "data", "fetch", "tiny", "--url", f"{url}/stuck.zip", "--sha256", "0" * 64
        )
        part = wait_for_part(cache)
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", "tiny.zip")
        assert (done.returncode, done.stdout) == (2, "")
        assert "another process is filling" in done.stderr
        process.kill()
        process.communicate(timeout=30)
        assert part.exists()
        done = cli(tmp_path, "data", "fetch", "tiny", "--from", "tiny.zip")
        assert done.returncode == 0, done.stderr
        assert kept_in(cache) == ["tiny-set"]


class TestStatus:
    def test_of_all(self, cli, tmp_path):
        done = cli(tmp_path, "data", "status")
        assert done.returncode == 0, done.stderr
        lines = {
            line.split("│")[1].strip(): one_line(line) for line in done.stdout.splitlines() if "│" in line
        }
        assert "not here" in lines["chest-xray"] and "`xbench data fetch chest-xray`" in lines["chest-xray"]
        assert "`root`" in lines["folder"]
        assert "made by xbench" in lines["synthetic-xray"] and "needs no files" in lines["synthetic-xray"]
        assert "https://tiny.example/page" in done.stdout

    def test_of_one_that_is_complete_with_validation_in_train(self, cli, fetched, tmp_path):
        done = cli(tmp_path, "data", "status", "tiny")
        assert done.returncode == 0
        assert all(part in done.stdout for part in ("complete", str(fetched), COUNTS))
        assert "chest-xray" not in done.stdout

    def test_what_is_missing(self, cli, fetched, tmp_path):
        (fetched / "val/A/7.png").unlink()
        (fetched / "test/B/deeper").mkdir()
        (fetched / "test/B/deeper/more.png").touch()
        row = status_of(cli, tmp_path, "tiny")
        assert row["state"] == "incomplete"
        assert row["root"] == str(fetched)
        assert row["images"] == {"test/A": 1, "test/B": 2, "train/A": 2, "train/B": 2}
        assert row["missing"] == {"train/A": 1, "test/B": -1}
        assert row["shortfall"] == "1 missing in train/A, 1 too many in test/B"

    def test_what_is_not_here(self, cli, tmp_path):
        row = status_of(cli, tmp_path, "tiny")
        assert (row["state"], row["how_to_get"]) == ("not here", "`xbench data fetch tiny`")

    def test_an_unknown_one(self, cli, tmp_path):
        done = cli(tmp_path, "data", "status", "nothing")
        assert done.returncode == 2
        assert "unknown dataset 'nothing'" in done.stderr


class TestVerify:
    def verify(self, cli: Cli, folder: Path) -> tuple[int, dict]:
        done = cli(folder, "data", "verify", "tiny", "--format", "json")
        return done.returncode, json.loads(done.stdout)

    def test_what_was_fetched_is_right(self, cli, fetched, tmp_path):
        done = cli(tmp_path, "data", "verify", "tiny")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[:3] == ["tiny: complete and undamaged", str(fetched), COUNTS]
        assert "7 files compared with the hashes" in done.stdout

    def test_files_that_are_changed_gone_or_new_are_named(self, cli, fetched, tmp_path):
        (fetched / "train/A/1.png").write_bytes(png(200))
        (fetched / "test/A/5.png").rename(fetched / "test/A/new.png")
        code, document = self.verify(cli, tmp_path)
        assert (code, document["right"], document["complete"]) == (1, False, True)
        assert document["changed_files"] == ["train/A/1.png"]
        assert document["missing_files"] == ["test/A/5.png"]
        assert document["extra_files"] == ["test/A/new.png"]
        done = cli(tmp_path, "data", "verify", "tiny")
        assert done.returncode == 1
        for line in (
            "1 missing:",
            "  test/A/5.png",
            "1 changed:",
            "  train/A/1.png",
            "1 not from the archive:",
        ):
            assert line in done.stdout.splitlines()

    def test_all_of_the_json(self, cli, fetched, tmp_path):
        (fetched / "test/A/5.png").unlink()
        code, document = self.verify(cli, tmp_path)
        assert code == 1
        assert document == {
            "dataset": "tiny",
            "right": False,
            "root": str(fetched),
            "complete": False,
            "images": {"test/B": 1, "train/A": 2, "train/B": 2, "val/A": 1},
            "missing": {"test/A": 1},
            "shortfall": "1 missing in test/A",
            "checked": 6,
            "by_hash": True,
            "missing_files": ["test/A/5.png"],
            "changed_files": [],
            "extra_files": [],
            "unreadable_files": {},
            "exact_copies": NONE,
            "near_duplicates": {
                "compared_pairs": 15,
                "hash_bits": HASH_BITS,
                "max_distance": MAX_DISTANCE,
                "max_false_alarms": 15 * MAX_FALSE_ALARM_RATE,
                **NONE,
            },
        }

    def test_a_long_list_is_cut(self, cli, fetched, tmp_path):
        for i in range(25):
            (fetched / f"test/A/new {i:02d}.png").touch()
        done = cli(tmp_path, "data", "verify", "tiny")
        assert done.returncode == 1
        assert "25 not from the archive:" in done.stdout
        assert "  new" not in done.stdout and "  test/A/new 09.png" in done.stdout
        assert "  and 15 more" in done.stdout
        assert "new 10.png" not in done.stdout

    def test_without_a_manifest_images_are_decoded(self, cli, fetched, tmp_path):
        (fetched / "MANIFEST.sha256").unlink()
        code, document = self.verify(cli, tmp_path)
        assert (code, document["right"], document["by_hash"], document["checked"]) == (0, True, False, 7)
        (fetched / "train/B/3.png").write_bytes(b"no image")
        code, document = self.verify(cli, tmp_path)
        assert code == 1
        assert list(document["unreadable_files"]) == ["train/B/3.png"]
        done = cli(tmp_path, "data", "verify", "tiny")
        assert "hashes are unknown" in done.stdout

    def test_near_duplicates_are_counted_and_named(self, cli, fetched, tmp_path):
        (fetched / "MANIFEST.sha256").unlink()
        for name, seed, how in (
            ("train/A/1.png", 1, None),
            ("train/A/2.png", 1, crop),
            ("train/B/3.png", 2, None),
            ("test/A/5.png", 1, compress),
            ("test/B/6.png", 2, None),
        ):
            pixels = make_scene(seed)
            Image.fromarray(pixels if how is None else change(pixels, how)).save(fetched / name)
        code, document = self.verify(cli, tmp_path)
        assert code == 0
        near = document["near_duplicates"]
        assert near["counts"] == dict(zip(RELATIONS, (2, 0, 0, 1), strict=True))
        assert near["named"][TRAIN_AND_TEST] == [["test/A/5.png", f"train/A/{i}.png"] for i in (1, 2)]
        done = cli(tmp_path, "data", "verify", "tiny")
        assert done.returncode == 0, done.stderr
        start = done.stdout.index("exact copies: ")
        assert done.stdout[start:].startswith(
            "exact copies: 1 pair\n1 across train and test:\n  test/B/6.png ~ train/B/3.png\n"
        )
        start = done.stdout.index("near-duplicates: ")
        lines = done.stdout[start:].splitlines()
        assert lines[0].startswith("near-duplicates: 3 pairs of 7 images (21 pairs compared;")
        assert lines[1:5] == [
            "2 across train and test:",
            "  test/A/5.png ~ train/A/1.png",
            "  test/A/5.png ~ train/A/2.png",
            "1 within a split, a class and a group, which do no harm",
        ]
        assert lines[5].startswith("by chance, at most 0.0 pairs are expected")

    def test_images_that_cannot_be_compared_are_told(self, cli, fetched, tmp_path):
        shutil.rmtree(fetched / "test")
        done = cli(tmp_path, "data", "verify", "tiny")
        assert done.returncode == 1
        assert "near-duplicates were not looked for: " in done.stdout
        assert "but no test/" in done.stdout
        _, document = self.verify(cli, tmp_path)
        assert list(document["near_duplicates"]) == ["not_compared"]
        assert document["exact_copies"] == {"counts": {}, "named": {}}

    def test_a_manifest_that_is_none(self, cli, fetched, tmp_path):
        (fetched / "MANIFEST.sha256").write_text("something else\n")
        done = cli(tmp_path, "data", "verify", "tiny")
        assert done.returncode == 2
        assert "is not a list of hashes" in done.stderr

    def test_what_is_not_here(self, cli, tmp_path):
        done = cli(tmp_path, "data", "verify", "tiny")
        assert (done.returncode, done.stdout) == (2, "")
        assert "error: tiny: nothing in" in done.stderr


def test_chest_xray_is_fetched_to_where_its_loader_looks(cli, cache, tmp_path):
    """An archive with all of its names, as Kaggle has it: some of train in `val`, everything twice."""
    spec_counts = {"train/NORMAL": 1341, "train/PNEUMONIA": 3875, "test/NORMAL": 234, "test/PNEUMONIA": 390}
    counts = spec_counts | {"val/NORMAL": 8, "val/PNEUMONIA": 8}
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for folder, count in counts.items():
            for i in range(count):
                archive.writestr(f"chest_xray/{folder}/IM-{i:04d}-0001.jpeg", b"")
        archive.writestr("chest_xray/chest_xray/train/NORMAL/IM-0000-0001.jpeg", b"")
        archive.writestr("chest_xray/chest_xray/test/NORMAL/IM-0000-0001.jpeg", b"")
        archive.writestr("chest_xray/__MACOSX/._chest_xray", b"x")
    done = cli(tmp_path, "data", "fetch", "chest-xray", "--from", "archive.zip")
    assert done.returncode == 0, done.stderr
    row = status_of(cli, tmp_path, "chest-xray")
    assert (row["state"], row["root"]) == ("complete", str(cache / "chest-xray"))
    assert row["images"] == counts
    assert "10.17632/rscbjbr9sj.2" in (cache / "chest-xray/CITATION.txt").read_text()


SUITE = """
suite.name = "mine"
[[experiment]]
name = "mine"
model = "tiny_parts:build_model"
dataset = { name = "folder", root = "my images", image_size = 8, group = 'patient(\\d+)' }
optimizer = "sgd"
epochs = 2
batch_size = 8
"""


@pytest.mark.slow
def test_three_classes_of_ones_own_run_from_end_to_end(xbench, allow_user_code, tmp_path):
    random = np.random.default_rng(0)
    for label, name in enumerate(["déjà vu", "it's", "third"]):
        (tmp_path / "my images" / name).mkdir(parents=True)
        for i in range(30):
            pixels = random.integers(0, 80, (20, 24, 3)) + 80 * label
            image = Image.fromarray(pixels.astype(np.uint8)).convert("L" if i % 2 else "RGB")
            image.save(tmp_path / "my images" / name / f"patient{i // 2}_{i}.{'png' if i % 3 else 'jpeg'}")
    (tmp_path / "suite.toml").write_text(SUITE, encoding="utf-8")
    ran = Ran(xbench(tmp_path, "run", "suite.toml", *allow_user_code), tmp_path)
    assert ran.done.returncode == 0, ran.done.stderr
    (cell,) = ran.cells("mine")
    assert cell["status"] == "done"
    assert "déjà vu" in ran.done.stdout
    assert "4 test/déjà vu, 4 test/it's, 4 test/third, 26 train/déjà vu" in one_line(ran.done.stdout)
    (note,) = cell["dataset"]["notes"]
    assert note.startswith("test is 12 of 90 images: the groups of images for which a hash of the name is")
