"""Inventory of a dataset's local files: which images are present, and whether their content is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from xbench.components.image_files import VALIDATION_FOLDERS, list_images
from xbench.components.images import describe_unreadable, read_image
from xbench.components.settings import settings_of
from xbench.components.specs import DatasetSpec, Source
from xbench.errors import DataNotFound, XbenchError
from xbench.memory.processor import usable_cpus
from xbench.storage.downloads import sha256_of

# One line per file, as `sha256sum` writes it: `sha256sum -c MANIFEST.sha256` checks the files without xbench.
MANIFEST = "MANIFEST.sha256"

# Height and width that images are decoded to for a check: small, to be fast.
_TRIAL_SIDE = 64

OnProgress = Callable[[int, int], None]
FindRoot = Callable[[], Path]


@dataclass(frozen=True)
class Inventory:
    """Counts of a dataset's local images, compared with the expected ones.

    Attributes:
        root: the dataset's folder.
        counts: number of images in each folder below the root (`"train/NORMAL"`).
        missing: number of images that each of the source's folders lacks; negative if it has too many.
            Validation images count as train, and folders with the right number are left out.
    """

    root: Path
    counts: Mapping[str, int]
    missing: Mapping[str, int]

    @property
    def is_complete(self) -> bool:
        return not self.missing

    @property
    def shortfall(self) -> str:
        """Readable description of `missing`."""
        return ", ".join(
            f"{count:,} missing in {folder}" if count > 0 else f"{-count:,} too many in {folder}"
            for folder, count in self.missing.items()
        )


@dataclass(frozen=True)
class Presence:
    """Result of looking for a dataset on this machine.

    Attributes:
        inventory: the dataset's images; None if there are none, or if xbench cannot count them.
        how_to_get: what a user must do to get the dataset; "" if it is present, or xbench generates it.
    """

    inventory: Inventory | None
    how_to_get: str = ""


@dataclass(frozen=True)
class Verdict:
    """Result of checking every file of a dataset.

    Attributes:
        inventory: the dataset's images.
        checked: number of files that were read.
        by_hash: whether files were compared with the manifest; otherwise they were only decoded.
        missing_files, changed_files, extra_files: names of the files that differ from the manifest.
        unreadable_files: reason by name for each file that cannot be decoded.
    """

    inventory: Inventory
    checked: int
    by_hash: bool
    missing_files: tuple[str, ...] = ()
    changed_files: tuple[str, ...] = ()
    extra_files: tuple[str, ...] = ()
    unreadable_files: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_right(self) -> bool:
        found = self.missing_files or self.changed_files or self.extra_files or self.unreadable_files
        return self.inventory.is_complete and not found


def take_inventory(root: Path, source: Source) -> Inventory:
    """Count the images in a dataset's folders, without opening any.

    Raises:
        XbenchError: a folder cannot be listed.
    """
    parts = sorted({folder.split("/")[0] for folder in source.counts} | set(VALIDATION_FOLDERS))
    counts: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for part in parts:
        for name in list_images(root / part) if (root / part).is_dir() else ():
            # Images in deeper folders belong to the class folder that contains them.
            class_folder = name.parts[:-1][:1]
            counts["/".join((part, *class_folder))] += 1
            found["/".join(("train" if part in VALIDATION_FOLDERS else part, *class_folder))] += 1
    folders = {**source.counts, **found}
    missing = {folder: source.counts.get(folder, 0) - found[folder] for folder in folders}
    return Inventory(root, dict(sorted(counts.items())), {k: count for k, count in missing.items() if count})


def presence(name: str, spec: DatasetSpec) -> Presence:
    """Look for a dataset where its loader would.

    Raises:
        XbenchError: its folder cannot be listed.
    """
    if spec.source is None or spec.find_root is None:
        if spec.stand_in:
            return Presence(None)
        # Loading a factory that is named by a string may import large libraries.
        needs = () if isinstance(spec.factory, str) else settings_of(spec).required
        settings = ", ".join(f"`{need}`" for need in needs)
        how = f"set {settings} of the dataset in the suite" if needs else f"see `xbench info {name}`"
        return Presence(None, how)
    try:
        return Presence(take_inventory(spec.find_root(), spec.source))
    except DataNotFound:
        return Presence(None, f"`xbench data fetch {name}`")


def published_source(name: str, spec: DatasetSpec) -> tuple[Source, FindRoot]:
    """Return a dataset's source, and the function that finds the dataset on this machine.

    Raises:
        XbenchError: the dataset has no source.
    """
    if spec.source is not None and spec.find_root is not None:
        return spec.source, spec.find_root
    why = "is generated by xbench" if spec.stand_in else "has no published archive that xbench knows"
    raise XbenchError(
        f"dataset '{name}' {why}, so there is nothing to fetch or verify",
        hint="`xbench data status` shows which datasets have a published archive",
    )


def verify(root: Path, source: Source, on_progress: OnProgress) -> Verdict:
    """Read every image of a dataset, and compare it with the manifest if there is one; otherwise decode it.

    Args:
        on_progress: called with (done, total) files.

    Raises:
        XbenchError: a folder cannot be listed, or the manifest cannot be read.
    """
    inventory = take_inventory(root, source)
    images = [f"{part}/{name}" for part in _list_parts(inventory) for name in list_images(root / part)]
    if not (root / MANIFEST).is_file():
        reasons = _for_each(images, lambda name: _explain_unreadable(root / name), on_progress)
        return Verdict(
            inventory, len(images), False, unreadable_files={k: why for k, why in reasons.items() if why}
        )
    expected = _read_manifest(root / MANIFEST)
    present = [name for name in expected if (root / name).is_file()]
    hashes = _for_each(present, lambda name: _hash_or_reason(root / name), on_progress)
    return Verdict(
        inventory,
        len(present),
        True,
        missing_files=tuple(sorted(set(expected) - set(present))),
        changed_files=tuple(name for name in present if hashes[name] != expected[name]),
        extra_files=tuple(sorted(set(images) - set(expected))),
    )


def write_manifest(root: Path, hashes: Mapping[str, str]) -> None:
    """Write the SHA-256 of each file to the manifest.

    Args:
        root: the dataset's folder, which the manifest is written to.
        hashes: SHA-256 in hex by name relative to `root`.
    """
    lines = [f"{digest}  {name}\n" for name, digest in sorted(hashes.items())]
    (root / MANIFEST).write_text("".join(lines), encoding="utf-8")


def _read_manifest(path: Path) -> dict[str, str]:
    expected = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            digest, mark, name = line[:64], line[64:66], line[66:]
            if mark not in ("  ", " *") or not name:
                raise ValueError(f"'{line[:80]}'")
            expected[name] = digest
    except (OSError, ValueError) as error:
        raise XbenchError(
            f"{path} is not a list of hashes: {error}",
            hint="remove it to check that the images decode instead",
        ) from error
    return expected


def _list_parts(inventory: Inventory) -> list[str]:
    return sorted({folder.split("/")[0] for folder in inventory.counts})


def _hash_or_reason(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        return str(error.strerror)


def _explain_unreadable(path: Path) -> str:
    try:
        read_image(path, _TRIAL_SIDE, _TRIAL_SIDE)
    except Exception as error:  # Pillow raises many types
        return describe_unreadable(error)
    return ""


def _for_each(names: Iterable[str], check: Callable[[str], str], on_progress: OnProgress) -> dict[str, str]:
    """Call `check` with each name, on all processors, and return its results in the order of names."""
    with ThreadPoolExecutor(usable_cpus()) as pool:
        futures = {name: pool.submit(check, name) for name in names}
        try:
            for done, _ in enumerate(as_completed(futures.values()), start=1):
                on_progress(done, len(futures))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # do not check the remaining files
            raise
        return {name: future.result() for name, future in futures.items()}
