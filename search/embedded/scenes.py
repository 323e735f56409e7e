"""Seeded scenes: coloured shapes and handwritten digits on a textured background.

A scene is drawn with a palette of at most 256 colours and with basic arithmetic only, so that the
same seed gives the same pixels on every machine. Objects lie off the vision tower's patch grid and
cover about a fifth of the image, so that most patches show background only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.embedded.handwriting import DigitPool, digit_ink

IMAGE_SIZE = 96
"""Width and height of every scene, in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "orange": (245, 140, 25),
    "yellow": (240, 225, 50),
    "green": (40, 175, 60),
    "cyan": (50, 215, 220),
    "blue": (50, 75, 235),
    "purple": (160, 50, 205),
    "white": (250, 250, 250),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross", "ring", "diamond")
DIGITS: tuple[str, ...] = tuple("0123456789")

_BACKGROUND_LEVELS = 32
_SHADES = 8
_GAP = 2
_ATTEMPTS = 40

Direction = Literal["left", "right", "above", "below"]


@dataclass(frozen=True)
class SceneObject:
    """One shape or handwritten digit of a scene.

    Attributes:
        colour: Name of its colour, a key of ``COLOURS``.
        kind: A name of ``SHAPES``, or one of ``DIGITS``.
        box: Left, top, right and bottom edge in pixels, right and bottom exclusive.
    """

    colour: str
    kind: str
    box: tuple[int, int, int, int]

    @property
    def is_digit(self) -> bool:
        """Whether the object is a handwritten digit."""
        return self.kind in DIGITS

    @property
    def centre(self) -> tuple[float, float]:
        """Horizontal and vertical centre, in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class Scene:
    """One picture and what it shows.

    Attributes:
        objects: What is drawn, in drawing order.
        indices: Palette index of every pixel, uint8, shape (96, 96).
        palette: Red, green and blue of every palette index, uint8, shape (colours, 3).
        digit_samples: Index, in scikit-learn's ``load_digits``, of every handwritten sample shown.
    """

    objects: tuple[SceneObject, ...]
    indices: NDArray[np.uint8]
    palette: NDArray[np.uint8]
    digit_samples: tuple[int, ...]


@cache
def _interpolation(knots: int) -> NDArray[np.float64]:
    """Return the (96, knots) matrix that interpolates a coarse grid linearly."""
    position = np.arange(IMAGE_SIZE) * ((knots - 1) / IMAGE_SIZE)
    lower = position.astype(np.int64)
    matrix = np.zeros((IMAGE_SIZE, knots))
    rows = np.arange(IMAGE_SIZE)
    matrix[rows, lower] = 1 - (position - lower)
    matrix[rows, lower + 1] += position - lower
    return matrix


def _background(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a texture of two octaves of noise, stripes and grain; return levels and palette."""
    level = np.zeros((IMAGE_SIZE, IMAGE_SIZE))
    for knots, weight in ((5, 9.0), (14, 8.0)):
        matrix = _interpolation(knots)
        level += weight * (matrix @ rng.random((knots, knots)) @ matrix.T)
    across, down, period = rng.integers(-3, 4), rng.integers(-3, 4), rng.integers(20, 60)
    steps = np.arange(IMAGE_SIZE)
    phase = (across * steps[None, :] + down * steps[:, None]) % period
    level += rng.integers(0, 7) * np.abs(2 * phase / period - 1)
    level += rng.integers(0, 4, size=level.shape)
    indices = np.clip(level + rng.integers(0, 5), 0, _BACKGROUND_LEVELS - 1).astype(np.uint8)
    dark = rng.integers(25, 75) + rng.integers(-12, 13, size=3)
    light = dark + rng.integers(50, 100) + rng.integers(-12, 13, size=3)
    blend = np.arange(_BACKGROUND_LEVELS)[:, None] / (_BACKGROUND_LEVELS - 1)
    return indices, np.clip(dark + blend * (light - dark), 0, 255).astype(np.uint8)


