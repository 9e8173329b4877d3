"""Unpacking a zip archive that somebody else made: all of it is checked before any of it is written."""

from __future__ import annotations

import hashlib
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from xbench.components.image_files import VALIDATION_FOLDERS, is_clutter
from xbench.errors import XbenchError
from xbench.storage.paths import disk_errors, require_space
from xbench.units import format_bytes

OnProgress = Callable[[int, int], None]

_CHUNK_BYTES = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def unpack(
    archive: Path, folder: Path, parts: set[str], most_bytes: int, on_progress: OnProgress
) -> dict[str, str]:
    """Unpack the folders of a dataset from a zip archive.

    The dataset's root is the highest folder of the archive that holds all of `parts`; what lies elsewhere,
    hidden files and what macOS adds stay in the archive. An archive with anything in it that could end up
    elsewhere, or be something else than a file, is refused as a whole.

    Args:
        archive: a zip file.
        folder: where `parts` will lie; it exists and is empty. What is in it after an error is of no use.
        parts: names of folders (`"train"`, `"test"`); folders beside them that hold images for validation
            are unpacked too.
        most_bytes: the most that the files of the archive may come to.
        on_progress: called with (done_bytes, total_bytes) of what is unpacked.

    Returns:
        The sha256 in hex of each file, by its name relative to `folder`, in the order of names.

    Raises:
        XbenchError: it is no zip archive, is damaged, is dangerous, does not hold `parts`, or there is no
            room for it.
    """
    with _understandable(archive), zipfile.ZipFile(archive) as file:
        members = _check_members(archive, file.infolist(), most_bytes)
        root = _root(archive, members, parts)
        wanted = _below(root, members, parts | set(VALIDATION_FOLDERS))
        total_bytes = sum(member.file_size for member in wanted.values())
        require_space(folder, total_bytes, f"unpacking {archive.name}")
        hashes: dict[str, str] = {}
        done_bytes = 0
        for name, member in wanted.items():
            with disk_errors(f"{archive} cannot be unpacked in {folder.parent}"):
                hashes[name] = _write(file, member, folder / name)
            done_bytes += member.file_size
            on_progress(done_bytes, total_bytes)
    return hashes


@contextmanager
def _understandable(archive: Path) -> Iterator[None]:
    """What zipfile and zlib say of a bad archive, as an error that a user can mend."""
    hint = "get it again, whole"
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError) as error:
        raise XbenchError(f"{archive} is no zip archive, or is damaged: {error}", hint) from error
    except OSError as error:
        what = error.filename or archive
        raise XbenchError(f"{archive} cannot be unpacked: {what}: {error.strerror or error}") from error


def _check_members(
    archive: Path, members: list[zipfile.ZipInfo], most_bytes: int
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files of an archive by their names.

    Raises:
        XbenchError: one of them, or all together, are not what a dataset's archive holds.
    """
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in members:
        if problem := _problem(member):
            raise _refusal(archive, f"{member.orig_filename!a} {problem}")
        if member.is_dir():
            continue
        name = PurePosixPath(member.filename)
        if name in files:
            raise _refusal(archive, f"{member.filename!a} is in it twice")
        files[name] = member
    for name in files:
        if above := next((above for above in name.parents if above in files), None):
            raise _refusal(archive, f"{str(above)!a} is in it both as a file and as a folder")
    total_bytes = sum(member.file_size for member in files.values())
    if total_bytes > most_bytes:
        raise _refusal(
            archive,
            f"it would unpack to {format_bytes(total_bytes)}, far beyond the {format_bytes(most_bytes)} that "
            "are to be expected",
        )
    return files


def _problem(member: zipfile.ZipInfo) -> str:
    """Why a member cannot be trusted, or ""."""
    name = member.orig_filename  # as it is in the archive: `filename` ends at a NUL
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or "\\" in name or _DRIVE.match(name):
        return "would lie outside of the folder"
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        return "would lie outside of the folder, or has no proper name"
    if _CONTROL.search(name):
        return "has a name with control characters"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR and not member.is_dir()):
        return "is a link or a special file"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in _METHODS:
        return "is packed in a way that is not known here"
    return ""


def _refusal(archive: Path, why: str) -> XbenchError:
    return XbenchError(
        f"{archive} was not unpacked: {why}", hint="nothing was written; is this the archive of the dataset?"
    )


def _root(archive: Path, members: dict[PurePosixPath, zipfile.ZipInfo], parts: set[str]) -> PurePosixPath:
    """The folder that holds all of `parts`: the highest, as some archives hold copies further down."""
    found: dict[PurePosixPath, set[str]] = {}
    for name in members:
        if any(map(is_clutter, name.parts)):
            continue
        for folder in name.parents:
            if folder.name in parts:
                found.setdefault(folder.parent, set()).add(folder.name)
    roots = [folder for folder, here in found.items() if here == parts]
    if not roots:
        raise _refusal(archive, f"no folder in it holds {' and '.join(f'{part}/' for part in sorted(parts))}")
    return min(roots, key=lambda folder: (len(folder.parts), folder))


def _below(
    root: PurePosixPath, members: dict[PurePosixPath, zipfile.ZipInfo], parts: set[str]
) -> dict[str, zipfile.ZipInfo]:
    """The files in `parts` of the root, by their names below it, in their order."""
    relative = {
        name.relative_to(root): member for name, member in members.items() if name.is_relative_to(root)
    }
    return {
        str(name): member
        for name, member in sorted(relative.items())
        if name.parts[0] in parts and not any(map(is_clutter, name.parts))
    }


def _write(file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> str:
    """Unpack one member, and return its hash. zipfile checks its CRC, and reads no more than it declares."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    written_bytes = 0
    with file.open(member) as source, path.open("xb") as target:
        while chunk := source.read(_CHUNK_BYTES):
            target.write(chunk)
            digest.update(chunk)
            written_bytes += len(chunk)
    if written_bytes != member.file_size:
        raise zipfile.BadZipFile(f"{member.filename!a} has {written_bytes:,} bytes, not {member.file_size:,}")
    return digest.hexdigest()
