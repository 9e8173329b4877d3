"""Made-up images with the shape, size and class balance of the chest X-ray set, for machines without it.

Each image is a body with two dark lungs, ribs, a spine and a heart, drawn at a random place and exposure.
PNEUMONIA fills parts of the lungs with blurred opacities. Some NORMAL images have fainter and fewer ones,
and the strengths overlap, so that no model can be right about every image.

It is a learnable task of the real set's size, good for comparing optimizers and for measuring time and
memory. It is no model of the disease: an accuracy on it says nothing about X-rays of patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from xbench.components.specs import Dataset, DatasetSpec, Example
from xbench.errors import XbenchError

if TYPE_CHECKING:
    import numpy as np

# Part of every example's content: raise it with any change of the pixels, so that no cache keeps old ones.
GENERATOR = "synthetic-xray 1"

CLASSES = ("NORMAL", "PNEUMONIA")
SPLITS = ("train", "test")
# Share of PNEUMONIA in each split of the 2021 report: 1110 : 3875 images and 465 : 390.
PNEUMONIA_SHARE = {"train": 3875 / 4985, "test": 390 / 855}

# Patients come in threes, with one, two and three images: the patient of each of the three's six images.
PATIENTS_IN_CYCLE = 3
PATIENT_OF_IMAGE = (0, 1, 1, 2, 2, 2)

# Anatomy is smooth, so it is drawn on a small square and enlarged; only grain is made at full size.
CANVAS = 112
CLOUD_CELLS = 7  # the side of the coarse grid of low-frequency noise
MIN_IMAGE_SIZE = 16  # below it a lung is two or three pixels wide

# Opacities of an image, by label: the (least, most) of them and their (weakest, strongest) strength, where 1
# replaces all air. The ranges overlap on purpose: they set how well a perfect model could do.
OPACITY_COUNT = ((0, 2), (2, 4))
OPACITY_STRENGTH = ((0.1, 0.5), (0.2, 0.8))
OPACITY_RADIUS = (0.12, 0.35)

# Contrast and brightness of an image. They vary enough that mean brightness tells little about the label.
EXPOSURE = (0.7, 1.15)
FOG = (-0.05, 0.15)


@dataclass(frozen=True)
class Anatomy:
    """What all images of a patient share; lengths are fractions of half the image's side."""

    body_width: float
    lung_width: float
    lung_height: float
    lung_distance: float
    heart: float
    rib_spacing: float
    air: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Anatomy:
        return cls(
            body_width=rng.uniform(0.95, 1.25),
            lung_width=rng.uniform(0.3, 0.36),
            lung_height=rng.uniform(0.6, 0.72),
            lung_distance=rng.uniform(0.41, 0.46),
            heart=rng.uniform(0.24, 0.34),
            rib_spacing=rng.uniform(0.15, 0.2),
            air=rng.uniform(0.48, 0.56),
        )


def build_synthetic_xray(train: int = 4985, test: int = 855, image_size: int = 224, seed: int = 0) -> Dataset:
    """Lists made-up chest images of the classes NORMAL and PNEUMONIA in the real set's proportions.

    Args:
        train, test: number of images in each split.
        image_size: side of the square images, in pixels.
        seed: another seed gives other patients.

    Returns:
        A dataset whose `read` draws one image as a uint8 array of (image_size, image_size, 3), grey on three
        channels. An image depends on its example's content alone, however many others there are.

    Raises:
        XbenchError: a split is empty, the image too small to show a lung, or the seed negative.
    """
    for name, value, least in (
        ("train", train, 1),
        ("test", test, 1),
        ("image_size", image_size, MIN_IMAGE_SIZE),
        ("seed", seed, 0),
    ):
        if value < least:
            raise XbenchError(f"synthetic-xray: {name} is {value}", f"set {name} to {least} or more")
    examples = [
        _example(split, label, index, image_size, seed)
        for split, size in zip(SPLITS, (train, test), strict=True)
        for label, count in enumerate(_class_counts(split, size))
        for index in range(count)
    ]
    return Dataset(
        classes=CLASSES,
        positive="PNEUMONIA",
        shape=(3, image_size, image_size),
        examples=tuple(examples),
        read=partial(_read, image_size=image_size, seed=seed),
        notes=("Images are made up by a program: they are not X-rays of patients.",),
    )


def _class_counts(split: str, size: int) -> tuple[int, int]:
    """Numbers of NORMAL and PNEUMONIA images; two images or more show both classes."""
    pneumonia = max(1, min(round(size * PNEUMONIA_SHARE[split]), size - 1))
    return size - pneumonia, pneumonia