@cache
def _shape_mask(kind: str, size: int) -> NDArray[np.bool_]:
    """Return which pixels of a (size, size) box a shape covers."""
    # Twice the distance to the centre, in whole numbers, so that no rounding can differ.
    offset = 2 * np.arange(size) - (size - 1)
    across, down = np.meshgrid(offset, offset)
    squared = across * across + down * down
    if kind == "circle":
        return np.asarray(squared <= size * size)
    if kind == "square":
        return np.asarray(np.maximum(abs(across), abs(down)) <= size * 7 // 8)
    if kind == "triangle":
        return np.asarray(2 * abs(across) <= down + size)
    if kind == "cross":
        return np.asarray(np.minimum(abs(across), abs(down)) <= size * 3 // 10)
    if kind == "ring":
        return np.asarray((squared <= size * size) & (4 * squared >= size * size))
    return np.asarray(abs(across) + abs(down) <= size)


def _place(sizes: list[int], rng: np.random.Generator) -> list[tuple[int, int, int, int]] | None:
    """Return boxes of the given sizes that do not touch, or None when there was no room."""
    boxes: list[tuple[int, int, int, int]] = []
    for size in sizes:
        candidates = rng.integers(1, IMAGE_SIZE - size, size=(_ATTEMPTS, 2)).tolist()
        for left, top in candidates:
            if all(
                left + size + _GAP <= other[0]
                or other[2] + _GAP <= left
                or top + size + _GAP <= other[1]
                or other[3] + _GAP <= top
                for other in boxes
            ):
                boxes.append((left, top, left + size, top + size))
                break
        else:
            return None
    return boxes


@dataclass(frozen=True)
class ScenePlan:
    """What a scene must hold, so that the answers of its questions can be balanced.

    Attributes:
        shape_count: How often one shape (drawn at random) occurs, 1 to 4.
        colour_count: How many shapes have one colour (drawn at random), 1 to 4.
        digits: The two digits to show.
    """

    shape_count: int
    colour_count: int
    digits: tuple[int, int]


@dataclass(frozen=True)
class CountedScene:
    """A scene with the shape and the colour whose number was planned."""

    scene: Scene
    counted_shape: str
    counted_colour: str


def random_plan(rng: np.random.Generator) -> ScenePlan:
    """Return a plan whose counts and digits are drawn evenly."""
    shape_count, colour_count = rng.integers(1, 5, size=2).tolist()
    first, second = rng.integers(0, 10, size=2).tolist()
    return ScenePlan(shape_count, colour_count, (first, second))


def draw_scene(rng: np.random.Generator, pool: DigitPool, plan: ScenePlan) -> CountedScene:
    """Draw one scene of five to eight shapes and two handwritten digits.

    Args:
        rng: Where all randomness comes from.
        pool: Handwritten samples that may be shown.
        plan: Counts and digits that the scene must have.

    Returns:
        The scene, with the shape and the colour that occur as often as the plan says.
    """
    colours = list(COLOURS)
    while True:
        number = int(rng.integers(5, 9))
        shape_order = rng.permutation(len(SHAPES)).tolist()
        colour_order = rng.permutation(len(colours)).tolist()
        shapes = [shape_order[0]] * plan.shape_count
        shapes += [shape_order[i] for i in rng.integers(1, 6, size=number - len(shapes)).tolist()]
        hues = [colour_order[0]] * plan.colour_count
        hues += [colour_order[i] for i in rng.integers(1, 8, size=number - len(hues)).tolist()]
        hues = [hues[i] for i in rng.permutation(number).tolist()]
        digit_hues = [colour_order[i] for i in rng.permutation(8)[:2].tolist()]
        sizes = rng.integers(12, 16, size=number).tolist() + rng.integers(17, 21, size=2).tolist()
        boxes = _place(sizes[::-1], rng)
        if boxes is not None:
            break
    boxes.reverse()
    kinds = [SHAPES[i] for i in shapes] + [str(digit) for digit in plan.digits]
    names = [colours[i] for i in hues + digit_hues]
    objects = tuple(
        SceneObject(colour, kind, box)
        for colour, kind, box in zip(names, kinds, boxes, strict=True)
    )
    samples: list[int] = []
    indices, background = _background(rng)
    palette = [background]
    for position, item in enumerate(objects):
        left, top, right, bottom = item.box
        size = right - left
        if item.is_digit:
            sample = int(rng.choice(np.flatnonzero(pool.labels == int(item.kind))))
            samples.append(int(pool.sample_indices[sample]))
            ink = digit_ink(pool.images[sample], size, rng)
            mask, shade = ink >= 5, np.minimum(ink * (_SHADES / 16), _SHADES - 1)
        else:
            mask = _shape_mask(item.kind, size)
            lit = int(rng.integers(0, size))
            shade = np.broadcast_to(
                (_SHADES - 1) - abs(np.arange(size) - lit)[:, None] * (_SHADES / 2 / size),
                mask.shape,
            )
        base = _BACKGROUND_LEVELS + position * _SHADES
        indices[top:bottom, left:right][mask] = base + shade[mask].astype(np.uint8)
        tint = np.array(COLOURS[item.colour]) + rng.integers(-10, 11, size=3)
        brightness = 0.65 + 0.35 * np.arange(_SHADES)[:, None] / (_SHADES - 1)
        palette.append(np.clip(tint * brightness, 0, 255).astype(np.uint8))
    scene = Scene(objects, indices, np.concatenate(palette), tuple(samples))
    return CountedScene(scene, SHAPES[shape_order[0]], colours[colour_order[0]])
