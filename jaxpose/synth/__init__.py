"""A synthetic source: clips of parametric people and hands with exact labels, rendered on the fly.

Bodies of all ages (package `anny`), joint-limited or recorded motions, clothes, light, shadows, backgrounds and the
faults of cameras. Needs the extra `jaxpose[synth]`.
"""

import dataclasses

from jaxpose.data.joints import skeletons
from jaxpose.data.records import Record

KINDS = ("body", "hand")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What is rendered.

    Attributes:
      kind: `body` or `hand`.
      image_size: height and width in pixels.
      clip_length: frames of a clip.
      seed: changes everything.
      backgrounds: folder or uncompressed tar of photos; None: procedural backgrounds.
      motions: folder of BVH files to move bodies by; None: key poses within joint limits.
      crop: range of the extent of the joints relative to the image.
      truncation: how often the camera is so close that a part of the body leaves the image.
      rate: frames per second that recorded motions are sampled at.
      device: where to render, `cpu` or `cuda`. Images of two devices may differ in single grey levels.

    Raises:
      ValueError: if a field is out of range.
    """

    kind: str
    image_size: int = 256
    clip_length: int = 8
    seed: int = 0
    backgrounds: str | None = None
    motions: str | None = None
    crop: tuple[float, float] = (0.55, 0.88)
    truncation: float = 0.1
    rate: float = 10.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"SynthConfig.kind is {self.kind!r}, expected one of {KINDS}")
        for field, least in {"image_size": 32, "clip_length": 1, "seed": 0}.items():
            if getattr(self, field) < least:
                raise ValueError(f"SynthConfig.{field} is {getattr(self, field)}, expected at least {least}")
        if not 0 < self.crop[0] <= self.crop[1] <= 2:
            raise ValueError(f"SynthConfig.crop is {self.crop}, expected a range within (0, 2]")
        if not 0 <= self.truncation <= 1:
            raise ValueError(f"SynthConfig.truncation is {self.truncation}, expected 0 to 1")
        if not 0.01 <= self.rate <= 10_000:
            raise ValueError(f"SynthConfig.rate is {self.rate}, expected 0.01 to 10000 frames per second")
        if self.kind == "hand" and self.motions is not None:
            raise ValueError(f"SynthConfig.motions is {self.motions!r}, expected None for hands")


def render_clip(config: SynthConfig, index: int) -> list[Record]:
    """The frames of clip `index`: one person, one camera. The same seed and index always give the same bytes.

    Records hold JPEG bytes, joints in 2D and 3D (metres, camera frame), visibility from the depth buffer, intrinsics,
    the box and the area of the visible body or hand, sequence, frame, the hand's side, and a PNG of part numbers
    (`body.PARTS` from 1).

    Raises:
      ImportError: without the extra `jaxpose[synth]`.
      IndexError: if the index is negative.
    """
    from jaxpose.synth import clips

    if index < 0:
        raise IndexError(f"clip {index}, expected 0 or more")
    return clips.render_clip(config, index, skeleton(config.kind).joints)


def skeleton(kind: str) -> skeletons.Skeleton:
    """The joints of a kind: `body` has those of COCO, MPII, LSP and the collars of SMPL, `hand` those of `HAND21`.

    Hips and shoulders are the centres of the joints, `thorax` lies between the shoulders, `neck` above it where the
    neck begins, `head_top` on the top of the skull, eyes, ears and nose on the surface, collars half way between thorax
    and shoulders and a little lower.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {KINDS}")
    return BODY23 if kind == "body" else skeletons.HAND21


_EXTRA = ("pelvis", "thorax", "neck", "head_top", "left_collar", "right_collar")
BODY23 = skeletons.Skeleton(
    name="body23",
    joints=(*skeletons.COCO17.joints, *_EXTRA),
    bones=(
        *skeletons.MPII16.bones[:8],
        *(("pelvis", "right_hip"), ("pelvis", "left_hip"), ("pelvis", "thorax"), ("thorax", "neck")),
        *(("neck", "head_top"), ("thorax", "right_collar"), ("thorax", "left_collar")),
        *(("right_collar", "right_shoulder"), ("left_collar", "left_shoulder")),
        *(("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear")),
    ),
    flips=(*skeletons.COCO17.flips, ("left_collar", "right_collar")),
    groups={**skeletons.COCO17.groups, "head": ("neck", "head_top")},
)
