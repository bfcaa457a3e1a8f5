"""Draws posed figures as hulls of spheres in painter's order, and says which joints the picture shows."""

import functools
import math

import cv2
import numpy as np

from jaxpose.data.generators.embedded import appearance
from jaxpose.data.generators.embedded.parts import Parts

_SHIFT = 4  # fractional bits of the coordinates given to OpenCV
_DIRECTIONS = 14
_UNIT = np.stack([f(np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS) for f in (np.cos, np.sin)])
# By shade: share of the radius, shift towards the light in radii, share of the full light.
_SCALE = np.array((1.0, 0.76, 0.42, 1.0))
_SHIFTED = np.array((0.0, 0.22, 0.42, 0.0))
_LIGHT = np.array((0.0, 0.62, 1.0, 0.7))
_FILL = np.linspace(0, 1, 8)  # spheres that stand for a capsule when rays are cast


def spheres(
    figure: Parts, positions: np.ndarray, orientations: np.ndarray, scale: np.ndarray, girth: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (P, 4, 3) in the frame of the positions and radii (P, 4) of the parts' spheres, in metres.

    Args:
      figure: the parts.
      positions: of the nodes, shape (N, 3).
      orientations: of the nodes, shape (N, 3, 3).
      scale: the person's proportion at each node, shape (N,).
      girth: factor on the radii.
    """
    stature = scale.mean()
    thick = np.array((girth, 1.0, girth)) * scale[figure.nodes, None]
    local = (orientations[figure.nodes] @ (figure.local * thick)[..., None])[..., 0]
    return positions[figure.nodes] + local, figure.radii * (girth * stature)


def occluded(
    figure: Parts, centres: np.ndarray, radii: np.ndarray, joints: np.ndarray, margins: np.ndarray
) -> np.ndarray:
    """Whether a surface lies more than a margin in front of each joint, shape (K,).

    Args:
      figure: the parts.
      centres: of the spheres in the camera frame, shape (P, 4, 3).
      radii: shape (P, 4).
      joints: in the camera frame, shape (K, 3).
      margins: in metres, shape (K,).
    """
    first, last = figure.capsules.T
    ends, sizes = centres.reshape(-1, 3), radii.reshape(-1)
    filled = (ends[first] + _FILL[:, None, None] * (ends[last] - ends[first])).reshape(-1, 3)
    size = (sizes[first] + _FILL[:, None] * (sizes[last] - sizes[first])).reshape(-1)
    distance = np.sqrt((joints * joints).sum(axis=1, keepdims=True))
    # Where the ray to each joint enters each sphere: along - sqrt(inside), if it does.
    along = (joints / distance) @ filled.T
    inside = along * along + (size * size - (filled * filled).sum(axis=1))
    before = along - (distance - margins[:, None])
    return ((inside > 0) & ((before < 0) | (before * before < inside))).any(axis=1)


def draw(
    figure: Parts,
    look: appearance.Look,
    centres: np.ndarray,
    radii: np.ndarray,
    intrinsics: np.ndarray,
    size: int,
    pan: np.ndarray,
    grain: np.ndarray,
) -> np.ndarray:
    """The image, uint8 (size, size, 3) RGB.

    Args:
      figure: the parts.
      look: colours, light and camera.
      centres: of the spheres in the camera frame, shape (P, 4, 3).
      radii: shape (P, 4).
      intrinsics: shape (3, 3).
      size: of the image in pixels.
      pan: corner of the image on the background, (x, y).
      grain: corner of the image on the noise, (x, y).
    """
    x, y = pan
    image = look.background[y : y + size, x : x + size].copy()
    pixels = centres[..., :2] / centres[..., 2:] * intrinsics[0, 0] + intrinsics[:2, 2]
    extent = radii / centres[..., 2] * intrinsics[0, 0]
    depth = centres[..., 2].mean(axis=1)
    axis = centres[:, 2:].sum(axis=1) - centres[:, :2].sum(axis=1)
    across = 1 - (axis @ look.light) ** 2 / np.maximum((axis * axis).sum(axis=1), 1e-12)
    brightness = look.ambient + look.diffuse * np.sqrt(np.maximum(across, 0.09))[:, None] * _LIGHT
    part, shade = figure.strokes.T
    polygons = list(_outlines(pixels, extent, part, shade, look.light[:2]))
    colours = look.albedo[figure.materials[part]] * brightness[part, shade, None]
    if len(look.patterned):
        bands = _bands(pixels, extent, look.patterned, look.cells)
        polygons += list(bands)
        dyed = np.repeat(look.patterned, len(look.cells))
        part = np.concatenate((part, dyed))
        colours = np.concatenate((colours, look.dye * brightness[dyed, 1, None]))
    shown = colours.tolist()
    for i in np.argsort(-depth[part], kind="stable").tolist():
        cv2.fillConvexPoly(image, polygons[i], shown[i], cv2.LINE_AA, _SHIFT)
    if look.blur:
        kernel = 2 * math.ceil(1.5 * look.blur) + 1
        image = cv2.GaussianBlur(image, (kernel, kernel), look.blur)
    if look.exposure is not None:
        image = cv2.multiply(image, look.exposure, scale=1 / 255)
    x, y = grain
    noise = _noise(size)[y : y + size, x : x + size]
    strength = look.noise / _NOISE
    middle = 128 * (1 - look.contrast) - 128 * strength
    return cv2.addWeighted(image, look.contrast, noise, strength, middle)


def _outlines(
    pixels: np.ndarray, extent: np.ndarray, part: np.ndarray, shade: np.ndarray, light: np.ndarray
) -> np.ndarray:
    """Outlines of the strokes, the points where a line of each direction touches the hull, (Q, D, 2)."""
    radius = extent[part]
    centre = pixels[part] + (_SHIFTED[shade][:, None] * radius)[..., None] * light
    radius = radius * _SCALE[shade][:, None]
    support = (centre.reshape(-1, 2) @ _UNIT).reshape(*radius.shape, _DIRECTIONS) + radius[..., None]
    touched = support.argmax(axis=1) + 4 * np.arange(len(part))[:, None]
    points = centre.reshape(-1, 2)[touched] + radius.reshape(-1)[touched][..., None] * _UNIT.T
    return _fixed(points)


def _bands(pixels: np.ndarray, extent: np.ndarray, patterned: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The stripes on the patterned parts, shape (B * S, 4, 2)."""
    ends = pixels[patterned].reshape(-1, 2, 2, 2)
    radius = extent[patterned].reshape(-1, 2, 2)
    middle = ends.mean(axis=2)
    axis = middle[:, 1] - middle[:, 0]
    normal = np.stack((-axis[:, 1], axis[:, 0]), axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    side = ((ends - middle[:, :, None]) * normal[:, None, None]).sum(-1)
    low, high = (side - radius).min(axis=2), (side + radius).max(axis=2)
    along, across = cells[..., 0], cells[..., 1]
    width = low[:, :, None, None] + (high - low)[:, :, None, None] * across
    reach = width[:, 0] + along * (width[:, 1] - width[:, 0])
    points = middle[:, 0, None, None] + along[..., None] * axis[:, None, None]
    return _fixed((points + reach[..., None] * normal[:, None, None]).reshape(-1, 4, 2))


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


_NOISE = 40.0  # standard deviation of the stored noise


@functools.lru_cache(maxsize=4)
def _noise(size: int) -> np.ndarray:
    noise = np.random.default_rng(0).normal(128, _NOISE, (size + 64, size + 64, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)
