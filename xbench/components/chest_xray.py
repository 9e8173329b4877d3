"""Pediatric chest X-rays of the classes NORMAL and PNEUMONIA, in the folder layout of the Kaggle archive.

Kermany, Zhang, Goldbaum (2018), "Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for
Classification", Mendeley Data, doi:10.17632/rscbjbr9sj.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from xbench.components.image_dataset import Dataset, Example
from xbench.components.image_files import FoundFiles, find_files, note_unused_files
from xbench.components.images import IMAGE_SUFFIXES, check_image_size, read_square
from xbench.components.specs import DatasetSpec, Source
from xbench.errors import DataNotFound, XbenchError
from xbench.storage.paths import cache_dir, expand_user

CLASSES = ("NORMAL", "PNEUMONIA")
ROOT_VARIABLE = "XBENCH_CHEST_XRAY_ROOT"

# Others have published the size and the hash of this archive; the counts are from the dataset's page.
CHEST_XRAY_SOURCE = Source(
    url="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
    "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
    sha256="13efc055629733dbab07877f8b3c9f81097840dbcdaa326a8542322c2281ce36",
    size_bytes=1_235_512_464,
    unpacked_bytes=1_300_000_000,  # an estimate: JPEG files hardly shrink in a zip
    counts={"train/NORMAL": 1349, "train/PNEUMONIA": 3883, "test/NORMAL": 234, "test/PNEUMONIA": 390},
    folder="chest-xray",
    page="https://data.mendeley.com/datasets/rscbjbr9sj/2",
    licence="Creative Commons Attribution 4.0 International (CC BY 4.0), "
    "https://creativecommons.org/licenses/by/4.0/",
    citation="Kermany, Daniel; Zhang, Kang; Goldbaum, Michael (2018), Labeled Optical Coherence Tomography "
    "(OCT) and Chest X-Ray Images for Classification, Mendeley Data, V2, doi:10.17632/rscbjbr9sj.2",
)

# The report tested on 390 PNEUMONIA and 465 NORMAL images: Kaggle's test split (390 and 234), plus this many
# NORMAL images of train.
MOVED_NORMAL = 231

# The first number in "person12_bacteria_34.jpeg", "IM-0115-0001.jpeg" and "NORMAL2-IM-0115-0001.jpeg" is the
# patient. The two spellings of NORMAL seem to share one numbering, so equal numbers count as one patient.
_PATIENT = re.compile(r"(?:person|(?:NORMAL2-)?IM-)(\d+)")


def build_chest_xray(root: str | None = None, split: str = "report", image_size: int = 224) -> Dataset:
    """List the images of the unpacked archive.

    Args:
        root: the folder that holds `train/` and `test/`, or a `chest_xray/` folder with these. By default,
            the folder that `XBENCH_CHEST_XRAY_ROOT` names, or `chest-xray/` in the cache folder.
        split: `"kaggle"` as published, or `"report"`, which moves 231 NORMAL images of whole patients from
            train to test. A hash of the names decides which. With both, Kaggle's 16 `val` images count as
            train.
        image_size: height and width that images are squashed to, in pixels.

    Returns:
        A dataset of RGB images. Groups are patients, and each Kaggle split numbers its patients separately.

    Raises:
        DataNotFound: there is no such folder on this machine.
        XbenchError: a class's folder holds no images, or a setting is out of range.
    """
    if split not in ("report", "kaggle"):
        raise XbenchError(
            f"split '{split}' of chest-xray is unknown", hint="set split to 'report' or 'kaggle'"
        )
    check_image_size(image_size, "chest-xray")
    folder = _find_root(root, whole=True)
    files = FoundFiles()
    examples = tuple(e for part in ("train", "val", "test") for e in _list_examples(folder, part, files))
    for part in ("train", "test"):
        for label, name in enumerate(CLASSES):
            if not any(e.split == part and e.label == label for e in examples):
                raise XbenchError(
                    f"{folder / part / name} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})",
                    hint="unpack the whole archive, or set `root` to another folder",
                )
    notes: tuple[str, ...] = ()
    if split == "report":
        examples = _move_to_test(examples)
        notes = (
            f"test is Kaggle's test split plus {MOVED_NORMAL} NORMAL images of whole patients moved out of "
            "train, as the report's counts imply; it is not known which images the report moved",
        )
    return Dataset(
        classes=CLASSES,
        positive="PNEUMONIA",
        shape=(3, image_size, image_size),
        examples=examples,
        read=partial(read_square, image_size=image_size),
        notes=(*notes, *note_unused_files(files)),
    )


def find_chest_xray() -> Path:
    """Find the folder of the archive, or of a part of it, for suites that set no `root`.

    Raises:
        DataNotFound: there is no such folder.
    """
    return _find_root(None, whole=False)


def _find_root(root: str | None, whole: bool) -> Path:
    wanted = root or os.environ.get(ROOT_VARIABLE)
    source = "the `root` of chest-xray" if root else ROOT_VARIABLE
    base = expand_user(wanted, source) if wanted else cache_dir() / CHEST_XRAY_SOURCE.folder
    for folder in (base, base / "chest_xray"):
        present = [(folder / part).is_dir() for part in ("train", "test")]
        if all(present) or (any(present) and not whole):
            return folder
    raise DataNotFound(
        f"chest-xray: no train/ and test/ in {base}",
        hint="download it with `xbench data fetch chest-xray`; or, if you have the Kaggle archive, unpack it "
        f"there, or name its folder with {ROOT_VARIABLE} or with the `root` of the suite's dataset",
    )


def _list_examples(folder: Path, part: str, files: FoundFiles) -> list[Example]:
    split: Literal["train", "test"] = "test" if part == "test" else "train"
    examples = []
    for label, class_name in enumerate(CLASSES):
        place = folder / part / class_name
        found = find_files(place) if place.is_dir() else FoundFiles()
        files.add(found, f"{part}/{class_name}")
        for relative in found.images:
            group = f"{split}/{class_name}/{_find_patient(relative.name)}"
            name = f"{part}/{class_name}/{relative}"
            examples.append(Example(name, label, split, group=group, path=place / relative))
    return examples


def _find_patient(name: str) -> str:
    match = _PATIENT.match(name)
    return match.group(1).lstrip("0") if match else name


def _move_to_test(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    """Move NORMAL images from train to test until exactly `MOVED_NORMAL` have moved.

    All images of a patient move together, and patients are sorted by a hash of their names.
    """
    normal = CLASSES.index("NORMAL")
    # Patients in `val` stay in train, so that copies of the archive without `val` have the same test set.
    val_patients = {example.group for example in examples if example.name.startswith("val/")}
    patients: dict[str, int] = {}
    for example in examples:
        if example.split == "train" and example.label == normal and example.group not in val_patients:
            patients[example.group] = patients.get(example.group, 0) + 1
    moved: set[str] = set()
    missing = MOVED_NORMAL
    for patient in sorted(patients, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if patients[patient] <= missing:
            moved.add(patient)
            missing -= patients[patient]
    if missing:
        raise XbenchError(
            f"chest-xray: split 'report' moves {MOVED_NORMAL} NORMAL images of whole patients from train to "
            f"test, but only {MOVED_NORMAL - missing} of the {sum(patients.values())} in train can be moved",
            hint='use split = "kaggle"',
        )
    return tuple(replace(e, split="test") if e.group in moved else e for e in examples)


CHEST_XRAY = DatasetSpec(
    factory=build_chest_xray,
    source=CHEST_XRAY_SOURCE,
    find_root=find_chest_xray,
    summary="pediatric chest X-rays, NORMAL or PNEUMONIA (Kaggle's folder layout)",
    reference="Kermany, Zhang, Goldbaum 2018, Mendeley Data, doi:10.17632/rscbjbr9sj, CC BY 4.0",
)
