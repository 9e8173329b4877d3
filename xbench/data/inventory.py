"""What of a dataset is on this machine: which images are there, and whether their content is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from xbench.components.image_files import VALIDATION_FOLDERS, list_images
from xbench.components.images import read_image, why_unreadable
from xbench.components.settings import settings_of
from xbench.components.specs import DatasetSpec, Source
from xbench.errors import DataNotFound, XbenchError
from xbench.memory.processor import usable_cpus
from xbench.storage.downloads import sha256_of

# One line a file as `sha256sum` writes it, so that `sha256sum -c MANIFEST.sha256` checks it without xbench.
MANIFEST = "MANIFEST.sha256"

# Large enough for a file to be decoded, small enough for that to be quick.
_TRIAL_SIDE = 64

OnProgress = Callable[[int, int], None]
FindRoot = Callable[[], Path]


@dataclass(frozen=True)
class Inventory:
    """The images of a dataset in one folder, and those that should be there.

    Attributes:
        root: the folder.
        counts: images by folder below the root (`"train/NORMAL"`), as they lie there.
        missing: for each folder of the source, how many images it lacks (below zero: has too many), with
            those for validation counted as train; folders with the right number are left out.
    """

    root: Path
    counts: Mapping[str, int]
    missing: Mapping[str, int]

    @property
    def is_complete(self) -> bool:
        return not self.missing

    @property
    def shortfall(self) -> str:
        """What is missing, for people."""
        return ", ".join(
            f"{count:,} missing in {folder}" if count > 0 else f"{-count:,} too many in {folder}"
            for folder, count in self.missing.items()
        )


@dataclass(frozen=True)
class Presence:
    """Whether a dataset is on this machine.

    Attributes:
        inventory: what is there; None if nothing is, or if it cannot be told.
        how_to_get: what a user does to have it; "" if it is there, or is made by xbench.
    """

    inventory: Inventory | None
    how_to_get: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a look at every file of a dataset found.

    Attributes:
        inventory: what is there.
        checked: number of files that were read.
        by_hash: they were compared with the manifest; if not, they were only decoded.
        missing_files, changed_files, extra_files: names, against the manifest.
        unreadable_files: reasons by name.
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
    """Count the images in a dataset's folders; none is opened.

    Raises:
        XbenchError: a folder cannot be listed.
    """
    parts = sorted({folder.split("/")[0] for folder in source.counts} | set(VALIDATION_FOLDERS))
    counts: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for part in parts:
        for name in list_images(root / part) if (root / part).is_dir() else ():
            # What lies further down belongs to the class that it is in.
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
        # A factory that is named by a string may import much: it is left alone.
        needs = () if isinstance(spec.factory, str) else settings_of(spec).required
        how = f"give the suite's dataset its `{'`, `'.join(needs)}`" if needs else f"see `xbench info {name}`"
        return Presence(None, how)
    try:
        return Presence(take_inventory(spec.find_root(), spec.source))
    except DataNotFound:
        return Presence(None, f"`xbench data fetch {name}`")


def published_source(name: str, spec: DatasetSpec) -> tuple[Source, FindRoot]:
    """Return where a dataset comes from, and the function that finds it on this machine.

    Raises:
        XbenchError: it has no source that xbench knows.
    """
    if spec.source is not None and spec.find_root is not None:
        return spec.source, spec.find_root
    why = "is made by xbench itself" if spec.stand_in else "has no published archive that xbench knows"
    raise XbenchError(
        f"dataset '{name}' {why}, so there is nothing to fetch or verify",
        hint="`xbench data status` shows which datasets have one",
    )


def verify(root: Path, source: Source, on_progress: OnProgress) -> Verdict:
    """Read every image of a dataset: against the manifest if there is one, else by decoding it.

    Args:
        on_progress: called with (done, total) files.

    Raises:
        XbenchError: a folder cannot be listed, or the manifest is none.
    """
    inventory = take_inventory(root, source)
    images = [f"{part}/{name}" for part in _parts(inventory) for name in list_images(root / part)]
    if not (root / MANIFEST).is_file():
        reasons = _for_each(images, lambda name: _why_unreadable(root / name), on_progress)
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
    """Write down the sha256 of each file by its name relative to `root`."""
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
            f"{path} is not a list of hashes: {error}", hint="remove it to have the images decoded instead"
        ) from error
    return expected


def _parts(inventory: Inventory) -> list[str]:
    return sorted({folder.split("/")[0] for folder in inventory.counts})


def _hash_or_reason(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        return str(error.strerror)


def _why_unreadable(path: Path) -> str:
    try:
        read_image(path, _TRIAL_SIDE, _TRIAL_SIDE)
    except Exception as error:  # Pillow raises many kinds
        return why_unreadable(error)
    return ""


def _for_each(names: Iterable[str], look: Callable[[str], str], on_progress: OnProgress) -> dict[str, str]:
    """`look` at each name, on all processors: what it says, in the order of names."""
    with ThreadPoolExecutor(usable_cpus()) as pool:
        futures = {name: pool.submit(look, name) for name in names}
        try:
            for done, _ in enumerate(as_completed(futures.values()), start=1):
                on_progress(done, len(futures))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # not thousands more for nothing
            raise
        return {name: future.result() for name, future in futures.items()}