def _example(split: str, label: int, index: int, image_size: int, seed: int) -> Example:
    folder = f"{split}/{CLASSES[label]}"
    return Example(
        name=f"{folder}/{index:05d}",
        label=label,
        split=split,
        group=f"{folder}/patient-{_patient(index):05d}",
        content=f"{GENERATOR} seed={seed} image_size={image_size} {folder}/{index:05d}",
    )


def _patient(index: int) -> int:
    cycle, image = divmod(index, len(PATIENT_OF_IMAGE))
    return PATIENTS_IN_CYCLE * cycle + PATIENT_OF_IMAGE[image]


def _read(example: Example, image_size: int, seed: int) -> np.ndarray:
    """Draws an example; each call has its own generators, so threads share nothing."""
    import numpy as np

    index = int(example.name.rpartition("/")[2])
    stream = (seed, SPLITS.index(example.split), example.label)
    anatomy = Anatomy.draw(np.random.default_rng((*stream, 0, _patient(index))))
    rng = np.random.default_rng((*stream, 1, index))

    grey = _enlarge(_chest(anatomy, example.label, rng), image_size)
    grain = rng.standard_normal(grey.shape, dtype=np.float32) * np.float32(rng.uniform(0.01, 0.03))
    exposure, fog = rng.uniform(*EXPOSURE), rng.uniform(*FOG)
    pixels = ((grey + grain) * exposure + fog).clip(0, 1) * 255
    return np.repeat(pixels.astype(np.uint8)[:, :, None], 3, axis=2)


def _chest(anatomy: Anatomy, label: int, rng: np.random.Generator) -> np.ndarray:
    """The chest on the small canvas, as seen on film: tissue is bright, air dark."""
    x, y = _coordinates(rng)
    body = _ellipse(x, y, (0, 0.7), (anatomy.body_width, 1.6), edge=0.2)
    spine = _ellipse(x, y, (0, 0), (0.12, 3), edge=1)
    heart = _ellipse(x, y, (0.14, 0.3), (anatomy.heart, 1.2 * anatomy.heart), edge=0.6)
    # Ribs drop to the sides. A triangle wave: unlike sine, arithmetic rounds alike on every machine.
    ribs = abs((y - 0.6 * x * x) / anatomy.rib_spacing % 1 - 0.5)
    tissue = body * (0.62 + 0.12 * spine + 0.16 * ribs)
    air = anatomy.air * _lungs(x, y, anatomy) * (1 - 0.8 * heart) * _clear(x, y, anatomy, label, rng)
    clouds = _enlarge(rng.standard_normal((CLOUD_CELLS, CLOUD_CELLS), dtype="float32"), CANVAS)
    return tissue - air + 0.03 * clouds


def _coordinates(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x as a row and y as a column over -1 to 1, moved and zoomed as patients stand differently."""
    import numpy as np

    axis = np.linspace(-1, 1, CANVAS, dtype=np.float32) * np.float32(rng.uniform(0.92, 1.08))
    across, down = rng.uniform(-0.06, 0.06, size=2).astype(np.float32)
    return axis[None, :] + across, axis[:, None] + down


def _ellipse(x, y, centre: tuple[float, float], radii: tuple[float, float], edge: float) -> np.ndarray:
    """1 inside of an ellipse, 0 outside, with a ramp about its rim that is wider for a larger `edge`."""
    inside = 1 - ((x - centre[0]) / radii[0]) ** 2 - ((y - centre[1]) / radii[1]) ** 2
    return (inside / edge + 0.5).clip(0, 1)


def _lungs(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    radii = (anatomy.lung_width, anatomy.lung_height)
    left, right = (_ellipse(x, y, (side * anatomy.lung_distance, 0), radii, edge=0.3) for side in (-1, 1))
    return left + right


def _clear(x: np.ndarray, y: np.ndarray, anatomy: Anatomy, label: int, rng: np.random.Generator):
    """The share of air that opacities leave at each point."""
    clear = 1
    for _ in range(rng.integers(*OPACITY_COUNT[label], endpoint=True)):
        strength = rng.uniform(*OPACITY_STRENGTH[label])
        side = rng.choice((-1, 1))
        across, down = rng.uniform(-0.6, 0.6, size=2)
        centre = (side * anatomy.lung_distance + across * anatomy.lung_width, down * anatomy.lung_height)
        clear = clear * (1 - strength * _ellipse(x, y, centre, rng.uniform(*OPACITY_RADIUS, size=2), edge=1.5))
    return clear


def _enlarge(grid: np.ndarray, side: int) -> np.ndarray:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))


SYNTHETIC_XRAY = DatasetSpec(
    factory=build_synthetic_xray,
    summary="made-up chest images in the real set's size and proportions",
    stand_in="synthetic images, not X-rays of patients",
)
