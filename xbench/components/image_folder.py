"""The user's own images, with one folder for each class, as most image sets are published."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from xbench.components.folder_layout import (
    check_are_classes,
    check_split_folders,
    find_splits,
    list_folders,
    parse_split,
    quote_all,
)
from xbench.components.image_dataset import Dataset, Example
from xbench.components.image_files import FoundFiles, find_files, list_loose_images, note_unused_files
from xbench.components.image_selection import Selection, make_selection
from xbench.components.images import IMAGE_SUFFIXES, check_image_size, read_square
from xbench.components.specs import DatasetSpec
from xbench.errors import DataNotFound, XbenchError
from xbench.storage.paths import expand_user
from xbench.text import pluralize, quote_some

_MAX_SUBFOLDERS = 5


@dataclass
class _Listing:
    """The files in the folders of the classes.

    Attributes:
        examples: the images that are used.
        files: all files, with names relative to the root.
        excluded: number of images that `pattern` and `exclude` leave out.
        subfolders: number of images by the subfolder of a class that they are in; "" for the class's folder.
    """

    examples: list[Example] = field(default_factory=list)
    files: FoundFiles = field(default_factory=FoundFiles)
    excluded: int = 0
    subfolders: Counter[str] = field(default_factory=Counter)

    def add_class(self, root: Path, class_folder: str, label: int, split: str, selection: Selection) -> None:
        """Add the files of a class, whose folder is relative to the root."""
        found = find_files(root / class_folder)
        self.files.add(found, class_folder)
        for relative in found.images:
            path = str(relative)
            if not selection.selects(path):
                self.excluded += 1
                continue
            self.subfolders[relative.parts[0] if len(relative.parts) > 1 else ""] += 1
            self.examples.append(
                Example(
                    name=f"{class_folder}/{path}",
                    label=label,
                    split="test" if split == "test" else "train",
                    group=selection.find_group(path),
                    path=root / class_folder / relative,
                )
            )


def build_folder(
    root: str,
    image_size: int = 224,
    test: float = 0.2,
    group: str = "",
    positive: str = "",
    pattern: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    test_folder: str = "",
) -> Dataset:
    """List the images of a folder. The names of its folders are the classes, in alphabetical order.

    If `root` holds train and test folders, the classes are the folders in these, and images in a validation
    folder count as train. Such folders are named `train` or `training`, `test` or `testing`, and `val`,
    `valid` or `validation`, in upper or lower case. `set`, `data`, `images` or `split` may follow, as in
    `Train_Set`. Otherwise the classes are the folders in `root` itself, and a share of about `test` of the
    images is held out as the test set: those images (or groups) for which a hash of the name is below that
    share. An image therefore stays in the same split on any machine, even if other images are added or
    removed.

    Images may be at any depth below a class. Notes count the images that are not used (thumbnails, hidden
    images, images outside the classes' folders) and files of other kinds.

    Args:
        root: the folder.
        image_size: height and width that images are squashed to, in pixels.
        test: share of the images to hold out, between 0 and 1; ignored if there is a test folder.
        group: a regular expression with one pair of parentheses. The part of an image's path within its class
            that the parentheses match is its group, such as a patient's number. Images of one group stay on
            the same side of every split, also across classes. An image without a match has no group.
        positive: the class that recall, precision and AUC refer to if there are two; by default the last.
        pattern: a glob, or a list of globs, one of which an image's path within its class must match, as in
            `images/*`; `*` matches slashes, too. By default all images are used.
        exclude: a glob, or a list of globs, that the path must not match, as in `masks/*`.
        test_folder: the folder in `root` to test on if its name does not say so, such as `val`.

    Returns:
        A dataset of RGB images.

    Raises:
        DataNotFound: there is no folder `root` on this machine.
        XbenchError: the folder has another layout; a class has no images to train on, or there are none to
            test on; a group is in both train and test; or a setting is not valid.
    """
    check_image_size(image_size, "folder")
    if not isinstance(test, int | float) or not 0 < test < 1:
        raise XbenchError(
            f"test {test} of folder is not a share between 0 and 1",
            hint="for example, test = 0.2 holds out a fifth of the images",
        )
    selection = make_selection(pattern, exclude, group)
    folder = expand_user(root, "the `root` of folder")
    if not root or not folder.is_dir():
        raise DataNotFound(
            f"folder: there is no folder '{root}'",
            hint="set the `root` of the suite's dataset to the folder of your images",
        )
    splits = find_splits(folder, test_folder)
    if splits:
        classes, listing, notes = _list_splits(folder, splits, selection)
    else:
        classes, listing, notes = _hold_out(folder, selection, test)
    notes += _note_files(folder, splits, listing, selection)
    notes += _check_classes(folder, classes, splits, listing, selection)
    if positive and positive not in classes:
        raise XbenchError(
            f"positive '{positive}' is not a class of {folder}", hint=f"its classes are {quote_all(classes)}"
        )
    return Dataset(
        classes=tuple(classes),
        positive=positive or classes[-1],
        shape=(3, image_size, image_size),
        examples=tuple(listing.examples),
        read=partial(read_square, image_size=image_size),
        notes=tuple(notes),
    )


def _list_splits(
    folder: Path, splits: dict[str, str], selection: Selection
) -> tuple[list[str], _Listing, list[str]]:
    """List the classes in the splits' folders, counting validation images as train."""
    places = {part: list_folders(folder / part) for part in splits}
    check_split_folders(folder, places)
    for part, split in splits.items():
        if split == "train" and len(places[part]) > 1:
            check_are_classes(folder / part, places[part], selection.allows_subfolders)
    classes = sorted({name for names in places.values() for name in names})
    listing = _Listing()
    for part, split in splits.items():
        for label, name in enumerate(classes):
            if name in places[part]:
                listing.add_class(folder, f"{part}/{name}", label, split, selection)
    notes = [f"images in {part}/ count as train" for part, split in splits.items() if split == "val"]
    notes += [f"test is {part}/" for part, split in splits.items() if split == "test" != parse_split(part)]
    if unused := [part for part in list_folders(folder) if part not in splits]:
        notes.append(f"not used, because they are neither train nor test: {quote_all(unused)}")
    first_of: dict[str, Example] = {}
    for example in listing.examples:
        other = first_of.setdefault(example.group, example)
        if example.group and other.split != example.split:
            raise XbenchError(
                f"group '{example.group}' is in both train and test of {folder}: "
                f"{other.name}, {example.name}",
                hint="move its images to one split, because a model could recognise them; or fix `group`",
            )
    return classes, listing, notes


def _hold_out(folder: Path, selection: Selection, test: float) -> tuple[list[str], _Listing, list[str]]:
    """List the classes in `folder` itself, with a share of their images in test."""
    classes = list_folders(folder)
    check_are_classes(folder, classes, selection.allows_subfolders)

    def assign_split(example: Example) -> Example:
        drawn = hashlib.sha256((example.group or example.name).encode()).digest()
        is_test = int.from_bytes(drawn[:8], "big") < test * 2**64
        return replace(example, split="test") if is_test else example

    listing = _Listing()
    for label, name in enumerate(classes):
        listing.add_class(folder, name, label, "train", selection)
    listing.examples = [assign_split(example) for example in listing.examples]
    count = sum(example.split == "test" for example in listing.examples)
    what = "images" if selection.group is None else "groups of images"
    note = (
        f"test is {count:,} of {len(listing.examples):,} images: the {what} for which a hash of the name is "
        f"below test = {test}, which are the same on every machine"
    )
    return classes, listing, [note]


def _note_files(folder: Path, splits: dict[str, str], listing: _Listing, selection: Selection) -> list[str]:
    """Write notes on the subfolders that images were found in, and on the files that are not used."""
    notes = []
    deeper = sorted((name, count) for name, count in listing.subfolders.items() if name)
    if deeper:
        counts = ", ".join(f"{count:,} in {name}/" for name, count in deeper[:_MAX_SUBFOLDERS])
        rest = len(deeper) - _MAX_SUBFOLDERS
        counts += f", others in {rest:,} more" if rest > 0 else ""
        hint = "" if selection.has_globs else "; `pattern` and `exclude` select among them"
        total = sum(count for _, count in deeper)
        notes.append(
            f"{total:,} of {listing.subfolders.total():,} images are in subfolders of their classes: "
            f"{counts}{hint}"
        )
    if listing.excluded:
        notes.append(f"{listing.excluded:,} images were left out by {selection}")
    loose = [
        *list_loose_images(folder),
        *(f"{part}/{name}" for part in splits for name in list_loose_images(folder / part)),
    ]
    if loose:
        notes.append(f"{len(loose):,} images outside the classes' folders are not used: {quote_some(loose)}")
    return notes + note_unused_files(listing.files)


def _check_classes(
    folder: Path, classes: list[str], splits: dict[str, str], listing: _Listing, selection: Selection
) -> list[str]:
    """Check that there are images to train on and to test on, and write a note on images without a group."""
    examples = listing.examples
    if len(classes) < 2:
        raise _explain_missing_classes(folder, classes, splits)
    counts = Counter((example.split, example.label) for example in examples)
    for label, name in enumerate(classes):
        if not counts["train", label] + counts["test", label]:
            raise _explain_empty_class(folder, name, splits, listing, selection)
        if not counts["train", label]:
            hint = "add images (or groups), or set a smaller `test`"
            if splits:
                hint = "add some; or if it is another spelling of a class, rename its folder"
            raise XbenchError(
                f"class '{name}' of {folder} has no images to train on: all are in test", hint=hint
            )
    if not any(example.split == "test" for example in examples):
        hint = "add images, or set a larger `test`"
        if splits:
            test, train = (next(p for p, s in splits.items() if s == split) for split in ("test", "train"))
            hint = (
                f"put some into the classes' folders in {folder / test}; or set root to {folder / train} to "
                "hold out a share of it as test"
            )
        raise XbenchError(f"{folder} has no images to test on", hint=hint)
    ungrouped = sum(not example.group for example in examples)
    if selection.group is None or not ungrouped:
        return []
    if ungrouped == len(examples):
        raise XbenchError(
            f"group '{selection.group.pattern}' does not match any image of {folder}",
            hint=f"it is searched for in names such as '{examples[0].name.rpartition('/')[2]}'",
        )
    return [f"{ungrouped:,} of {len(examples):,} images have no group: each is split on its own"]


def _explain_missing_classes(folder: Path, classes: list[str], splits: dict[str, str]) -> XbenchError:
    """Make the error for fewer than two classes, with the expected layout as a hint."""
    parts = [f"{part}/" for part in splits] or [""]
    loose = sum(len(list_loose_images(folder / part)) for part in parts)
    names = [*classes, *(name for name in ("cat", "dog") if name not in classes)][:2]
    tree = [f"{folder / part / name / f'{name}1.jpg'}" for part in parts for name in names]
    found = f"{folder} holds {pluralize(len(classes), 'folder')} of images"
    if loose:
        found += f", and {pluralize(loose, 'image')} that are not in the folder of a class"
    return XbenchError(
        f"{found}: images must be in one folder per class, and a dataset needs at least 2 classes",
        hint="\n    ".join(["give each folder the name of its class, as in", *tree]),
    )


def _explain_empty_class(
    folder: Path, name: str, splits: dict[str, str], listing: _Listing, selection: Selection
) -> XbenchError:
    """Make the error for a class without images."""
    places = [f"{part}/{name}/" for part in splits] or [f"{name}/"]
    images, others = (
        [file for file in files if str(file).startswith(tuple(places))]
        for files in (listing.files.images, listing.files.others)
    )
    if images:
        return XbenchError(
            f"{selection} leaves class '{name}' of {folder} without images",
            hint=f"globs are matched against an image's path within its class, such as "
            f"'{_strip_class(str(images[0]), places)}'",
        )
    instead = f"; it holds {quote_some(others)}" if others else ""
    return XbenchError(
        f"class '{name}' of {folder} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}){instead}",
        hint="if it is not a class, move that folder elsewhere, or put a dot in front of its name",
    )


def _strip_class(path: str, places: list[str]) -> str:
    return next(path.removeprefix(place) for place in places if path.startswith(place))


FOLDER = DatasetSpec(
    factory=build_folder,
    summary="your own images, one folder per class; `root` names the folder",
)
