"""Synthetic images with the shape, number and class balance of the chest X-ray set, for machines without it.

Each image shows a body with two dark lungs, ribs, a spine and a heart, at a random position and exposure.
PNEUMONIA images have blurred opacities in the lungs. Some NORMAL images have opacities too, but fewer and
fainter ones. The ranges of their strengths overlap, so no model can classify every image correctly.

This is a learnable task of the real set's size, suited to comparing optimizers and to measuring time and
memory. It does not model the disease: accuracy on it says nothing about X-rays of patients.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

from xbench.components.image_dataset import Dataset, Example
from xbench.components.specs import DatasetSpec
from xbench.errors import XbenchError

if TYPE_CHECKING:
    import numpy as np

# Part of every example's content. Raise the number whenever the pixels change, so that caches are not reused.
GENERATOR = "synthetic-xray 1"

CLASSES = ("NORMAL", "PNEUMONIA")
SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
# The real train split has 1110 NORMAL and 3875 PNEUMONIA images, the test split 465 and 390.
PNEUMONIA_SHARE = {"train": 3875 / 4985, "test": 390 / 855}

# Patients come in cycles of three, who have one, two and three images: six images in a cycle.
PATIENTS_IN_CYCLE = 3
PATIENT_OF_IMAGE = (0, 1, 1, 2, 2, 2)

MIN_IMAGE_SIZE = 16  # a lung is then five pixels wide
MAX_IMAGE_SIZE = 4096
MAX_IMAGES = 10**6  # per split: listing an image takes half a kilobyte
# Anatomy is smooth, so it is drawn on a small canvas and resized. Only the grain is drawn at full size.
CANVAS = 112
CLOUD_CELLS = 7  # side of the coarse grid from which low-frequency noise is interpolated

# Ranges of the values that are the same in all images of a patient. Lengths are in halves of the canvas, and
# air is a fraction of full brightness.
ANATOMY = {
    "body_width": (0.95, 1.25),
    "lung_width": (0.3, 0.36),
    "lung_height": (0.6, 0.72),
    "lung_distance": (0.41, 0.46),
    "heart_width": (0.24, 0.34),
    "rib_spacing": (0.15, 0.2),
    "air": (0.48, 0.56),
}
# Ranges of the values that differ between the images of a patient.
SHIFT = (-0.06, 0.06)
ZOOM = (0.92, 1.08)
GRAIN = (0.01, 0.03)
# Contrast and brightness vary so much that the mean brightness of an image hardly predicts its label.
EXPOSURE = (0.85, 1.2)
FOG = (-0.15, 0.15)

# Number and strength of opacities by label; a strength of 1 leaves no air. The ranges overlap on purpose: the
# report's CNN reaches a test accuracy of about 0.9, and plain SGD beats chance within its first epochs.
OPACITY_COUNT = ((0, 2), (2, 5))
OPACITY_STRENGTH = ((0.1, 0.65), (0.2, 1.0))
OPACITY_RADIUS = (0.2, 0.5)
OPACITY_PLACE = (-0.6, 0.6)  # in half widths and half heights of the lung, so that centres are inside it


def build_synthetic_xray(train: int = 4985, test: int = 855, image_size: int = 224, seed: int = 0) -> Dataset:
    """List synthetic chest images of NORMAL and PNEUMONIA, in the real set's proportions.

    Args:
        train, test: number of images in each split.
        image_size: height and width of the images, in pixels.
        seed: seed of the patients and their images.

    Returns:
        A dataset whose `read` draws a uint8 array of shape (image_size, image_size, 3), with equal channels.
        An image depends only on its example's content, not on the number of images.

    Raises:
        XbenchError: a setting is not an integer, or is out of range.
    """
    sizes = {"train": train, "test": test}
    _check(sizes | {"image_size": image_size, "seed": seed})
    examples = tuple(
        _make_example(split, label, index, image_size, seed)
        for split in SPLITS
        for label, count in enumerate(_count_by_class(split, sizes[split]))
        for index in range(count)
    )
    return Dataset(
        classes=CLASSES,
        positive="PNEUMONIA",
        shape=(3, image_size, image_size),
        examples=examples,
        read=partial(_draw_image, image_size=image_size, seed=seed),
    )


def _check(settings: dict[str, int]) -> None:
    least = {"train": 1, "test": 1, "image_size": MIN_IMAGE_SIZE, "seed": 0}
    most = {"train": MAX_IMAGES, "test": MAX_IMAGES, "image_size": MAX_IMAGE_SIZE, "seed": 2**63 - 1}
    for name, value in settings.items():
        hint = ""
        if not isinstance(value, int) or value < least[name]:
            hint = f"set {name} to an integer of at least {least[name]}"
        elif value > most[name]:
            hint = f"set {name} to at most {most[name]:,}"
        if hint:
            raise XbenchError(f"synthetic-xray: {name} = {value!r} is not valid", hint)


def _count_by_class(split: str, size: int) -> tuple[int, int]:
    """Compute the numbers of NORMAL and PNEUMONIA images; two or more images include both classes."""
    pneumonia = max(1, min(round(size * PNEUMONIA_SHARE[split]), size - 1))
    return size - pneumonia, pneumonia


def _make_example(
    split: Literal["train", "test"], label: int, index: int, image_size: int, seed: int
) -> Example:
    folder = f"{split}/{CLASSES[label]}"
    name = f"{folder}/{index:05d}"
    return Example(
        name=name,
        label=label,
        split=split,
        group=f"{folder}/patient-{_find_patient(index):05d}",
        content=f"{GENERATOR} seed={seed} image_size={image_size} {name}",
    )


def _find_patient(index: int) -> int:
    cycle, image = divmod(index, len(PATIENT_OF_IMAGE))
    return PATIENTS_IN_CYCLE * cycle + PATIENT_OF_IMAGE[image]


def _draw_image(example: Example, image_size: int, seed: int) -> np.ndarray:
    """Draw an image with generators of its own, so that threads share none."""
    import numpy as np

    index = int(example.name.rpartition("/")[2])
    folder = (seed, SPLITS.index(example.split), example.label)
    patient_rng = np.random.default_rng((*folder, 0, _find_patient(index)))
    rng = np.random.default_rng((*folder, 1, index))

    anatomy = SimpleNamespace(**{name: patient_rng.uniform(*bounds) for name, bounds in ANATOMY.items()})
    chest = _resize(_draw_chest(anatomy, example.label, rng), image_size)
    grain = rng.uniform(*GRAIN) * rng.standard_normal(chest.shape, dtype=np.float32)
    film = (chest + grain) * rng.uniform(*EXPOSURE) + rng.uniform(*FOG)
    grey = (255 * film.clip(0, 1)).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _draw_chest(anatomy: SimpleNamespace, label: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the chest on the canvas: tissue is bright, and air darkens it.

    The brightness of each part was chosen by eye. Shapes use arithmetic only, because sines and exponentials
    are rounded differently on different machines.
    """
    x, y = _make_coordinates(rng)
    body = _draw_ellipse(x, y, (0, 0.7), (anatomy.body_width, 1.6), rim=0.2)
    spine = _draw_ellipse(x, y, (0, 0), (0.12, 3), rim=1)
    heart = _draw_ellipse(x, y, (0.14, 0.3), (anatomy.heart_width, 1.2 * anatomy.heart_width), rim=0.6)
    ribs = abs((y - 0.6 * x * x) / anatomy.rib_spacing % 1 - 0.5)  # a triangle wave that drops to the sides
    tissue = body * (0.62 + 0.12 * spine + 0.16 * ribs)
    clearance = _draw_clearance(x, y, anatomy, label, rng)
    air = anatomy.air * _draw_lungs(x, y, anatomy) * (1 - 0.8 * heart) * clearance
    clouds = _resize(rng.standard_normal((CLOUD_CELLS, CLOUD_CELLS), dtype="float32"), CANVAS)
    return tissue - air + 0.03 * clouds


