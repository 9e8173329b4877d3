"""Anybody's images, one folder a class: the layout that most image sets are published in."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from xbench.components.images import (
    IMAGE_SUFFIXES,
    VALIDATION_FOLDERS,
    check_image_size,
    is_clutter,
    list_images,
    not_used,
    read_square,
)
from xbench.components.specs import Dataset, DatasetSpec, Example
from xbench.errors import DataNotFound, XbenchError


def build_folder(
    root: str, image_size: int = 224, test: float = 0.2, group: str = "", positive: str = ""
) -> Dataset:
    """List the images of a folder; the names of its folders are the classes, in alphabetical order.

    If `root` holds `train/` and `test/`, its classes are the folders in these, and what lies in `val/`,
    `valid/` or `validation/` counts as train. Otherwise its classes are the folders in `root` itself, and
    about a share of each is held out as test: the images (or groups) of which a hash of the name falls
    below that share. So an image never changes sides, whatever is added or taken away, on any machine.

    Args:
        root: the folder. Images (JPEG, PNG) may lie at any depth below a class; hidden files are left out,
            and so is what is no file: pipes, links to nowhere.
        image_size: height and width that images are squashed to, in pixels.
        test: the share to hold out, between 0 and 1; not used if there is a `test/`.
        group: a regular expression with one group of parentheses that finds in an image's path within its
            class what images must share to stay on one side of every split (a patient's number, say); the
            same text means the same group in all classes. Without a match an image stands alone.
        positive: the class that recall, precision and AUC are about, with two classes; by default the last.

    Returns:
        A dataset of RGB images.

    Raises:
        DataNotFound: no such folder here.
        XbenchError: a class has no images to train on, or nothing is left to test on; a group lies in both
            `train/` and `test/`; or a setting is no good.
    """
    check_image_size(image_size, "folder")
    if not isinstance(test, int | float) or not 0 < test < 1:
        raise XbenchError(
            f"test {test} of folder is not a share between 0 and 1", hint="0.2 holds out every fifth image"
        )
    pattern = _compiled(group)
    folder = Path(root).expanduser()
    if not root or not folder.is_dir():
        raise DataNotFound(
            f"folder: there is no folder '{root}'", hint="give the suite's dataset the `root` of your images"
        )
    parts = _folders_in(folder)
    if ("train" in parts) != ("test" in parts):
        there, missing = ("train", "test") if "train" in parts else ("test", "train")
        raise XbenchError(
            f"{folder} holds {there}/ but no {missing}/",
            hint="give it both; or, to have test images held out, set `root` to the folder of the classes",
        )
    left_out: list[PurePosixPath] = []
    if "train" in parts:
        classes, examples, notes = _as_split(folder, parts, pattern, left_out)
    else:
        classes, examples, notes = _held_out(folder, parts, pattern, test, left_out)
    notes += not_used(left_out)
    notes += _checked(folder, classes, examples, pattern)
    if positive and positive not in classes:
        raise XbenchError(
            f"positive '{positive}' is no class of {folder}", hint=f"its classes are {_listed(classes)}"
        )
    return Dataset(
        classes=tuple(classes),
        positive=positive or classes[-1],
        shape=(3, image_size, image_size),
        examples=tuple(examples),
        read=partial(read_square, image_size=image_size),
        notes=tuple(notes),
    )


def _compiled(group: str) -> re.Pattern[str] | None:
    if not group:
        return None
    hint = "for instance, 'patient(\\d+)_' finds 12 in patient12_3.png"
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise XbenchError(f"group '{group}' is no regular expression: {error}", hint) from error
    if pattern.groups != 1:
        raise XbenchError(f"group '{group}' has {pattern.groups} groups of parentheses, not one", hint)
    return pattern


def _folders_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_clutter(path.name))
    except OSError as error:
        raise XbenchError(f"{folder} cannot be listed: {error.strerror}") from error


def _as_split(
    folder: Path, parts: list[str], pattern: re.Pattern[str] | None, left_out: list[PurePosixPath]
) -> tuple[list[str], list[Example], list[str]]:
    """What lies in train/ and test/, with what lies in val/ in train."""
    validation = [part for part in parts if part in VALIDATION_FOLDERS]
    used = ["train", *validation, "test"]
    classes = sorted({name for part in used for name in _folders_in(folder / part)})
    examples = [
        example
        for part in used
        for label, name in enumerate(classes)
        if (folder / part / name).is_dir()
        for split in ["test" if part == "test" else "train"]
        for example in _list(folder, f"{part}/{name}", label, split, pattern, left_out)
    ]
    notes = [f"images of {part}/ count as train" for part in validation]
    if unused := [part for part in parts if part not in used]:
        notes.append(f"not used, as they are neither train nor test: {_listed(unused)}")
    side_of: dict[str, Example] = {}
    for example in examples:
        other = side_of.setdefault(example.group, example)
        if example.group and other.split != example.split:
            raise XbenchError(
                f"group '{example.group}' lies in both train and test of {folder}: "
                f"{other.name}, {example.name}",
                hint="a model could know it again: move its images to one side, or mend `group`",
            )
    return classes, examples, notes


def _held_out(
    folder: Path,
    classes: list[str],
    pattern: re.Pattern[str] | None,
    test: float,
    left_out: list[PurePosixPath],
) -> tuple[list[str], list[Example], list[str]]:
    """What lies in the classes' folders, with a share of it in test."""

    def side(example: Example) -> Example:
        drawn = hashlib.sha256((example.group or example.name).encode()).digest()
        is_test = int.from_bytes(drawn[:8], "big") < test * 2**64
        return replace(example, split="test") if is_test else example

    examples = [
        side(example)
        for label, name in enumerate(classes)
        for example in _list(folder, name, label, "train", pattern, left_out)
    ]
    count = sum(example.split == "test" for example in examples)
    what = "images" if pattern is None else "groups of images"
    note = (
        f"test is {count:,} of {len(examples):,} images: the {what} whose name's hash falls below "
        f"test = {test}, the same ones wherever this is run"
    )
    return classes, examples, [note]


def _list(
    folder: Path,
    class_folder: str,
    label: int,
    split: str,
    pattern: re.Pattern[str] | None,
    left_out: list[PurePosixPath],
) -> list[Example]:
    others: list[PurePosixPath] = []
    images = list_images(folder / class_folder, others)
    left_out.extend(class_folder / name for name in others)
    return [
        Example(
            name=f"{class_folder}/{relative}",
            label=label,
            split=split,
            group=_group(str(relative), pattern),
            path=folder / class_folder / relative,
        )
        for relative in images
    ]


def _group(relative: str, pattern: re.Pattern[str] | None) -> str:
    match = pattern.search(relative) if pattern else None
    return (match and match.group(1)) or ""


def _checked(
    folder: Path, classes: list[str], examples: list[Example], pattern: re.Pattern[str] | None
) -> list[str]:
    """Check that there is something to train and to test on; what a reader should know besides."""
    suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
    if len(classes) < 2:
        raise XbenchError(
            f"{folder} holds {len(classes)} folders of images, and it takes two to tell apart",
            hint="put the images of each class into a folder of its own",
        )
    counts = Counter((example.split, example.label) for example in examples)
    for label, name in enumerate(classes):
        if not counts["train", label] + counts["test", label]:
            raise XbenchError(
                f"class '{name}' of {folder} has no images ({suffixes})",
                hint="if it is no class, move that folder elsewhere, or put a dot before its name",
            )
        if not counts["train", label]:
            raise XbenchError(
                f"class '{name}' of {folder} has no images to train on: all are in test",
                hint="give it more images (or groups), or a smaller `test`",
            )
    if not any(example.split == "test" for example in examples):
        raise XbenchError(f"{folder} has no images to test on", hint="give it more, or a larger `test`")
    without = [name for label, name in enumerate(classes) if not counts["test", label]]
    notes = [f"no image is left to test these classes on: {_listed(without)}"] if without else []
    alone = sum(not example.group for example in examples)
    if pattern is not None and alone == len(examples):
        raise XbenchError(
            f"group '{pattern.pattern}' matches no image of {folder}",
            hint=f"it is looked for in names such as '{examples[0].path.name}'",
        )
    if pattern is not None and alone:
        notes.append(f"{alone:,} of {len(examples):,} images belong to no group, and stand alone")
    return notes


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


FOLDER = DatasetSpec(
    factory=build_folder,
    is_listed=True,
    summary="your own images, one folder a class; needs its `root`",
)
