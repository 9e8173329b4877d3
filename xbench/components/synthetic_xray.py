"""Made-up images with the shape, number and class balance of the chest X-ray set, for machines without it.

Each image is a body with two dark lungs, ribs, a spine and a heart, drawn at a random place and exposure.
PNEUMONIA fills parts of the lungs with blurred opacities. Some NORMAL images have fewer and fainter ones,
and the strengths overlap, so that no model can be right about every image.

This is a learnable task of the real set's size: good for comparing optimizers and for measuring time and
memory. It is no model of the disease: accuracy on it says nothing about X-rays of patients.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

from xbench.components.specs import Dataset, DatasetSpec, Example
from xbench.errors import XbenchError

if TYPE_CHECKING:
    import numpy as np

# Part of every example's content: raise it with any change of the pixels, so that no cache keeps old ones.
GENERATOR = "synthetic-xray 1"

CLASSES = ("NORMAL", "PNEUMONIA")
SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
# The real splits have 1110 NORMAL : 3875 PNEUMONIA images and 465 : 390.
PNEUMONIA_SHARE = {"train": 3875 / 4985, "test": 390 / 855}

# Patients come in threes, with one, two and three images: the patient of each of the three's six images.
PATIENTS_IN_CYCLE = 3
PATIENT_OF_IMAGE = (0, 1, 1, 2, 2, 2)

MIN_IMAGE_SIZE = 16  # a lung is then five pixels wide
MAX_IMAGE_SIZE = 4096
MAX_IMAGES = 10**6  # of a split: each takes half a kilobyte to list
# Anatomy is smooth, so it is drawn on a small canvas and resized; only grain is made at full size.
CANVAS = 112
CLOUD_CELLS = 7  # side of the coarse grid behind the low-frequency noise

# Ranges of what a patient's images share. Lengths are in halves of the canvas, air is in full brightness.
ANATOMY = {
    "body_width": (0.95, 1.25),
    "lung_width": (0.3, 0.36),
    "lung_height": (0.6, 0.72),
    "lung_distance": (0.41, 0.46),
    "heart_width": (0.24, 0.34),
    "rib_spacing": (0.15, 0.2),
    "air": (0.48, 0.56),
}
# Ranges of what differs between images of a patient.
SHIFT = (-0.06, 0.06)
ZOOM = (0.92, 1.08)
GRAIN = (0.01, 0.03)
# Contrast and brightness vary so much that an image's mean brightness tells little about its label.
EXPOSURE = (0.85, 1.2)
FOG = (-0.15, 0.15)

# Number and strength of opacities by label; a strength of 1 leaves no air. The ranges overlap on purpose:
# the report's CNN gets about 0.9 of the test images right, and plain SGD leaves chance in its first epochs.
OPACITY_COUNT = ((0, 2), (2, 5))
OPACITY_STRENGTH = ((0.1, 0.65), (0.2, 1.0))
OPACITY_RADIUS = (0.2, 0.5)
OPACITY_PLACE = (-0.6, 0.6)  # of the lung's half width and height: inside of it even at the corners


def build_synthetic_xray(train: int = 4985, test: int = 855, image_size: int = 224, seed: int = 0) -> Dataset:
    """List made-up chest images of NORMAL and PNEUMONIA in the real set's proportions.

    Args:
        train, test: number of images in each split.
        image_size: side of the square images, in pixels.
        seed: another seed gives other patients.

    Returns:
        A dataset whose `read` draws a uint8 array of (image_size, image_size, 3), grey on three channels.
        An image depends on its example's content alone, not on how many others there are.

    Raises:
        XbenchError: a split is empty or enormous, the images are too small to show a lung or larger than any
            scan, or the seed is negative.
    """
    sizes = {"train": train, "test": test}
    _check(sizes | {"image_size": image_size, "seed": seed})
    examples = tuple(
        _example(split, label, index, image_size, seed)
        for split in SPLITS
        for label, count in enumerate(_class_counts(split, sizes[split]))
        for index in range(count)
    )
    return Dataset(
        classes=CLASSES,
        positive="PNEUMONIA",
        shape=(3, image_size, image_size),
        examples=examples,
        read=partial(_read, image_size=image_size, seed=seed),
    )


def _check(settings: dict[str, int]) -> None:
    least = {"train": 1, "test": 1, "image_size": MIN_IMAGE_SIZE, "seed": 0}
    most = {"train": MAX_IMAGES, "test": MAX_IMAGES, "image_size": MAX_IMAGE_SIZE, "seed": 2**63 - 1}
    for name, value in settings.items():
        hint = ""
        if not isinstance(value, int) or value < least[name]:
            hint = f"set {name} to a whole number of at least {least[name]}"
        elif value > most[name]:
            hint = f"set {name} to at most {most[name]:,}"
        if hint:
            raise XbenchError(f"synthetic-xray cannot be made with {name} = {value!r}", hint)


def _class_counts(split: str, size: int) -> tuple[int, int]:
    """Numbers of NORMAL and PNEUMONIA images; two images or more show both classes."""
    pneumonia = max(1, min(round(size * PNEUMONIA_SHARE[split]), size - 1))
    return size - pneumonia, pneumonia


def _example(split: Literal["train", "test"], label: int, index: int, image_size: int, seed: int) -> Example:
    folder = f"{split}/{CLASSES[label]}"
    name = f"{folder}/{index:05d}"
    return Example(
        name=name,
        label=label,
        split=split,
        group=f"{folder}/patient-{_patient(index):05d}",
        content=f"{GENERATOR} seed={seed} image_size={image_size} {name}",
    )


def _patient(index: int) -> int:
    cycle, image = divmod(index, len(PATIENT_OF_IMAGE))
    return PATIENTS_IN_CYCLE * cycle + PATIENT_OF_IMAGE[image]


def _read(example: Example, image_size: int, seed: int) -> np.ndarray:
    """Draws one image. Its generators are made here, so that threads share nothing."""
    import numpy as np

    index = int(example.name.rpartition("/")[2])
    folder = (seed, SPLITS.index(example.split), example.label)
    patient = np.random.default_rng((*folder, 0, _patient(index)))
    rng = np.random.default_rng((*folder, 1, index))

    anatomy = SimpleNamespace(**{name: patient.uniform(*bounds) for name, bounds in ANATOMY.items()})
    chest = _resize(_chest(anatomy, example.label, rng), image_size)
    grain = rng.uniform(*GRAIN) * rng.standard_normal(chest.shape, dtype=np.float32)
    film = (chest + grain) * rng.uniform(*EXPOSURE) + rng.uniform(*FOG)
    grey = (255 * film.clip(0, 1)).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _chest(anatomy: SimpleNamespace, label: int, rng: np.random.Generator) -> np.ndarray:
    """The chest on the canvas: tissue is bright, and air takes brightness away.

    The factors are brightness by eye. All shapes are made by arithmetic, without sines or exponentials, which
    round differently from machine to machine.
    """
    x, y = _coordinates(rng)
    body = _ellipse(x, y, (0, 0.7), (anatomy.body_width, 1.6), rim=0.2)
    spine = _ellipse(x, y, (0, 0), (0.12, 3), rim=1)
    heart = _ellipse(x, y, (0.14, 0.3), (anatomy.heart_width, 1.2 * anatomy.heart_width), rim=0.6)
    ribs = abs((y - 0.6 * x * x) / anatomy.rib_spacing % 1 - 0.5)  # a triangle wave that drops to the sides
    tissue = body * (0.62 + 0.12 * spine + 0.16 * ribs)
    air = anatomy.air * _lungs(x, y, anatomy) * (1 - 0.8 * heart) * _clear(x, y, anatomy, label, rng)
    clouds = _resize(rng.standard_normal((CLOUD_CELLS, CLOUD_CELLS), dtype="float32"), CANVAS)
    return tissue - air + 0.03 * clouds


def _coordinates(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x as a row and y as a column, about -1 to 1: shifted and zoomed, for people do not stand alike."""
    import numpy as np

    axis = np.linspace(-1, 1, CANVAS, dtype=np.float32) * rng.uniform(*ZOOM)
    return axis[None, :] + rng.uniform(*SHIFT), axis[:, None] + rng.uniform(*SHIFT)


