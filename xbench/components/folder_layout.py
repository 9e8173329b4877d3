"""Tell what the folders of an image set are: splits, classes, or a level that should not be there."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from xbench.components.image_files import is_clutter, loose_images
from xbench.errors import XbenchError
from xbench.text import some_of

_SPLIT_WORDS = {"train": "train|training", "test": "test|testing", "val": "val|valid|validation"}
_SPLIT_NAMES = {
    split: re.compile(rf"({words})([ _-]?(set|data|images|split))?", re.IGNORECASE)
    for split, words in _SPLIT_WORDS.items()
}

# Folders of these names hold kinds of files of one class (its images, their masks): they are not classes.
_FILE_KINDS = frozenset(
    {
        *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"),
        *("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations"),
    }
)

_MAX_WRAPPERS = 4


def folders_in(folder: Path) -> list[str]:
    """List the names of the folders in a folder, clutter aside, in order.

    Raises:
        XbenchError: it cannot be listed.
    """
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_clutter(path.name))
    except OSError as error:
        raise XbenchError(f"{folder} cannot be listed: {error.strerror}") from error


def split_named(name: str) -> str:
    """Return "train", "test" or "val" if that is what a folder's name means, else ""."""
    return next((split for split, names in _SPLIT_NAMES.items() if names.fullmatch(name)), "")


def find_splits(folder: Path, test_folder: str = "") -> dict[str, str]:
    """Find the folders of the splits in a folder.

    Args:
        test_folder: the one to take for test, whatever it is called; "" for the one that is called so.

    Returns:
        "train", "test" or "val" by the folders' names; empty if there are none for train and test.

    Raises:
        XbenchError: there is one for train or test and none for the other, or two for the same.
    """
    parts = folders_in(folder)
    splits = {part: split for part in parts if (split := split_named(part))}
    if test_folder:
        if test_folder not in parts:
            raise XbenchError(
                f"test_folder '{test_folder}' is not a folder in {folder}",
                hint=f"it holds {quote_all(parts)}",
            )
        if splits.get(test_folder) == "train":
            raise XbenchError(
                f"test_folder '{test_folder}' is the folder to train on in {folder}", hint="name another one"
            )
        splits = {part: split for part, split in splits.items() if split != "test"} | {test_folder: "test"}
    train, test, val = ([part for part, is_of in splits.items() if is_of == split] for split in _SPLIT_NAMES)
    if not train and not test:
        return {}
    for split, found in (("train", train), ("test", test)):
        if len(found) > 1:
            raise XbenchError(
                f"{folder} holds {len(found)} folders that mean {split}: {quote_all(found)}",
                hint="keep one of them there, with all images of that split",
            )
    if train and test:
        return splits
    held_out = f"set root to {folder / train[0]} to hold a share of it out as test" if train else ""
    if not train:
        hint = f"add the images to train on as {folder}/train"
    elif val:
        hint = f'set test_folder = "{val[0]}" to test on {val[0]}/, or {held_out}'
    else:
        hint = f"add a folder for test, or {held_out}"
    (there,) = train or test
    and_val = f" and {val[0]}/" if val else ""
    raise XbenchError(
        f"{folder} holds {there}/{and_val} but no {'test' if train else 'train'}/",
        hint=f"{hint}; if '{there}' is a class, rename its folder",
    )


def check_split_folders(folder: Path, places: dict[str, list[str]]) -> None:
    """Check that what lies in the splits' folders are classes, and each is called the same everywhere.

    Args:
        folder: the folder of the splits' folders.
        places: the folders in each of these.

    Raises:
        XbenchError: they hold one folder too many on the way to the classes, or two spellings of one class.
    """
    side_by_side = {name for names in places.values() if len(names) > 1 for name in names}
    for part, names in places.items():
        if len(names) == 1 and names[0] not in side_by_side and len(folders_in(folder / part / names[0])) > 1:
            raise XbenchError(
                f"{folder / part} holds one folder, '{names[0]}', in which the classes seem to lie",
                hint=f"move what is in {folder / part / names[0]} up into {folder / part}",
            )
    seen: dict[str, tuple[str, str]] = {}
    for part, names in places.items():
        for name in names:
            other_part, other = seen.setdefault(_plain(name), (part, name))
            if other != name and not any({name, other} <= set(together) for together in places.values()):
                raise XbenchError(
                    f"'{other}' in {other_part}/ and '{name}' in {part}/ of {folder} seem to be one class",
                    hint="give their folders the same name",
                )


def check_are_classes(folder: Path, names: list[str], is_sure: bool) -> None:
    """Check that the folders in a folder are classes, and not what holds them.

    Args:
        is_sure: whether classes may all hold the same sub-folders.

    Raises:
        XbenchError: they look like splits, or like what an archive wraps around them.
    """
    inside = {name: folders_in(folder / name) for name in names}
    if len(names) == 1:
        if inner := _unwrap(folder / names[0]):
            raise XbenchError(
                f"{folder} holds one folder, '{names[0]}', so its images lie a level deeper than expected",
                hint=f"set root to {inner}, which holds {some_of(folders_in(inner))}",
            )
        return
    for name, inner_names in inside.items():
        if {"train", "test"} <= set(map(split_named, inner_names)):
            raise XbenchError(
                f"'{name}' in {folder} is not a class: it holds {some_of(inner_names)}",
                hint=f"set root to {folder / name} to use its images",
            )
    looking_like = {
        split: [name for name in names if _words(name) & set(_SPLIT_WORDS[split].split("|"))]
        for split in ("train", "test")
    }
    if all(looking_like.values()):
        train, test = looking_like["train"], looking_like["test"]
        raise XbenchError(
            f"{quote_all([*train, *test])} in {folder} look like splits, not like classes",
            hint="rename them to 'train' and 'test', and let each hold the classes' folders; or set root to "
            f"{_unwrap(folder / train[0]) or folder / train[0]} to hold a share of it out as test",
        )
    shared = sorted(set.intersection(*map(set, inside.values()))) if inside else []
    is_repeated = len(shared) > 1 and not any(_words(name) & _FILE_KINDS for name in shared)
    if is_repeated and not is_sure and not any(loose_images(folder / name) for name in names):
        raise XbenchError(
            f"all {len(names)} folders in {folder} hold the same folders, {some_of(shared)}: it is not clear "
            "which are the classes",
            hint=f"if {some_of(names)} are, set pattern = '*'; if not, set root to one of them, or move the "
            f"images into folders {some_of(shared)} that lie in {folder}",
        )


def quote_all(names: Iterable[str]) -> str:
    """Quote all names."""
    return ", ".join(f"'{name}'" for name in names)


def _unwrap(folder: Path) -> Path | None:
    """Find the folder that holds several folders: this one, or one that it alone wraps."""
    for _ in range(_MAX_WRAPPERS):
        names = folders_in(folder)
        if len(names) != 1:
            return folder if names else None
        folder = folder / names[0]
    return None


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", name.lower()))


def _plain(name: str) -> str:
    """Return what is left of a name without case, spaces and marks."""
    composed = unicodedata.normalize("NFC", name).casefold()
    return "".join(char for char in composed if char.isalnum()) or composed
