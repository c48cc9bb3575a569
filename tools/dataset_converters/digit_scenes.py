"""Scenes of handwritten digits on textured backgrounds.

Everything is drawn in plain numpy from a ``RandomState``, whose streams numpy
keeps frozen across versions: the same seed gives the same pixels.
"""

import math
from dataclasses import dataclass

import numpy as np

DIGITS_PER_SCENE = (3, 6)
HEIGHT = (0.22, 0.44)  # of a digit, as a fraction of the scene's side
MAX_ANGLE = 15.0  # degrees
MAX_OVERLAP = 0.25  # of two digits' boxes, as a fraction of the smaller one
MIN_VISIBLE = 0.8  # fraction of every digit's ink that later ones leave free
MAX_TRIES = 300  # at placing a digit; reached by no scene seen so far
MIN_CONTRAST = 80.0  # grey levels that a digit is brighter than what it covers
INK = 0.42  # a pixel belongs to the digit from this pen pressure on
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass
class Instance:
    """One digit of a scene.

    Attributes:
        source: index of the digit in the collection it was taken from.
        digit: what it shows, 0..9.
        mask: its visible pixels, bool of shape (H, W).
    """

    source: int
    digit: int
    mask: np.ndarray


@dataclass
class Scene:
    """An image and its digits.

    Attributes:
        image: uint8 RGB of shape (H, W, 3).
        instances: the digits, those further to the back first.
    """

    image: np.ndarray
    instances: list[Instance]

    @property
    def label_map(self) -> np.ndarray:
        """uint8 of shape (H, W): 0 = background, 1..10 = digits 0..9."""
        labels = np.zeros(self.image.shape[:2], np.uint8)
        for instance in self.instances:
            labels[instance.mask] = instance.digit + 1
        return labels


def sample_bilinear(
    image: np.ndarray, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Read ``image`` (h, w) between its pixels; outside of it lies 0.

    Args:
        image: float array of shape (h, w).
        y: rows to read, in pixels, of any shape.
        x: columns to read, of the same shape.
    """
    padded = np.pad(image, 1)
    y = np.clip(y + 1, 0, padded.shape[0] - 1.001)
    x = np.clip(x + 1, 0, padded.shape[1] - 1.001)
    top, left = y.astype(int), x.astype(int)
    down, right = y - top, x - left
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = (
        padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    )
    return upper * (1 - down) + lower * down


def draw_glyph(
    glyph: np.ndarray,
    size: int,
    center: tuple[float, float],
    height: float,
    angle: float,
) -> np.ndarray:
    """Pen pressure of a scaled, rotated digit on a square canvas.

    Args:
        glyph: pressure in 0..1, of shape (8, 8).
        size: side of the canvas, in pixels.
        center: row and column of the digit's centre, in pixels.
        height: height of the upright digit, in pixels.
        angle: counter-clockwise rotation, in degrees.

    Returns:
        Pressure in 0..1, of shape (size, size).
    """
    cells = glyph.shape[0]
    rows, columns = np.mgrid[:size, :size].astype(float)
    rows, columns = rows - center[0], columns - center[1]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    step = cells / height  # cells per pixel
    middle = (cells - 1) / 2
    y = (rows * cos + columns * sin) * step + middle
    x = (columns * cos - rows * sin) * step + middle
    return sample_bilinear(glyph, y, x)


def make_texture(rng: np.random.RandomState, size: int) -> np.ndarray:
    """A background: two dark colours mixed by clouds or stripes, and grain.

    Returns:
        Float RGB in 0..255, of shape (size, size, 3).
    """
    first, second = rng.uniform(0, 130, (2, 3))
    rows, columns = np.mgrid[:size, :size] / size
    mix = np.zeros((size, size))
    for octave, weight in ((4, 0.6), (11, 0.4)):
        noise = rng.random_sample((octave, octave))
        mix += weight * sample_bilinear(
            noise, rows * (octave - 1), columns * (octave - 1)
        )
    if rng.random_sample() < 0.5:
        direction = rng.uniform(-1, 1, 2)
        period = rng.uniform(0.06, 0.2)
        phase = (rows * direction[0] + columns * direction[1]) / period
        # a triangle wave, bent a little by the clouds
        mix = 2 * np.abs((phase + mix) % 1 - 0.5)
    grain = rng.uniform(-8, 8, (size, size, 1))
    return first + (second - first) * mix[..., None] + grain


def box_overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection of two masks' boxes over the smaller one's area."""
    spans = []
    for axis in (0, 1):
        ends = [np.flatnonzero(mask.any(axis)) for mask in (first, second)]
        spans.append([(int(end[0]), int(end[-1]) + 1) for end in ends])
    areas = [(x[1] - x[0]) * (y[1] - y[0]) for x, y in zip(spans[0], spans[1])]
    shared = 1
    for (a0, a1), (b0, b1) in spans:
        shared *= max(0, min(a1, b1) - max(a0, b0))
    return shared / min(areas)


def pick_color(rng: np.random.RandomState, behind: np.ndarray) -> np.ndarray:
    """A random colour brighter than the pixels ``behind``, (N, 3)."""
    grey = behind.mean(0) @ LUMA
    for _ in range(100):
        color = rng.uniform(0, 255, 3)
        if color @ LUMA - grey >= MIN_CONTRAST:
            return color
    return np.full(3, 255.0)


def make_scene(
    rng: np.random.RandomState,
    glyphs: np.ndarray,
    digits: np.ndarray,
    sources: np.ndarray,
    size: int,
) -> Scene:
    """Draw one scene.

    Args:
        rng: the only source of chance.
        glyphs: all digits' pen pressure in 0..1, of shape (N, 8, 8).
        digits: what they show, 0..9, of shape (N,).
        sources: which of them may be used, of shape (M,).
        size: side of the scene, in pixels.

    Returns:
        A scene of 3 to 6 digits, each with at least 80 % of its ink visible.
    """
    image = make_texture(rng, size)
    instances: list[Instance] = []
    areas: list[int] = []
    fewest, most = DIGITS_PER_SCENE
    wanted = rng.randint(fewest, most + 1)
    for _ in range(MAX_TRIES):
        if len(instances) == wanted:
            break
        pool = sources[digits[sources] == rng.randint(10)]
        source = int(pool[rng.randint(len(pool))])
        height = rng.uniform(*HEIGHT) * size
        center = rng.uniform(height / 2, size - height / 2, 2)
        angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
        ink = draw_glyph(glyphs[source], size, tuple(center), height, angle)
        mask = ink >= INK
        if any(
            box_overlap(other.mask, mask) > MAX_OVERLAP
            or (other.mask & ~mask).sum() < MIN_VISIBLE * area
            for other, area in zip(instances, areas)
        ):
            continue
        for other in instances:
            other.mask &= ~mask
        # edges about two pixels wide, as a camera would see them
        slope = height / glyphs.shape[1] / 2
        alpha = np.clip((ink - INK) * slope + 0.5, 0, 1)[..., None]
        color = pick_color(rng, image[mask])
        image = image * (1 - alpha) + color * alpha
        instances.append(Instance(source, int(digits[source]), mask))
        areas.append(int(mask.sum()))
    image += rng.uniform(-4, 4, image.shape)
    return Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), instances)