def _ellipse(
    x: np.ndarray, y: np.ndarray, centre: tuple[float, float], radii: tuple[float, float], rim: float
) -> np.ndarray:
    """1 inside of an ellipse and 0 outside, with a ramp between that is wider for a larger `rim`."""
    inside = 1 - ((x - centre[0]) / radii[0]) ** 2 - ((y - centre[1]) / radii[1]) ** 2
    return (inside / rim + 0.5).clip(0, 1)


def _lungs(x: np.ndarray, y: np.ndarray, anatomy: SimpleNamespace) -> np.ndarray:
    radii = (anatomy.lung_width, anatomy.lung_height)
    right, left = (_ellipse(x, y, (side * anatomy.lung_distance, 0), radii, rim=0.3) for side in (-1, 1))
    return right + left


def _clear(
    x: np.ndarray, y: np.ndarray, anatomy: SimpleNamespace, label: int, rng: np.random.Generator
) -> np.ndarray | float:
    """The share of air that this image's opacities leave at each point."""
    clear: np.ndarray | float = 1.0
    for _ in range(rng.integers(*OPACITY_COUNT[label], endpoint=True)):
        side = 1 if rng.random() < 0.5 else -1
        centre = (
            side * anatomy.lung_distance + rng.uniform(*OPACITY_PLACE) * anatomy.lung_width,
            rng.uniform(*OPACITY_PLACE) * anatomy.lung_height,
        )
        radii = (rng.uniform(*OPACITY_RADIUS), rng.uniform(*OPACITY_RADIUS))
        strength = rng.uniform(*OPACITY_STRENGTH[label])
        clear = clear * (1 - strength * _ellipse(x, y, centre, radii, rim=1.5))
    return clear


def _resize(image: np.ndarray, side: int) -> np.ndarray:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


SYNTHETIC_XRAY = DatasetSpec(
    factory=build_synthetic_xray,
    summary="made-up chest images in the real set's size and proportions",
    stand_in="synthetic images, not X-rays of patients",
)
