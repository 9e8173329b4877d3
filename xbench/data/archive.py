"""Unpack an untrusted zip archive: all members are checked before any is written."""

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
    archive: Path, folder: Path, parts: set[str], max_bytes: int, on_progress: OnProgress
) -> dict[str, str]:
    """Unpack the folders of a dataset from a zip archive.

    The dataset's root is the highest folder of the archive that contains all of `parts`. Files elsewhere,
    hidden files and files that macOS adds are not unpacked. The whole archive is refused if any member could
    be written outside `folder`, or is a link or another special file.

    Args:
        archive: path of the zip file.
        folder: existing, empty folder to unpack `parts` into. After an error its contents are unusable.
        parts: names of folders (`"train"`, `"test"`). Folders of validation images next to them are unpacked
            too.
        max_bytes: limit on the total unpacked size of the archive's files.
        on_progress: called with (done_bytes, total_bytes) after each unpacked file.

    Returns:
        The SHA-256 of each file in hex, keyed by its name relative to `folder` and sorted by name.

    Raises:
        XbenchError: the file is not a zip archive, is damaged or dangerous, or does not contain `parts`; or
            the disk has too little space.
    """
    with _zip_errors(archive), zipfile.ZipFile(archive) as file:
        members = _check_members(archive, file.infolist(), max_bytes)
        root = _find_root(archive, members, parts)
        wanted = _select_files(root, members, parts | set(VALIDATION_FOLDERS))
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
def _zip_errors(archive: Path) -> Iterator[None]:
    """Convert the errors that zipfile and zlib raise for a bad archive to an error with a hint."""
    hint = "download the archive again"
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError) as error:
        raise XbenchError(f"{archive} is not a zip archive or is damaged: {error}", hint) from error
    except OSError as error:
        where = error.filename or archive
        raise XbenchError(f"{archive} cannot be unpacked: {where}: {error.strerror or error}") from error


def _check_members(
    archive: Path, members: list[zipfile.ZipInfo], max_bytes: int
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Check the members of an archive and return its files by name.

    Raises:
        XbenchError: a member cannot be trusted, names conflict, or the files are larger than `max_bytes`.
    """
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in members:
        if problem := _find_problem(member):
            raise _refusal(archive, f"{member.orig_filename!a} {problem}")
        if member.is_dir():
            continue
        name = PurePosixPath(member.filename)
        if name in files:
            raise _refusal(archive, f"it contains {member.filename!a} twice")
        files[name] = member
    for name in files:
        if above := next((above for above in name.parents if above in files), None):
            raise _refusal(archive, f"it contains {str(above)!a} both as a file and as a folder")
    total_bytes = sum(member.file_size for member in files.values())
    if total_bytes > max_bytes:
        raise _refusal(
            archive,
            f"it would unpack to {format_bytes(total_bytes)}, "
            f"more than the limit of {format_bytes(max_bytes)}",
        )
    return files


def _find_problem(member: zipfile.ZipInfo) -> str:
    """Return why a member cannot be trusted; "" if it can."""
    name = member.orig_filename  # the name as stored: `filename` is cut off at a NUL byte
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or "\\" in name or _DRIVE.match(name):
        return "would be written outside the folder"
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        return "would be written outside the folder or has an invalid name"
    if _CONTROL.search(name):
        return "has a name with control characters"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR and not member.is_dir()):
        return "is a link or a special file"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in _METHODS:
        return "uses an unsupported compression method"
    return ""


def _refusal(archive: Path, why: str) -> XbenchError:
    return XbenchError(
        f"{archive} was not unpacked: {why}",
        hint="nothing was written; check that this is the dataset's archive",
    )


def _find_root(
    archive: Path, members: dict[PurePosixPath, zipfile.ZipInfo], parts: set[str]
) -> PurePosixPath:
    """Find the highest folder that contains all of `parts`; some archives hold copies further down."""
    found: dict[PurePosixPath, set[str]] = {}
    for name in members:
        if any(map(is_clutter, name.parts)):
            continue
        for folder in name.parents:
            if folder.name in parts:
                found.setdefault(folder.parent, set()).add(folder.name)
    roots = [folder for folder, here in found.items() if here == parts]
    if not roots:
        wanted = " and ".join(f"{part}/" for part in sorted(parts))
        raise _refusal(archive, f"it has no folder that contains {wanted}")
    return min(roots, key=lambda folder: (len(folder.parts), folder))


def _select_files(
    root: PurePosixPath, members: dict[PurePosixPath, zipfile.ZipInfo], parts: set[str]
) -> dict[str, zipfile.ZipInfo]:
    """Select the files in `parts` of the root, keyed by their names relative to it and sorted by name."""
    relative = {
        name.relative_to(root): member for name, member in members.items() if name.is_relative_to(root)
    }
    return {
        str(name): member
        for name, member in sorted(relative.items())
        if name.parts[0] in parts and not any(map(is_clutter, name.parts))
    }


def _write(file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> str:
    """Unpack one member and return its SHA-256.

    zipfile checks the member's CRC and reads no more bytes than the archive declares.
    """
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
