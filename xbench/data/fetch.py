"""Fetch a published dataset: download its archive, check it, and unpack it into the cache as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from xbench.components.specs import Source
from xbench.data.archive import unpack
from xbench.data.inventory import Inventory, take_inventory, write_manifest
from xbench.errors import DownloadFailed, XbenchError
from xbench.storage.downloads import download, sha256_of
from xbench.storage.locks import LockHeld, hold_place
from xbench.storage.paths import cache_dir, disk_errors, require_space
from xbench.storage.staging import replace_folder, staging_folder

# An archive whose files are larger than expected by more than this factor is taken for a zip bomb. (Kaggle's
# archive contains every file twice.)
_MAX_UNPACKED_RATIO = 4

# Called with the stage ("downloading", "unpacking"), the bytes done and the total bytes; 0 if not known.
OnStage = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fetched:
    """A dataset that was fetched.

    Attributes:
        inventory: the images that are now in place.
        sha256: SHA-256 of the archive, in hex.
        is_published: whether the archive is the one that the source describes.
    """

    inventory: Inventory
    sha256: str
    is_published: bool


def destination(source: Source) -> Path:
    """Return the folder that a dataset is fetched to."""
    return cache_dir() / source.folder


def fetch(
    source: Source, on_stage: OnStage, url: str = "", sha256: str = "", replace: bool = False
) -> Fetched:
    """Download a dataset's archive into the cache, and unpack it there.

    Args:
        source: the published dataset.
        on_stage: called with progress.
        url, sha256: the archive's, instead of the source's.
        replace: replace the destination if it already exists.

    Raises:
        DownloadFailed: the archive cannot be downloaded.
        XbenchError: the archive is the wrong one, damaged or dangerous; the disk has too little space; the
            destination already exists; or another process is filling it.
    """
    url, sha256 = url or source.url, (sha256 or source.sha256).lower()
    if not sha256:
        raise XbenchError(f"the SHA-256 of {url} is unknown", hint="pass it with --sha256")
    is_published = sha256 == source.sha256
    with _open_workplace(source, replace) as workplace:
        if is_published:
            needed_bytes = source.size_bytes + source.unpacked_bytes
            require_space(workplace, needed_bytes, "the archive, with its unpacked files,")
        archive = workplace / "archive.zip"
        try:
            download(
                url,
                archive,
                sha256,
                lambda *at: on_stage("downloading", *at),
                on_step=lambda step: on_stage(f"downloading ({step})", 0, 0),
            )
        except DownloadFailed as error:
            manually = f"or download it from {source.page} yourself, and pass the file with --from"
            raise DownloadFailed(error.message, hint=f"{error.hint}\n{manually}") from error
        inventory = _put_in_place(source, archive, url, sha256, workplace, on_stage, replace)
    return Fetched(inventory, sha256, is_published)


def fetch_from(source: Source, archive: Path, on_stage: OnStage, replace: bool = False) -> Fetched:
    """Unpack a local archive into the cache, and keep the archive.

    It need not be the published archive, but must contain the same number of images in each folder.

    Raises:
        XbenchError: as for `fetch`; or the archive cannot be read.
    """
    with _open_workplace(source, replace) as workplace:
        try:
            sha256 = sha256_of(archive, lambda *at: on_stage("hashing", *at))
        except OSError as error:
            raise XbenchError(f"{archive} cannot be read: {error.strerror}") from error
        inventory = _put_in_place(source, archive, archive.name, sha256, workplace, on_stage, replace)
    return Fetched(inventory, sha256, sha256 == source.sha256)


@contextmanager
def _open_workplace(source: Source, replace: bool) -> Iterator[Path]:
    """Create a staging folder for the destination, and keep other processes from doing so."""
    place = destination(source)
    with disk_errors(f"{place} cannot be filled"), ExitStack() as stack:
        try:
            stack.enter_context(hold_place(place))
        except LockHeld as error:
            raise XbenchError(f"another process is filling {place}", hint=error.hint) from error
        _check_free(place, replace)
        yield stack.enter_context(staging_folder(place))


def _check_free(place: Path, replace: bool) -> None:
    if place.exists() and any(place.iterdir()) and not replace:
        raise XbenchError(f"{place} already exists", hint="remove or rename it, or replace it with --force")


def _put_in_place(
    source: Source,
    archive: Path,
    origin: str,
    sha256: str,
    workplace: Path,
    on_stage: OnStage,
    replace: bool,
) -> Inventory:
    """Unpack within the workplace, check that no image is missing, and then rename to the destination."""
    unpacked = workplace / "unpacked"
    unpacked.mkdir()
    parts = {folder.split("/")[0] for folder in source.counts}
    max_bytes = _MAX_UNPACKED_RATIO * source.unpacked_bytes
    hashes = unpack(archive, unpacked, parts, max_bytes, lambda *at: on_stage("unpacking", *at))
    inventory = take_inventory(unpacked, source)
    if not inventory.is_complete:
        raise XbenchError(
            f"{origin} does not contain the images of this dataset: {inventory.shortfall}",
            hint=f"nothing was kept; see {source.page} for a description of the dataset",
        )
    on_stage("putting the images in place", 0, 0)
    write_manifest(unpacked, hashes)
    (unpacked / "LICENCE.txt").write_text(f"{source.licence}\n", encoding="utf-8")
    (unpacked / "CITATION.txt").write_text(
        f"{source.citation}\n\nPublished at {source.page}\nUnpacked from {origin}, sha256 {sha256}\n",
        encoding="utf-8",
    )
    place = destination(source)
    _check_free(place, replace)
    replace_folder(unpacked, place)
    return take_inventory(place, source)