def _make_coordinates(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make x as a row and y as a column, from about -1 to 1, with a random shift and zoom."""
    import numpy as np

    axis = np.linspace(-1, 1, CANVAS, dtype=np.float32) * rng.uniform(*ZOOM)
    return axis[None, :] + rng.uniform(*SHIFT), axis[:, None] + rng.uniform(*SHIFT)


def _draw_ellipse(
    x: np.ndarray, y: np.ndarray, centre: tuple[float, float], radii: tuple[float, float], rim: float
) -> np.ndarray:
    """Draw 1 inside an ellipse and 0 outside, with a ramp between them that widens with `rim`."""
    inside = 1 - ((x - centre[0]) / radii[0]) ** 2 - ((y - centre[1]) / radii[1]) ** 2
    return (inside / rim + 0.5).clip(0, 1)


def _draw_lungs(x: np.ndarray, y: np.ndarray, anatomy: SimpleNamespace) -> np.ndarray:
    radii = (anatomy.lung_width, anatomy.lung_height)
    right, left = (_draw_ellipse(x, y, (side * anatomy.lung_distance, 0), radii, rim=0.3) for side in (-1, 1))
    return right + left


def _draw_clearance(
    x: np.ndarray, y: np.ndarray, anatomy: SimpleNamespace, label: int, rng: np.random.Generator
) -> np.ndarray | float:
    """Draw opacities, and return the share of air that they leave at each point."""
    clearance: np.ndarray | float = 1.0
    for _ in range(rng.integers(*OPACITY_COUNT[label], endpoint=True)):
        side = 1 if rng.random() < 0.5 else -1
        centre = (
            side * anatomy.lung_distance + rng.uniform(*OPACITY_PLACE) * anatomy.lung_width,
            rng.uniform(*OPACITY_PLACE) * anatomy.lung_height,
        )
        radii = (rng.uniform(*OPACITY_RADIUS), rng.uniform(*OPACITY_RADIUS))
        strength = rng.uniform(*OPACITY_STRENGTH[label])
        clearance = clearance * (1 - strength * _draw_ellipse(x, y, centre, radii, rim=1.5))
    return clearance


def _resize(image: np.ndarray, side: int) -> np.ndarray:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


SYNTHETIC_XRAY = DatasetSpec(
    factory=build_synthetic_xray,
    summary="synthetic chest images, in the real set's size and proportions",
    stand_in="synthetic images, not X-rays of patients",
)
