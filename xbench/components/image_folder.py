"""Anybody's images, one folder a class: the layout that most image sets are published in."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from xbench.components.folder_layout import (
    check_are_classes,
    check_split_folders,
    find_splits,
    folders_in,
    quote_all,
    split_named,
)
from xbench.components.image_files import FoundFiles, find_files, loose_images, notes_on_left_out
from xbench.components.images import IMAGE_SUFFIXES, check_image_size, read_square
from xbench.components.specs import Dataset, DatasetSpec, Example
from xbench.errors import DataNotFound, XbenchError
from xbench.storage.paths import expand_user
from xbench.text import some_of

_MAX_SUBFOLDERS = 5


@dataclass(frozen=True)
class _Choice:
    """Which files of a class are its images, and which of these belong together.

    Attributes:
        pattern, exclude: globs for a file's path within its class; without a pattern all files match.
        group: finds the name of a file's group in that path.
    """

    pattern: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    group: re.Pattern[str] | None = None

    @property
    def is_made(self) -> bool:
        return bool(self.pattern or self.exclude)

    @property
    def is_sure(self) -> bool:
        """Whether the user has told what the sub-folders of a class are."""
        return self.is_made or self.group is not None

    def takes(self, path: str) -> bool:
        is_wanted = not self.pattern or any(fnmatchcase(path, glob) for glob in self.pattern)
        return is_wanted and not any(fnmatchcase(path, glob) for glob in self.exclude)

    def group_of(self, path: str) -> str:
        match = self.group.search(path) if self.group else None
        return (match and match.group(1)) or ""

    def __str__(self) -> str:
        settings = (("pattern", self.pattern), ("exclude", self.exclude))
        return " and ".join(f"{name} = {quote_all(globs)}" for name, globs in settings if globs)


@dataclass
class _Listing:
    """What was found in the folders of the classes.

    Attributes:
        examples: the images that are used.
        files: all files; names are relative to the root.
        not_chosen: how many images `pattern` and `exclude` left out.
        subfolders: how many of the images lie in each sub-folder of a class; "" for directly in the class.
    """

    examples: list[Example] = field(default_factory=list)
    files: FoundFiles = field(default_factory=FoundFiles)
    not_chosen: int = 0
    subfolders: Counter[str] = field(default_factory=Counter)

    def add_class(self, root: Path, class_folder: str, label: int, split: str, choice: _Choice) -> None:
        """Add the files of one class's folder, which is named relative to the root."""
        found = find_files(root / class_folder)
        self.files.add(found, class_folder)
        for relative in found.images:
            path = str(relative)
            if not choice.takes(path):
                self.not_chosen += 1
                continue
            self.subfolders[relative.parts[0] if len(relative.parts) > 1 else ""] += 1
            self.examples.append(
                Example(
                    name=f"{class_folder}/{path}",
                    label=label,
                    split="test" if split == "test" else "train",
                    group=choice.group_of(path),
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
    """List the images of a folder; the names of its folders are the classes, in alphabetical order.

    If `root` holds folders for training and for test, its classes are the folders in these, and what lies in
    one for validation counts as train. Such folders are called `train` or `training`, `test` or `testing`,
    `val`, `valid` or `validation`, in any case; `set`, `data`, `images` or `split` may follow (`Train_Set`).
    Otherwise the classes are the folders in `root` itself, and about a share of each is held out as test: the
    images (or groups) of which a hash of the name falls below that share. So an image never changes sides,
    whatever is added or taken away, on any machine.

    Images may lie at any depth below a class. Notes count what is not used: thumbnails and hidden images,
    images beside the folders of classes, files of other kinds.

    Args:
        root: the folder.
        image_size: height and width that images are squashed to, in pixels.
        test: the share to hold out, between 0 and 1; not used if there is a folder for test.
        group: a regular expression with one group of parentheses that finds in an image's path within its
            class what images must share to stay on one side of every split (a patient's number, say); the
            same text means the same group in all classes. Without a match an image stands alone.
        positive: the class that recall, precision and AUC are about, with two classes; by default the last.
        pattern: a glob, or a list of some, that an image's path within its class must match, as in
            `images/*`; `*` matches slashes, too. By default all match.
        exclude: a glob, or a list of some, that it must not match, as in `masks/*`.
        test_folder: the folder in `root` that is used for test where none is called so: `val`, say.

    Returns:
        A dataset of RGB images.

    Raises:
        DataNotFound: no such folder here.
        XbenchError: the folder is laid out in another way; a class has no images to train on, or nothing is
            left to test on; a group lies in both train and test; or a setting is not valid.
    """
    check_image_size(image_size, "folder")
    if not isinstance(test, int | float) or not 0 < test < 1:
        raise XbenchError(
            f"test {test} of folder is not a share between 0 and 1", hint="0.2 holds out every fifth image"
        )
    choice = _Choice(_globs("pattern", pattern), _globs("exclude", exclude), _compile_group(group))
    folder = expand_user(root, "the `root` of folder")
    if not root or not folder.is_dir():
        raise DataNotFound(
            f"folder: there is no folder '{root}'", hint="give the suite's dataset the `root` of your images"
        )
    splits = find_splits(folder, test_folder)
    if splits:
        classes, listing, notes = _as_split(folder, splits, choice)
    else:
        classes, listing, notes = _hold_out(folder, choice, test)
    notes += _notes_on_files(folder, splits, listing, choice)
    notes += _check_classes(folder, classes, splits, listing, choice)
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


def _globs(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    globs = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(glob, str) for glob in globs):
        raise XbenchError(
            f"{name} {given!r} is not a glob or a list of globs", hint="for instance, 'images/*'"
        )
    return tuple(glob for glob in globs if glob)


def _compile_group(group: str) -> re.Pattern[str] | None:
    if not group:
        return None
    hint = "for instance, 'patient(\\d+)_' finds 12 in patient12_3.png"
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise XbenchError(f"group '{group}' is not a valid regular expression: {error}", hint) from error
    if pattern.groups != 1:
        raise XbenchError(f"group '{group}' has {pattern.groups} groups of parentheses, not one", hint)
    return pattern


def _as_split(folder: Path, splits: dict[str, str], choice: _Choice) -> tuple[list[str], _Listing, list[str]]:
    """List the classes in the folders of the splits, with those for validation in train."""
    places = {part: folders_in(folder / part) for part in splits}
    check_split_folders(folder, places)
    for part, split in splits.items():
        if split == "train" and len(places[part]) > 1:
            check_are_classes(folder / part, places[part], choice.is_sure)
    classes = sorted({name for names in places.values() for name in names})
    listing = _Listing()
    for part, split in splits.items():
        for label, name in enumerate(classes):
            if name in places[part]:
                listing.add_class(folder, f"{part}/{name}", label, split, choice)
    notes = [f"images of {part}/ count as train" for part, split in splits.items() if split == "val"]
    notes += [f"test is {part}/" for part, split in splits.items() if split == "test" != split_named(part)]
    if unused := [part for part in folders_in(folder) if part not in splits]:
        notes.append(f"not used, as they are neither train nor test: {quote_all(unused)}")
    side_of: dict[str, Example] = {}
    for example in listing.examples:
        other = side_of.setdefault(example.group, example)
        if example.group and other.split != example.split:
            raise XbenchError(
                f"group '{example.group}' lies in both train and test of {folder}: "
                f"{other.name}, {example.name}",
                hint="a model could know it again: move its images to one side, or fix `group`",
            )
    return classes, listing, notes


def _hold_out(folder: Path, choice: _Choice, test: float) -> tuple[list[str], _Listing, list[str]]:
    """List the classes in `folder` itself, with a share of their images in test."""
    classes = folders_in(folder)
    check_are_classes(folder, classes, choice.is_sure)

    def side(example: Example) -> Example:
        drawn = hashlib.sha256((example.group or example.name).encode()).digest()
        is_test = int.from_bytes(drawn[:8], "big") < test * 2**64
        return replace(example, split="test") if is_test else example

    listing = _Listing()
    for label, name in enumerate(classes):
        listing.add_class(folder, name, label, "train", choice)
    listing.examples = [side(example) for example in listing.examples]
    count = sum(example.split == "test" for example in listing.examples)
    what = "images" if choice.group is None else "groups of images"
    note = (
        f"test is {count:,} of {len(listing.examples):,} images: the {what} whose name's hash falls below "
        f"test = {test}, the same ones wherever this is run"
    )
    return classes, listing, [note]


def _notes_on_files(folder: Path, splits: dict[str, str], listing: _Listing, choice: _Choice) -> list[str]:
    """Write down where images were taken from, and what was left out."""
    notes = []
    deeper = sorted((name, count) for name, count in listing.subfolders.items() if name)
    if deeper:
        counts = ", ".join(f"{count:,} in {name}/" for name, count in deeper[:_MAX_SUBFOLDERS])
        rest = len(deeper) - _MAX_SUBFOLDERS
        counts += f", others in {rest:,} more" if rest > 0 else ""
        hint = "" if choice.is_made else "; `pattern` and `exclude` choose among them"
        total = sum(count for _, count in deeper)
        notes.append(
            f"{total:,} of {listing.subfolders.total():,} images lie in sub-folders of their classes: "
            f"{counts}{hint}"
        )
    if listing.not_chosen:
        notes.append(f"{listing.not_chosen:,} images were left out by {choice}")
    loose = [
        *loose_images(folder),
        *(f"{part}/{name}" for part in splits for name in loose_images(folder / part)),
    ]
    if loose:
        notes.append(f"{len(loose):,} images beside the classes' folders are not used: {some_of(loose)}")
    return notes + notes_on_left_out(listing.files)


def _check_classes(
    folder: Path, classes: list[str], splits: dict[str, str], listing: _Listing, choice: _Choice
) -> list[str]:
    """Check that there is something to train and to test on; what a reader should know besides."""
    examples = listing.examples
    if len(classes) < 2:
        raise XbenchError(
            f"{folder} holds {len(classes) or 'no'} folders of images, and it takes two classes",
            hint="put the images of each class into a folder of its own",
        )
    counts = Counter((example.split, example.label) for example in examples)
    for label, name in enumerate(classes):
        if not counts["train", label] + counts["test", label]:
            raise _drop_empty_classes(folder, name, splits, listing, choice)
        if not counts["train", label]:
            hint = "give it more images (or groups), or a smaller `test`"
            if splits:
                hint = "add some; or if it is another spelling of a class, rename its folder"
            raise XbenchError(
                f"class '{name}' of {folder} has no images to train on: all are in test", hint=hint
            )
    if not any(example.split == "test" for example in examples):
        hint = "give it more, or a larger `test`"
        if splits:
            test, train = (next(p for p, s in splits.items() if s == split) for split in ("test", "train"))
            hint = (
                f"put some into the classes' folders in {folder / test}; or set root to {folder / train}, to "
                "hold a share of it out as test"
            )
        raise XbenchError(f"{folder} has no images to test on", hint=hint)
    alone = sum(not example.group for example in examples)
    if choice.group is None or not alone:
        return []
    if alone == len(examples):
        raise XbenchError(
            f"group '{choice.group.pattern}' matches no image of {folder}",
            hint=f"it is looked for in names such as '{examples[0].name.rpartition('/')[2]}'",
        )
    return [f"{alone:,} of {len(examples):,} images belong to no group, and stand alone"]


def _drop_empty_classes(
    folder: Path, name: str, splits: dict[str, str], listing: _Listing, choice: _Choice
) -> XbenchError:
    places = [f"{part}/{name}/" for part in splits] or [f"{name}/"]
    images, others = (
        [file for file in files if str(file).startswith(tuple(places))]
        for files in (listing.files.images, listing.files.others)
    )
    if images:
        return XbenchError(
            f"{choice} leaves class '{name}' of {folder} without images",
            hint=f"globs are compared with an image's path within its class, such as "
            f"'{_within_class(str(images[0]), places)}'",
        )
    instead = f"; it holds {some_of(others)}" if others else ""
    return XbenchError(
        f"class '{name}' of {folder} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}){instead}",
        hint="if it is not a class, move that folder elsewhere, or put a dot before its name",
    )


def _within_class(path: str, places: list[str]) -> str:
    return next(path.removeprefix(place) for place in places if path.startswith(place))


FOLDER = DatasetSpec(
    factory=build_folder,
    summary="your own images, one folder a class; needs its `root`",
)
