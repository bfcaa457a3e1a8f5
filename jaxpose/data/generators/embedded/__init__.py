"""An embedded data set: articulated bodies and hands in motion, rendered on the fly in two visual domains.

`studio` is the simulator-like source: plain clothes and backgrounds, upright or open poses. `street` is the target:
clutter, patterns, hard light, sensor noise and a wider range of poses and views.
"""

import dataclasses
import functools

import numpy as np

from jaxpose.data.generators.embedded import appearance, kinematics, motion, parts, render
from jaxpose.data.joints import skeletons
from jaxpose.data.records import MISSING, OCCLUDED, VISIBLE, Motion, Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedSource:
    """Clips of one person each, before one camera; `index // clip_length` is the clip.

    Attributes:
      kind: `body` (joints of `MPII16`) or `hand` (right hands, joints of `HAND21`).
      style: the domain, `studio` or `street`.
      split: `train`, `validation` or `test`; no two share a clip.
      size: number of images.
      image_size: height and width in pixels.
      seed: changes everything.
      clip_length: frames of a clip.

    Raises:
      ValueError: if a field is out of range.
    """

    kind: str
    style: str
    split: str
    size: int
    image_size: int = 96
    seed: int = 0
    clip_length: int = 8

    def __post_init__(self) -> None:
        choices = {"kind": _KINDS, "style": _STYLES, "split": _SPLITS}
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise ValueError(f"EmbeddedSource.{field} is {getattr(self, field)!r}, expected one of {known}")
        for field, least in {"size": 1, "image_size": 16, "seed": 0, "clip_length": 1}.items():
            if getattr(self, field) < least:
                raise ValueError(f"EmbeddedSource.{field} is {getattr(self, field)}, expected at least {least}")

    @property
    def skeleton(self) -> skeletons.Skeleton:
        """`MPII16` or `HAND21`."""
        return _SKELETONS[self.kind]

    @property
    def labelled(self) -> bool:
        """Always true; adaptation ignores the labels of its target domain."""
        return True

    @property
    def sequences(self) -> tuple[str, ...]:
        """The clip of each image."""
        return tuple(self._sequence(index // self.clip_length) for index in range(self.size))

    @property
    def frames(self) -> np.ndarray:
        """The number of each image in its clip."""
        return np.arange(self.size) % self.clip_length

    @property
    def rates(self) -> np.ndarray:
        """The frames per second of each image's clip: between two key poses pass a third to half a second."""
        return np.full(self.size, _RATE)

    def _sequence(self, number: int) -> str:
        return f"{self.kind}-{self.style}-{self.split}-{self.seed}-{number:06d}"

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self.size:
            raise IndexError(f"index {index} of {self.size} images")
        number, frame = divmod(int(index), self.clip_length)
        clip = _clip(self.kind, self.style, self.split, self.seed, number, self.image_size, self.clip_length)
        figure = parts.PARTS[self.kind]
        nodes = _JOINT_NODES[self.kind]
        positions = clip.positions[frame]
        centres, radii = render.spheres(figure, positions, clip.orientations[frame], clip.scale, clip.look.girth)
        joints = positions[nodes]
        hidden = render.occluded(figure, centres, radii, joints, figure.margins[nodes])
        keypoints = joints[:, :2] / joints[:, 2:] * clip.intrinsics[0, 0] + clip.intrinsics[:2, 2]
        outside = ((keypoints < -0.5) | (keypoints >= self.image_size - 0.5)).any(axis=1)
        image = render.draw(
            figure,
            clip.look,
            centres,
            radii,
            clip.intrinsics,
            self.image_size,
            clip.pan[frame],
            clip.grain[frame],
        )
        sequence = self._sequence(number)
        return Record(
            image=image,
            keypoints=keypoints.astype(np.float32),
            visible=np.where(outside, MISSING, np.where(hidden, OCCLUDED, VISIBLE)).astype(np.uint8),
            name=f"{sequence}-{frame:02d}",
            keypoints3d=joints.astype(np.float32),
            intrinsics=clip.intrinsics.astype(np.float32),
            sequence=sequence,
            frame=frame,
        )


def motions(style: str, split: str, count: int, *, seed: int = 0) -> list[Motion]:
    """What bodies of a domain do, without images: five seconds each, z up, relative to the pelvis.

    Nobody is seen in them who is in the images.
    """
    return [_motion(style, split, seed, number) for number in range(count)]


def _motion(style: str, split: str, seed: int, number: int) -> Motion:
    key = (_STYLES.index(style), _SPLITS.index(split))
    rng = np.random.default_rng((seed, len(_KINDS), *key, number))
    rig = kinematics.RIGS["body"]
    angles = motion.sample(rng, "body", style, _MOTION_LENGTH)
    upright = np.broadcast_to(_Y_UP_TO_Z_UP, (_MOTION_LENGTH, 3, 3))
    positions, _ = kinematics.forward(rig, angles, rig.offsets * np.exp(rng.normal(0, 0.06)), upright)
    joints = positions[:, _JOINT_NODES["body"]]
    root = joints[:, skeletons.MPII16.joints.index("pelvis")]
    return Motion(
        name=f"figure-{style}-{split}-{seed}-{number:06d}",
        joints=skeletons.MPII16.joints,
        positions=(joints - root[:, None]).astype(np.float32),
        rate=_RATE,
    )


_MOTION_LENGTH = 50  # frames
_Y_UP_TO_Z_UP = np.array(((1.0, 0, 0), (0, 0, -1), (0, 1, 0)))
_RATE = 10.0  # frames per second: key poses are three to five frames apart
_KINDS, _STYLES, _SPLITS = ("body", "hand"), ("studio", "street"), ("train", "validation", "test")
_SKELETONS = {"body": skeletons.MPII16, "hand": skeletons.HAND21}
_JOINT_NODES = {
    kind: np.array([kinematics.RIGS[kind].index(joint) for joint in skeleton.joints])
    for kind, skeleton in _SKELETONS.items()
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Clip:
    """T frames before they are drawn; 3D in metres in the camera frame."""

    positions: np.ndarray  # (T, N, 3)
    orientations: np.ndarray  # (T, N, 3, 3)
    scale: np.ndarray  # (N,)
    intrinsics: np.ndarray  # (3, 3)
    look: appearance.Look
    pan: np.ndarray  # (T, 2)
    grain: np.ndarray  # (T, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _View:
    """Range of cameras: angles in degrees, distance in metres."""

    azimuth: tuple[float, float]
    elevation: tuple[float, float]
    tilt: float  # standard deviation
    distance: tuple[float, float]


_VIEWS = {
    ("body", "studio"): _View(azimuth=(-75.0, 75.0), elevation=(-5.0, 18.0), tilt=5.0, distance=(3.0, 7.0)),
    ("body", "street"): _View(azimuth=(-75.0, 75.0), elevation=(-5.0, 22.0), tilt=7.0, distance=(3.0, 7.0)),
    ("hand", "studio"): _View(azimuth=(-50.0, 50.0), elevation=(-25.0, 25.0), tilt=15.0, distance=(0.5, 0.9)),
    ("hand", "street"): _View(azimuth=(-65.0, 65.0), elevation=(-35.0, 40.0), tilt=26.0, distance=(0.35, 0.9)),
}


@functools.lru_cache(maxsize=1024)  # both training splits of a default pair, which are read in random order
def _clip(kind: str, style: str, split: str, seed: int, number: int, size: int, length: int) -> _Clip:
    key = (_KINDS.index(kind), _STYLES.index(style), _SPLITS.index(split))
    rng = np.random.default_rng((seed, *key, number))
    rig = kinematics.RIGS[kind]
    angles = motion.sample(rng, kind, style, length)
    proportions = np.exp(rng.normal(0, 0.06) + 0.05 * rng.standard_normal(rig.groups.max() + 1))
    scale = proportions[rig.groups]
    view, time = _VIEWS[kind, style], np.linspace(-0.5, 0.5, length)
    turn, rise, roll = rng.normal(0, (8, 3, 2))  # the camera drifts over the clip, in degrees
    azimuth = rng.uniform(*view.azimuth) + turn * time
    if kind == "hand" and rng.random() < 0.5:
        azimuth += 180  # the back of the hand
    elevation = rng.uniform(*view.elevation) + rise * time
    tilt = rng.normal(0, view.tilt) + roll * time
    camera = _camera(*np.radians((azimuth, elevation, tilt)))
    positions, orientations = kinematics.forward(rig, angles, rig.offsets * scale[:, None], camera)
    joints = positions[:, _JOINT_NODES[kind]]
    distance = rng.uniform(*view.distance)
    shift = np.array((0, 0, distance)) - joints.mean(axis=(0, 1))
    positions += shift
    joints = joints + shift
    # As after a detector: the joints of the whole clip fill the image up to some jitter of centre and scale.
    flat = (joints[..., :2] / joints[..., 2:]).reshape(-1, 2)
    low, high = flat.min(axis=0), flat.max(axis=0)
    focal = size * rng.uniform(0.72, 0.94) / (high - low).max()
    centre = (size - 1) / 2 + size * rng.uniform(-0.07, 0.07, 2) - focal * (low + high) / 2
    drift = np.outer(time, np.clip((turn, rise), -8, 8) * np.array((1, -1)) * appearance.PAN / 16)
    return _Clip(
        positions=positions,
        orientations=orientations,
        scale=scale,
        intrinsics=np.array(((focal, 0, centre[0]), (0, focal, centre[1]), (0, 0, 1))),
        look=appearance.sample(rng, kind, style, size),
        pan=np.rint(appearance.PAN / 2 + drift).astype(int),
        grain=rng.integers(0, 64, (length, 2)),
    )


def _camera(azimuth: np.ndarray, elevation: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Rotations (T, 3, 3) from the figure's frame (y up, z front) to that of a camera that sees its front at zero."""
    zero = np.zeros_like(azimuth)
    turned = kinematics.swing_twist(elevation, zero, zero) @ kinematics.swing_twist(zero, zero, -azimuth)
    return kinematics.swing_twist(zero, tilt, zero) @ (np.array(((1,), (-1,), (-1,))) * turned)
