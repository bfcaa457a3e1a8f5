"""Skeletons drawn over pictures."""

import cv2
import numpy as np

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import OCCLUDED

# RGB: told apart by most colour-blind readers, visible on skin, cloth and sky with a dark edge
LEFT, RIGHT, CENTRE = (64, 196, 255), (255, 152, 56), (240, 240, 240)
_SIDELESS = (255, 72, 150)  # skeletons without left and right
_EDGE = (20, 20, 24)
_SHIFT = 4  # fractional bits of the coordinates given to OpenCV


def draw_skeleton(
    image: np.ndarray, keypoints: np.ndarray, visible: np.ndarray, skeleton: Skeleton, *, size: int = 256
) -> np.ndarray:
    """Draws joints and bones, coloured by side, over a copy of `image` enlarged to at least `size` pixels.

    Args:
      image: uint8 (H, W, 3) RGB; enlarged until its shorter side is `size` pixels.
      keypoints: (K, 2) in pixels of `image`.
      visible: (K,); joints with 0 or False and their bones are not drawn, nor points that are not finite. Integers
        are those of a record: occluded joints are rings.
      skeleton: names the K joints, their bones and their sides.
      size: smallest height and width of the result, in pixels.
    """
    height, width = image.shape[:2]
    factor = max(1.0, size / min(height, width))
    enlarged = (round(width * factor), round(height * factor))
    canvas = cv2.resize(image, enlarged, interpolation=cv2.INTER_CUBIC)
    points = (np.asarray(keypoints, np.float64) + 0.5) * (np.array(enlarged) / (width, height)) - 0.5
    shown = (np.asarray(visible) > 0) & np.isfinite(points).all(axis=-1)
    rings = (np.asarray(visible) == OCCLUDED) & np.issubdtype(np.asarray(visible).dtype, np.integer)
    fixed = np.round(np.clip(np.where(shown[:, None], points, 0), -1e4, 1e4) * 2**_SHIFT).astype(int)
    unit = min(enlarged) / 256
    dot = 3.5 if skeleton.bones else 6.0
    sides = _sides(skeleton)
    bones = [(a, b) for a, b in skeleton.bone_indices if shown[a] and shown[b]]
    for edge in (True, False):  # all edges lie below all colours
        for a, b in bones:
            colour = _EDGE if edge else _bone_colour(sides[a], sides[b])
            stroke = max(round((4.5 if edge else 2.5) * unit), 1)
            cv2.line(canvas, fixed[a].tolist(), fixed[b].tolist(), colour, stroke, cv2.LINE_AA, _SHIFT)
        for k in np.flatnonzero(shown):
            colour = _EDGE if edge else sides[k]
            radius = round((dot + edge) * unit * 2**_SHIFT)
            filling = max(round(unit * (1.5 + edge)), 1) if rings[k] else cv2.FILLED
            cv2.circle(canvas, fixed[k].tolist(), radius, colour, filling, cv2.LINE_AA, _SHIFT)
    return canvas


def _sides(skeleton: Skeleton) -> list[tuple[int, int, int]]:
    colours = [CENTRE if skeleton.flips else _SIDELESS] * len(skeleton)
    for left, right in skeleton.flips:
        i, j = skeleton.indices((left, right))
        colours[i], colours[j] = LEFT, RIGHT
    return colours


def _bone_colour(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    """The side of the bone's joints; the middle if they lie on both sides."""
    sides = {a, b} - {CENTRE}
    return sides.pop() if len(sides) == 1 else CENTRE
