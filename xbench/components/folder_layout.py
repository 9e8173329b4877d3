"""Find out whether the folders of an image set are splits, classes, or one level too many."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from xbench.components.image_files import is_clutter, list_loose_images
from xbench.errors import XbenchError
from xbench.text import quote_some

_SPLIT_WORDS = {"train": "train|training", "test": "test|testing", "val": "val|valid|validation"}
_SPLIT_NAMES = {
    split: re.compile(rf"({words})([ _-]?(set|data|images|split))?", re.IGNORECASE)
    for split, words in _SPLIT_WORDS.items()
}

# Folders with these names are not classes: each holds one kind of files of a class, such as its masks.
_FILE_KINDS = frozenset(
    {
        *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"),
        *("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations"),
    }
)

_MAX_WRAPPERS = 4


def list_folders(folder: Path) -> list[str]:
    """List the names of the folders in a folder, sorted and without clutter.

    Raises:
        XbenchError: the folder cannot be listed.
    """
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_clutter(path.name))
    except OSError as error:
        raise XbenchError(f"{folder} cannot be listed: {error.strerror}") from error


def parse_split(name: str) -> str:
    """Return the split that a folder's name means: "train", "test" or "val"; "" for other names."""
    return next((split for split, names in _SPLIT_NAMES.items() if names.fullmatch(name)), "")


def find_splits(folder: Path, test_folder: str = "") -> dict[str, str]:
    """Find the folders of the splits in a folder.

    Args:
        test_folder: name of the folder to test on; "" to find it by its name.

    Returns:
        "train", "test" or "val" for each folder's name; empty if there is neither a train nor a test folder.

    Raises:
        XbenchError: only one of train and test has a folder, or one of them has two.
    """
    parts = list_folders(folder)
    splits = {part: split for part in parts if (split := parse_split(part))}
    if test_folder:
        if test_folder not in parts:
            raise XbenchError(
                f"test_folder '{test_folder}' is not a folder in {folder}",
                hint=f"its folders are {quote_all(parts)}",
            )
        if splits.get(test_folder) == "train":
            raise XbenchError(
                f"test_folder '{test_folder}' is the folder of training images in {folder}",
                hint="name another one",
            )
        splits = {part: split for part, split in splits.items() if split != "test"} | {test_folder: "test"}
    train, test, val = ([part for part, is_of in splits.items() if is_of == split] for split in _SPLIT_NAMES)
    if not train and not test:
        return {}
    for split, found in (("train", train), ("test", test)):
        if len(found) > 1:
            raise XbenchError(
                f"{folder} holds {len(found)} folders for {split}: {quote_all(found)}",
                hint="put all images of that split into one of them, and remove the other",
            )
    if train and test:
        return splits
    held_out = f"set root to {folder / train[0]} to hold out a share of it as test" if train else ""
    if not train:
        hint = f"put the training images into {folder}/train"
    elif val:
        hint = f'set test_folder = "{val[0]}" to test on {val[0]}/, or {held_out}'
    else:
        hint = f"add a test folder, or {held_out}"
    (there,) = train or test
    and_val = f" and {val[0]}/" if val else ""
    raise XbenchError(
        f"{folder} holds {there}/{and_val} but no {'test' if train else 'train'}/",
        hint=f"{hint}; if '{there}' is a class, rename its folder",
    )


def check_split_folders(folder: Path, places: dict[str, list[str]]) -> None:
    """Check that the splits' folders hold classes, and that a class has the same name in all of them.

    Args:
        folder: the folder that holds the splits' folders.
        places: names of the folders in each split's folder.

    Raises:
        XbenchError: there is a superfluous folder around the classes, or a class is spelled in two ways.
    """
    side_by_side = {name for names in places.values() if len(names) > 1 for name in names}
    for part, names in places.items():
        is_alone = len(names) == 1 and names[0] not in side_by_side
        if is_alone and len(list_folders(folder / part / names[0])) > 1:
            raise XbenchError(
                f"{folder / part} holds only the folder '{names[0]}', which seems to hold the classes",
                hint=f"move the contents of {folder / part / names[0]} up into {folder / part}",
            )
    seen: dict[str, tuple[str, str]] = {}
    for part, names in places.items():
        for name in names:
            other_part, other = seen.setdefault(_normalise(name), (part, name))
            if other != name and not any({name, other} <= set(together) for together in places.values()):
                raise XbenchError(
                    f"'{other}' in {other_part}/ and '{name}' in {part}/ of {folder} seem to be one class",
                    hint="give their folders the same name",
                )


def check_are_classes(folder: Path, names: list[str], is_sure: bool) -> None:
    """Check that the folders in a folder are classes.

    Args:
        is_sure: accept classes that all hold the same subfolders.

    Raises:
        XbenchError: the folders look like splits, or like a superfluous level around the classes.
    """
    inside = {name: list_folders(folder / name) for name in names}
    if len(names) == 1:
        if inner := _unwrap(folder / names[0]):
            raise XbenchError(
                f"{folder} holds only the folder '{names[0]}': the images are one level deeper than expected",
                hint=f"set root to {inner}, which holds {quote_some(list_folders(inner))}",
            )
        return
    for name, inner_names in inside.items():
        if {"train", "test"} <= set(map(parse_split, inner_names)):
            raise XbenchError(
                f"'{name}' in {folder} is not a class: it holds {quote_some(inner_names)}",
                hint=f"set root to {folder / name} to use its images",
            )
    looking_like = {
        split: [name for name in names if _find_words(name) & set(_SPLIT_WORDS[split].split("|"))]
        for split in ("train", "test")
    }
    if all(looking_like.values()):
        train, test = looking_like["train"], looking_like["test"]
        raise XbenchError(
            f"{quote_all([*train, *test])} in {folder} look like splits, not like classes",
            hint="rename them to 'train' and 'test', each with the classes' folders in it; or set root to "
            f"{_unwrap(folder / train[0]) or folder / train[0]} to hold out a share of it as test",
        )
    shared = sorted(set.intersection(*map(set, inside.values()))) if inside else []
    is_repeated = len(shared) > 1 and not any(_find_words(name) & _FILE_KINDS for name in shared)
    if is_repeated and not is_sure and not any(list_loose_images(folder / name) for name in names):
        raise XbenchError(
            f"all {len(names)} folders in {folder} hold the same folders, {quote_some(shared)}: it is not "
            "clear which are the classes",
            hint=f"if the classes are {quote_some(names)}, set pattern = '*'; if not, set root to one of "
            f"these folders, or move the images into {quote_some(shared)} directly in {folder}",
        )


def quote_all(names: Iterable[str]) -> str:
    """Quote all names, and join them with commas."""
    return ", ".join(f"'{name}'" for name in names)


def _unwrap(folder: Path) -> Path | None:
    """Descend through folders that hold only one folder, and return the first that holds several."""
    for _ in range(_MAX_WRAPPERS):
        names = list_folders(folder)
        if len(names) != 1:
            return folder if names else None
        folder = folder / names[0]
    return None


def _find_words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", name.lower()))


def _normalise(name: str) -> str:
    """Reduce a name to its lower-case letters and digits, so that two spellings become equal."""
    composed = unicodedata.normalize("NFC", name).casefold()
    return "".join(char for char in composed if char.isalnum()) or composed
