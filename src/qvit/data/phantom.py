"""A synthetic blood smear: seeded pictures of stained white cells, for use without a download.

Each picture shows one white cell among pale red ones. Five classes differ in the cell's size, its nucleus
(size, lobes, texture) and its cytoplasm (colour, granules), with distributions that overlap as they do in a
real smear; stain, light, noise, position and rotation vary alike in all classes and carry no information.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qvit.errors import ConfigError

Array: TypeAlias = NDArray[np.float32]

SPLITS = {"train": 2000, "val": 400, "test": 800}
# Slightly unbalanced, as differential counts are; the order is that of the registry's labels.
CLASS_SHARES = (0.24, 0.18, 0.26, 0.15, 0.17)
_CHUNK = 200  # pictures drawn at once: bounds memory at large sizes


@dataclass(frozen=True)
class _Kind:
    """What one class is drawn from: (mean, standard deviation); lengths are relative to the picture."""

    radius: tuple[float, float]  # of the cell
    ratio: tuple[float, float]  # nucleus radius / cell radius
    lobes: tuple[float, float, float, float]  # probabilities of 1, 2, 3, 4 lobes
    stretch: tuple[float, float]  # long axis / short axis of a lobe, minus 1
    dent: tuple[float, float]  # depth of the notch in the nucleus, relative to its radius
    chromatin: tuple[float, float]  # contrast of the nucleus's texture
    darkness: tuple[float, float]  # stain taken up by the nucleus
    blue: tuple[float, float]  # cytoplasm from pink (0) to grey-blue (1)
    granules: tuple[float, float]  # strength of the granules
    orange: tuple[float, float]  # their colour, from purple (0) to orange (1)


_KINDS = (
    _Kind(  # lymphocyte: small, round nucleus that fills it, smooth
        (0.235, 0.032), (0.82, 0.07), (0.93, 0.07, 0.0, 0.0), (0.12, 0.08),
        (0.08, 0.09), (0.10, 0.06), (1.02, 0.12), (0.62, 0.22), (0.05, 0.08), (0.4, 0.3),
    ),
    _Kind(  # monocyte: large, notched nucleus, grey-blue cytoplasm
        (0.315, 0.034), (0.68, 0.08), (0.80, 0.18, 0.02, 0.0), (0.32, 0.15),
        (0.38, 0.18), (0.20, 0.08), (0.88, 0.12), (0.66, 0.20), (0.12, 0.10), (0.3, 0.3),
    ),
    _Kind(  # neutrophil: several lobes, pale pink cytoplasm, fine granules
        (0.285, 0.032), (0.62, 0.07), (0.10, 0.22, 0.42, 0.26), (0.25, 0.12),
        (0.15, 0.12), (0.16, 0.08), (0.98, 0.12), (0.36, 0.20), (0.26, 0.14), (0.35, 0.25),
    ),
    _Kind(  # eosinophil: two lobes, coarse orange granules
        (0.290, 0.032), (0.60, 0.07), (0.14, 0.58, 0.24, 0.04), (0.22, 0.12),
        (0.15, 0.12), (0.16, 0.08), (0.94, 0.12), (0.30, 0.20), (0.50, 0.22), (0.70, 0.25),
    ),
    _Kind(  # blast: large, open and mottled nucleus that nearly fills it, blue rim
        (0.290, 0.036), (0.80, 0.07), (0.90, 0.10, 0.0, 0.0), (0.18, 0.10),
        (0.14, 0.12), (0.30, 0.10), (0.82, 0.12), (0.70, 0.20), (0.10, 0.10), (0.4, 0.3),
    ),
)  # fmt: skip

_BACKGROUND = np.array([0.955, 0.905, 0.905], np.float32)
_RED_CELL = np.array([0.89, 0.66, 0.67], np.float32)
_PINK = np.array([0.90, 0.74, 0.80], np.float32)
_BLUE = np.array([0.70, 0.72, 0.86], np.float32)
_NUCLEUS = np.array([0.40, 0.22, 0.55], np.float32)
_PURPLE_GRAIN = np.array([0.60, 0.36, 0.62], np.float32)
_ORANGE_GRAIN = np.array([0.88, 0.47, 0.40], np.float32)


def make_phantom(seed: int = 0, size: int = 28) -> dict[str, NDArray[Any]]:
    """Draw the whole synthetic dataset.

    Returns the six arrays of a MedMNIST file: `{train,val,test}_images` uint8 (N, size, size, 3) and
    `{train,val,test}_labels` uint8 (N, 1), with N = 2000, 400, 800. `size` is in pixels, even and at least
    28. The same seed gives the same arrays.

    Raises ConfigError for an odd size, a size below 28, and a negative seed.
    """
    if size < 28 or size % 2:
        raise ConfigError(f"phantom: expected an even size of at least 28 pixels, got {size}; try 28 or 64.")
    if seed < 0:
        raise ConfigError(f"phantom: expected a seed of 0 or more, got {seed}.")
    arrays: dict[str, NDArray[Any]] = {}
    for number, (split, count) in enumerate(SPLITS.items()):
        rng = np.random.Generator(np.random.PCG64([seed, number]))
        labels = _draw_labels(rng, count)
        images = np.empty((count, size, size, 3), np.uint8)
        for start in range(0, count, _CHUNK):
            images[start : start + _CHUNK] = _draw_cells(rng, labels[start : start + _CHUNK], size)
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    return arrays


def _draw_labels(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return labels with exact class shares in random order, so that no split lacks a class."""
    edges = np.round(np.cumsum(CLASS_SHARES) * count).astype(np.int64)
    return rng.permutation(np.searchsorted(edges, np.arange(count), side="right"))


