"""Unpacking archives of others: what belongs to the dataset, and nothing at all of a dangerous one."""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from xbench.data.archive import unpack
from xbench.errors import XbenchError

PARTS = {"train", "test"}
FILES = {
    "set/train/A/1.png": b"one",
    "set/train/B/2.png": b"two" * 1000,
    "set/test/A/3.png": b"three",
    "set/test/B/odd name é.png": b"four",
}


def make_zip(
    path: Path, files: dict[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def unpack_files(tmp_path):
    """`unpack_files(files)`: unpack a zip of these into an empty folder, which is returned."""

    def run(files=None, archive: Path | None = None, max_bytes: int = 10**6) -> tuple[Path, dict[str, str]]:
        folder = tmp_path / "unpacked"
        folder.mkdir()
        archive = archive or make_zip(tmp_path / "set.zip", files)
        return folder, unpack(archive, folder, PARTS, max_bytes, lambda done, total: None)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def below_set(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name.removeprefix("set/"): content for name, content in files.items()}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_and_their_hashes(tmp_path, method):
    (tmp_path / "out").mkdir()
    heard = []
    archive = make_zip(tmp_path / "set.zip", FILES, method)
    hashes = unpack(archive, tmp_path / "out", PARTS, 10**6, lambda *at: heard.append(at))
    assert contents(tmp_path / "out") == below_set(FILES)
    assert hashes == {k: hashlib.sha256(v).hexdigest() for k, v in below_set(FILES).items()}
    assert list(hashes) == sorted(hashes)
    total = sum(map(len, FILES.values()))
    assert heard[-1] == (total, total)
    assert len(heard) == len(FILES)


@pytest.mark.parametrize("prefix", ["", "chest_xray/", "a/b/c/"])
def test_the_root_may_lie_at_any_depth(unpack_files, prefix):
    folder, _ = unpack_files({f"{prefix}{name}": data for name, data in below_set(FILES).items()})
    assert contents(folder) == below_set(FILES)


def test_clutter_and_copies_further_down_stay_in_the_archive(unpack_files):
    copies = {f"set/{name}": b"a copy" for name in FILES}
    clutter = {
        "__MACOSX/set/train/A/._1.png": b"x",
        "set/__MACOSX/train/A/1.png": b"x",
        "set/train/A/._1.png": b"x",
        "set/train/.DS_Store": b"x",
        "set/.DS_Store": b"x",
        "set/readme.txt": b"x",
        "other/train/A/1.png": b"x",
    }
    folder, hashes = unpack_files(copies | clutter | FILES)
    assert contents(folder) == below_set(FILES)
    assert set(hashes) == set(below_set(FILES))


def test_validation_comes_along(unpack_files):
    folder, _ = unpack_files(FILES | {"set/val/A/9.png": b"nine"})
    assert contents(folder) == below_set(FILES) | {"val/A/9.png": b"nine"}


def test_folders_have_entries_of_their_own_in_many_archives(unpack_files):
    folder, _ = unpack_files({"set/": b"", "set/train/": b"", "set/train/A/": b""} | FILES)
    assert contents(folder) == below_set(FILES)


@pytest.mark.parametrize("files", [{}, {"set/train/A/1.png": b"x"}, {"train": b"", "test": b""}])
def test_an_archive_without_the_parts_is_another_one(unpack_files, files):
    with pytest.raises(XbenchError, match="it has no folder that contains test/ and train/"):
        unpack_files(files)


def special(name: str, kind: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system = 3
    member.external_attr = (kind | 0o777) << 16
    return member


DANGEROUS = {
    "parent": ("set/train/../../../escaped.png", "would be written outside"),
    "parent of all": ("../escaped.png", "would be written outside"),
    "absolute": ("/tmp/escaped.png", "would be written outside"),
    "backslash": ("set\\..\\..\\escaped.png", "would be written outside"),
    "drive": ("C:escaped.png", "would be written outside"),
    "here": ("set/./train/A/4.png", "has an invalid name"),
    "empty": ("set//train/A/4.png", "has an invalid name"),
    "line break": ("set/train/A/4\n.png", "control characters"),
    "link": (special("set/train/A/4.png", stat.S_IFLNK), "is a link or a special file"),
    "link in clutter": (special("__MACOSX/4.png", stat.S_IFLNK), "is a link or a special file"),
    "pipe": (special("set/train/A/4.png", stat.S_IFIFO), "is a link or a special file"),
    "device": (special("set/train/A/4.png", stat.S_IFCHR), "is a link or a special file"),
    "folder that is none": (special("set/train/A/4.png", stat.S_IFDIR), "is a link or a special file"),
    "file as folder": ("set/train/A/1.png/4.png", "both as a file and as a folder"),
}


@pytest.mark.parametrize("kind", DANGEROUS)
def test_a_dangerous_member_refuses_the_whole_archive(unpack_files, tmp_path, kind):
    member, complaint = DANGEROUS[kind]
    with pytest.raises(XbenchError, match=complaint) as caught:
        unpack_files(FILES | {member: b"../../../../etc/passwd"})
    assert "was not unpacked" in caught.value.message
    assert list((tmp_path / "unpacked").iterdir()) == []
    assert not any(path.name.startswith("escaped") for path in tmp_path.parent.rglob("*"))
    assert not Path("/tmp/escaped.png").exists()


def test_a_name_that_is_there_twice(unpack_files, tmp_path):
    archive = make_zip(tmp_path / "set.zip", FILES)
    with zipfile.ZipFile(archive, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("set/train/A/1.png", b"another")
    with pytest.raises(XbenchError, match=r"contains .* twice"):
        unpack_files(archive=archive)


def test_an_encrypted_member(unpack_files, tmp_path):
    archive = make_zip(tmp_path / "set.zip", FILES)
    raw = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + offset] |= 1
    archive.write_bytes(raw)
    with pytest.raises(XbenchError, match="is encrypted"):
        unpack_files(archive=archive)


def test_a_bomb_is_refused_by_what_it_declares(unpack_files, tmp_path):
    with pytest.raises(XbenchError, match=r"would unpack to 5.00 MB, more than the limit of 1.00 MB"):
        unpack_files(FILES | {"elsewhere.bin": bytes(5_000_000)})
    assert list((tmp_path / "unpacked").iterdir()) == []


def declare(archive: Path, name: str, size: int) -> None:
    """Change the size that an archive says a member has."""
    raw = bytearray(archive.read_bytes())
    for signature, size_at, name_at in ((b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)):
        start = raw.index(signature)
        while raw[start + name_at : start + name_at + len(name)] != name.encode():
            start = raw.index(signature, start + 1)
        raw[start + size_at : start + size_at + 4] = struct.pack("<I", size)
    archive.write_bytes(raw)


@pytest.mark.parametrize("size", [10, 2999, 3001, 10**5])
def test_a_member_of_another_size_than_it_declares(unpack_files, tmp_path, size):
    archive = make_zip(tmp_path / "set.zip", FILES)
    declare(archive, "set/train/B/2.png", size)
    with pytest.raises(XbenchError, match="damaged"):
        unpack_files(archive=archive)
    written = tmp_path / "unpacked/train/B/2.png"
    assert not written.exists() or written.stat().st_size <= 3000


def test_changed_data_does_not_fit_its_crc(unpack_files, tmp_path):
    archive = make_zip(tmp_path / "set.zip", FILES, zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"three", b"THREE"))
    with pytest.raises(XbenchError, match=r"damaged: Bad CRC-32"):
        unpack_files(archive=archive)


@pytest.mark.parametrize("content", [b"", b"<html>Please log in</html>", "half", "garbage within"])
def test_what_is_no_whole_zip(unpack_files, tmp_path, content):
    archive = make_zip(tmp_path / "set.zip", FILES)
    whole = archive.read_bytes()
    if content == "half":
        content = whole[: len(whole) // 2]
    elif content == "garbage within":
        content = whole[:60] + bytes(40) + whole[100:]
    archive.write_bytes(content)
    with pytest.raises(XbenchError, match="is not a zip archive or is damaged"):
        unpack_files(archive=archive)


def test_no_such_file(unpack_files, tmp_path):
    with pytest.raises(XbenchError, match=r"cannot be unpacked.*No such file"):
        unpack_files(archive=tmp_path / "none.zip")


def test_room_is_checked_first(unpack_files, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2999}))
    with pytest.raises(XbenchError, match=r"unpacking set.zip needs .* free"):
        unpack_files(FILES)
    assert list((tmp_path / "unpacked").iterdir()) == []
