"""What is behind the person: the user's photos, or gradients, noise, blobs and clutter."""

import functools

import cv2
import numpy as np

from jaxpose.data import records
from jaxpose.data.formats import files


def sample(rng: np.random.Generator, size: int, folder: str | None) -> np.ndarray:
    """A background, linear RGB float32 (size, size, 3).

    Args:
      rng: what is random.
      size: in pixels.
      folder: of photos, or an uncompressed tar of them; None: procedural ones.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if none of twenty photos drawn from it can be decoded.
    """
    image = _photo(rng, size, folder) if folder is not None else _painted(rng, size)
    blur = rng.choice((0.0, rng.uniform(0.3, 1.0), rng.uniform(1.0, 4.0)), p=(0.3, 0.4, 0.3)) * size / 256
    if blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    return linear(image)


def linear(srgb: np.ndarray) -> np.ndarray:
    """Linear float32 of RGB in [0, 1]."""
    return np.clip(srgb, 0, 1).astype(np.float32) ** np.float32(2.2)


def colour(rng: np.random.Generator, saturation: float = 0.6) -> np.ndarray:
    """A random RGB colour in [0, 1], of at most this saturation; dull ones are more common."""
    hue, value = rng.random(), rng.uniform(0.12, 0.98)
    s = saturation * rng.random() ** 1.5
    k = (np.array((5, 3, 1)) + 6 * hue) % 6
    return value * (1 - s * np.clip(np.minimum(k, 4 - k), 0, 1))


def occluder(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Something close to the camera: linear RGB (size, size, 3) and where it is, bool (size, size)."""
    mask = np.zeros((size, size), np.uint8)
    points = _polygon(rng, size, rng.uniform(0.08, 0.2) * size)
    cv2.fillPoly(mask, [points], 1)
    return linear(_texture(rng, size)), mask.astype(bool)


@functools.lru_cache(maxsize=4)
def _folder(path: str) -> tuple[files.Files, tuple[str, ...]]:
    held = files.Files(path)
    names = tuple(name for name in held.names if name.lower().endswith(tuple(files.IMAGE_SUFFIXES)))
    if not names:
        raise ValueError(f"{path}: holds no images, expected photos for backgrounds")
    return held, names


def _photo(rng: np.random.Generator, size: int, folder: str) -> np.ndarray:
    held, names = _folder(folder)
    for _ in range(20):
        name = names[rng.integers(len(names))]
        try:
            image = files.decode_image(held.read(name), name)
        except records.BrokenImageError:
            continue
        side = max(int(min(image.shape[:2]) * rng.uniform(0.45, 1.0)), 8)
        y, x = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
        crop = image[y : y + side, x : x + side]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        way = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=way).astype(np.float32) / 255
    raise ValueError(f"{folder}: none of 20 photos drawn can be decoded")


def _painted(rng: np.random.Generator, size: int) -> np.ndarray:
    image = _texture(rng, size)
    if rng.random() < 0.7:  # shapes before it, some of them textured
        for _ in range(int(rng.integers(2, 22))):
            points = _polygon(rng, size, size * rng.uniform(0.03, 0.35))
            mask = np.zeros((size, size), np.uint8)
            cv2.fillPoly(mask, [points], 255, cv2.LINE_AA)
            weight = mask[..., None].astype(np.float32) / 255
            texture = _texture(rng, size) if rng.random() < 0.15 else colour(rng).astype(np.float32)
            image = image * (1 - weight) + texture * weight
    grain = _noise(rng, size, int(rng.integers(8, 64)), 1)
    return image * (1 + rng.uniform(0, 0.25) * grain)


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A filled square: a gradient, noise, stripes, checks or blobs, float32 in [0, 1]."""
    kind = rng.integers(5)
    a, b = colour(rng).astype(np.float32), colour(rng).astype(np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    if kind == 0:
        mixed = np.clip(along * rng.uniform(0.5, 1.5), 0, 1)
    elif kind == 1:
        mixed = sum(_noise(rng, size, 2 ** (k + 2), 1)[..., 0] * 0.6**k for k in range(4))
        mixed = np.clip(0.5 + rng.uniform(0.3, 1.0) * mixed, 0, 1)
    elif kind == 2:
        mixed = (np.sin(along * rng.uniform(15, 120)) > rng.uniform(-0.8, 0.8)).astype(np.float32)
    elif kind == 3:
        count = rng.uniform(3, 25)
        across = -np.sin(angle) * x + np.cos(angle) * y
        mixed = ((np.floor(along * count) + np.floor(across * count * rng.uniform(0.4, 1))) % 2).astype(np.float32)
    else:
        mixed = np.zeros((size, size), np.float32)
        for _ in range(int(rng.integers(5, 40))):
            centre = tuple(int(v) for v in rng.integers(0, size, 2))
            radius = max(int(size * rng.uniform(0.01, 0.12)), 1)
            cv2.circle(mixed, centre, radius, float(rng.random()), -1, cv2.LINE_AA)
        mixed = cv2.GaussianBlur(mixed, (0, 0), size * rng.uniform(0.002, 0.03) + 0.3)
    return a + mixed[..., None] * (b - a)


def _noise(rng: np.random.Generator, size: int, cells: int, channels: int) -> np.ndarray:
    """Smooth noise about 0 with this many cells a side, float32 (size, size, channels)."""
    grid = rng.normal(0, 0.4, (min(cells, size), min(cells, size), channels)).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC).reshape(size, size, channels)


def _polygon(rng: np.random.Generator, size: int, radius: float) -> np.ndarray:
    """Corners in pixels, int32 (N, 2): a box, an ellipse or something irregular."""
    centre = rng.uniform(-0.1, 1.1, 2) * size
    kind = rng.integers(3)
    if kind == 0:
        half = radius * rng.uniform(0.3, 1.6, 2)
        corners = half * np.array(((-1, -1), (1, -1), (1, 1), (-1, 1)))
        turn = 0.0 if rng.random() < 0.6 else rng.uniform(0, np.pi)
    else:
        count = 24 if kind == 1 else int(rng.integers(3, 9))
        around = np.arange(count) / count * 2 * np.pi
        far = radius * (np.ones(count) if kind == 1 else rng.uniform(0.5, 1.3, count))
        corners = far[:, None] * np.stack((np.cos(around), rng.uniform(0.5, 1.5) * np.sin(around)), axis=1)
        turn = rng.uniform(0, np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.rint(centre + corners @ np.array(((cos, sin), (-sin, cos)))).astype(np.int32)