def _sample(rng: np.random.Generator, labels: NDArray[np.int64], field: str, low: float, high: float) -> Array:
    """Return one parameter for every picture, drawn from its class's distribution; shape (b, 1, 1)."""
    table = np.array([getattr(kind, field) for kind in _KINDS], np.float32)[labels]
    drawn = table[:, 0] + table[:, 1] * rng.standard_normal(len(labels), np.float32)
    return drawn.clip(low, high)[:, None, None]


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Array:
    return low + (high - low) * rng.random(shape, np.float32)


def _waves(rng: np.random.Generator, x: Array, y: Array, frequency: float, terms: int) -> Array:
    """Return a smooth random field (b, s, s) of about unit variance: the sum of a few plane waves."""
    b = len(x)
    angle = _uniform(rng, 0.0, 2 * np.pi, terms, b, 1, 1)
    phase = _uniform(rng, 0.0, 2 * np.pi, terms, b, 1, 1)
    speed = frequency * _uniform(rng, 0.4, 1.6, terms, b, 1, 1)
    field = np.zeros_like(x)
    for a, p, f in zip(angle, phase, speed, strict=True):
        field += np.sin(f * (np.cos(a) * x + np.sin(a) * y) + p)
    return field * np.float32((2 / terms) ** 0.5)


def _inside(distance: Array, softness: Array | float) -> Array:
    """Return 1 inside (negative distance), 0 outside, with a smooth edge between."""
    return 1 / (1 + np.exp((distance / softness).clip(-30, 30)))


def _blend(image: Array, colour: Array, mask: Array) -> Array:
    return image + (colour - image) * mask[..., None]


def _nucleus(rng: np.random.Generator, labels: NDArray[np.int64], u: Array, v: Array, radius: Array) -> Array:
    """Return the signed distance (b, s, s) to the nucleus, a union of one to four lobes around its middle."""
    b = len(labels)
    shares = np.cumsum(np.array([kind.lobes for kind in _KINDS]), axis=1)[labels]
    lobes = 1 + (rng.random(b)[:, None] > shares[:, :3]).sum(1)
    stretch = 1 + _sample(rng, labels, "stretch", 0.0, 0.8)
    dent = _sample(rng, labels, "dent", 0.0, 0.7)
    count = lobes[:, None, None].astype(np.float32)
    # Lobes sit on an arc; more lobes are smaller, so that the stained area stays about the same.
    lobe_radius = radius * count**-0.42
    spread = np.where(count > 1, radius * (0.50 + 0.06 * count), 0)
    start = _uniform(rng, 0.0, 2 * np.pi, b, 1, 1)
    step = _uniform(rng, 1.15, 1.75, b, 1, 1) * np.where(count == 2, np.float32(1.7), np.float32(1))
    distance = np.full_like(u, 9)
    for i in range(4):
        turn = start + i * step + _uniform(rng, -0.2, 0.2, b, 1, 1)
        x, y = u - spread * np.cos(turn), v - spread * np.sin(turn)
        long = x * np.cos(turn) + y * np.sin(turn)
        short = y * np.cos(turn) - x * np.sin(turn)
        lobe = np.hypot(long * np.sqrt(stretch), short / np.sqrt(stretch)) - lobe_radius
        distance = np.where(i < count, np.minimum(distance, lobe), distance)
    # The notch of a monocyte's kidney-shaped nucleus; in a lobe it would be a hole.
    x, y = u - radius * np.cos(start), v - radius * np.sin(start)
    return np.maximum(distance, dent * (count == 1) * radius * 1.2 - np.hypot(x, y))


