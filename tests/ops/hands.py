"""Hands that are bent by given angles, and the limits they obey: made by rotations of SciPy, one after the other."""

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

PALM = np.array(
    [
        *((0.2, -0.1, 0.3), (0.48, 0.12, 0.45), (0.52, 0.85, 0.34)),
        *((0.25, 0.9, 0.28), (0.02, 0.84, 0.31), (-0.15, 0.7, 0.38)),
    ]
)
FLEXION, EXTENSION, ABDUCTION, TWIST = np.array((90, 135, 90)), np.array((45, 10, 45)), 20, 20


class Bends(NamedTuple):
    """Degrees, and lengths of the bones, (N, 5) and (N, 5, 3)."""

    abduction: np.ndarray
    twist: np.ndarray
    flexion: np.ndarray
    lengths: np.ndarray


def bounds(seed: int) -> np.ndarray:
    """Least and greatest lengths of the 20 bones; of the palm's, which its template rules, impossible ones."""
    low = np.random.default_rng(seed).uniform(0.2, 0.5, (5, 4))
    low[:, 0] = 7
    return np.stack([low, 1.3 * low], axis=-1).reshape(20, 2)


def bends(seed: int, count: int, *, lengths: np.ndarray, neutral: np.ndarray, excess: float = 1.0) -> Bends:
    """Within the limits, or up to `excess` times as far from their middle; all fingers show a plane."""
    rng = np.random.default_rng(seed)

    def around(middle: np.ndarray, half: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return middle + excess * half * rng.uniform(-1, 1, shape)

    bounds = lengths.reshape(5, 4, 2)[:, 1:]
    flexion = around((FLEXION - EXTENSION) / 2, (FLEXION + EXTENSION) / 2, (count, 5, 3))
    flexion[..., 1] = np.where(np.abs(flexion[..., 1]) < 20, 20 + rng.uniform(0, 10, (count, 5)), flexion[..., 1])
    return Bends(
        abduction=around(neutral[:, 0], np.array(ABDUCTION), (count, 5)),
        twist=around(neutral[:, 1], np.array(TWIST), (count, 5)),
        flexion=flexion,
        lengths=np.abs(around(bounds.mean(-1), np.ptp(bounds, axis=-1) / 2, (count, 5, 3))),
    )


def clipped(bends: Bends, *, lengths: np.ndarray, neutral: np.ndarray) -> Bends:
    bounds = lengths.reshape(5, 4, 2)[:, 1:]
    return Bends(
        abduction=np.clip(bends.abduction, neutral[:, 0] - ABDUCTION, neutral[:, 0] + ABDUCTION),
        twist=np.clip(bends.twist, neutral[:, 1] - TWIST, neutral[:, 1] + TWIST),
        flexion=np.clip(bends.flexion, -EXTENSION, FLEXION),
        lengths=np.clip(bends.lengths, bounds[..., 0], bounds[..., 1]),
    )


def posed(seed: int, bends: Bends) -> np.ndarray:
    """Right hands anywhere, turned in any way."""
    count = len(bends.twist)
    rng = np.random.default_rng(seed)
    hands = np.empty((count, 21, 3))
    hands[:, 0] = PALM[0]
    for finger in range(5):
        along, normal, lateral = knuckle_axes(PALM[None], finger)[0]
        flexion, twist = np.radians(bends.flexion[:, finger]), np.radians(bends.twist[:, finger])
        hinge = np.tile(lateral, (count, 1))
        # The knuckle bends about the hinge, then, about what has become of the normal, the hinge's side comes nearer.
        bent = Rotation.from_rotvec(flexion[:, :1] * hinge)
        aside = Rotation.from_rotvec(-np.radians(bends.abduction[:, finger, None]) * bent.apply(normal))
        bone, hinge = (aside * bent).apply(along), aside.apply(hinge)
        hinge = Rotation.from_rotvec(twist[:, None] * bone).apply(hinge)
        at = np.tile(PALM[1 + finger], (count, 1))
        for joint in range(4):
            hands[:, 1 + 4 * finger + joint] = at
            if joint < 3:
                if joint:
                    bone = Rotation.from_rotvec(flexion[:, joint, None] * hinge).apply(bone)
                at = at + bends.lengths[:, finger, joint, None] * bone
    turns = Rotation.random(count, rng=rng).as_matrix()
    return np.einsum("bxy,bky->bkx", turns, hands) + rng.uniform(-2, 2, (count, 1, 3))


def knuckle_axes(palms: np.ndarray, finger: int) -> np.ndarray:
    """Along the bone to the knuckle, the palm's normal and the thumb's side of right hands (N, 6, 3), (N, axis, 3)."""
    bones = palms[:, 1:] - palms[:, :1]
    along = bones[:, finger] / np.linalg.norm(bones[:, finger], axis=-1, keepdims=True)
    normal = np.cross(bones[:, 1], bones[:, 4])
    normal = normal - np.sum(normal * along, axis=-1, keepdims=True) * along
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.stack([along, normal, np.cross(along, normal)], axis=1)