def _smear(rng: np.random.Generator, x: Array, y: Array, edge: float) -> Array:
    """Return the background (b, s, s, 3): plasma and up to three pale red cells."""
    b = len(x)
    image = np.broadcast_to(_BACKGROUND, (*x.shape, 3)).copy()
    for _ in range(3):
        angle = _uniform(rng, 0.0, 2 * np.pi, b, 1, 1)
        far = _uniform(rng, 0.44, 0.72, b, 1, 1)
        radius = _uniform(rng, 0.12, 0.17, b, 1, 1) * (rng.random((b, 1, 1)) < 0.8)
        gap = np.hypot(x - far * np.cos(angle), y - far * np.sin(angle))
        pallor = 1 - 0.45 * np.exp(-((gap / 0.08) ** 2))  # red cells are thinner in the middle
        image = _blend(image, _RED_CELL, _inside(gap - radius, edge) * pallor * (radius > 0))
    return image


def _draw_cells(rng: np.random.Generator, labels: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Return pictures (b, size, size, 3) of one cell each, with the given classes."""
    b = len(labels)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x: Array = np.broadcast_to(axis, (b, size, size))
    y: Array = np.broadcast_to(axis[:, None], (b, size, size))
    edge = 0.012
    image = _smear(rng, x, y, edge)

    u: Array = x - _uniform(rng, -0.08, 0.08, b, 1, 1)
    v: Array = y - _uniform(rng, -0.08, 0.08, b, 1, 1)
    radius = _sample(rng, labels, "radius", 0.16, 0.42)
    wobble = 0.035 * _waves(rng, u, v, 7.0, 3)
    cell = _inside(np.hypot(u, v) - radius * (1 + wobble), edge)
    blue = _sample(rng, labels, "blue", 0.0, 1.0)[..., None]
    image = _blend(image, _PINK + (_BLUE - _PINK) * blue, cell * 0.9)

    grains = (_waves(rng, u, v, 95.0, 6) - 0.3).clip(0, 1) * _sample(rng, labels, "granules", 0.0, 1.0)
    orange = _sample(rng, labels, "orange", 0.0, 1.0)[..., None]
    image = _blend(image, _PURPLE_GRAIN + (_ORANGE_GRAIN - _PURPLE_GRAIN) * orange, cell * grains)

    # The nucleus lies a little off the middle of the cell, and never quite reaches its edge.
    core = radius * _sample(rng, labels, "ratio", 0.4, 0.93)
    slack = (radius - core) * np.float32(0.5)
    p: Array = u - slack * _uniform(rng, -1.0, 1.0, b, 1, 1)
    q: Array = v - slack * _uniform(rng, -1.0, 1.0, b, 1, 1)
    nucleus = _inside(_nucleus(rng, labels, p, q, core), edge) * cell
    texture = 1 + _sample(rng, labels, "chromatin", 0.0, 0.6) * _waves(rng, u, v, 50.0, 7)
    stain = (_sample(rng, labels, "darkness", 0.5, 1.3) * texture).clip(0.2, 1.4)
    image = _blend(image, _NUCLEUS, nucleus * stain.clip(0, 1.1))
    return _photograph(rng, image, x, y)


def _photograph(rng: np.random.Generator, image: Array, x: Array, y: Array) -> NDArray[np.uint8]:
    """Apply the effects of staining, lamp and camera, which do not depend on the class."""
    b = len(image)
    stain = np.exp(0.22 * rng.standard_normal((b, 1, 1, 1), np.float32))
    tint = np.exp(0.10 * rng.standard_normal((b, 1, 1, 3), np.float32))
    light = 1 + 0.06 * rng.standard_normal((b, 1, 1), np.float32)
    light = light + _uniform(rng, -0.12, 0.12, b, 1, 1) * x + _uniform(rng, -0.12, 0.12, b, 1, 1) * y
    absorbed = -np.log(image.clip(0.02, 1)) * stain * tint
    image = np.exp(-absorbed) * light[..., None]
    image = image + 0.028 * rng.standard_normal(image.shape, np.float32)
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)
