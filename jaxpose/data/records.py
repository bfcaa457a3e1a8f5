"""The record: one example of a data set, as every reader and generator yields it."""

import dataclasses
from collections.abc import Iterable
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np

from jaxpose.data.joints.skeletons import Skeleton

MISSING, OCCLUDED, VISIBLE = 0, 1, 2  # values of Record["visible"]


class Record(TypedDict):
    """One labelled example.

    Points are (x, y) in pixels of the stored image; the centre of its top-left pixel is (0, 0). 3D joints are in
    metres in the camera frame (x right, y down, z forward).
    """

    image: bytes | np.ndarray  # an encoded file, or uint8 (H, W, 3) RGB
    keypoints: np.ndarray  # float32 (K, 2); any value where missing
    visible: np.ndarray  # uint8 (K,): 0 missing, 1 occluded, 2 visible
    name: str  # a file or an index, for messages
    bbox: NotRequired[np.ndarray]  # float32 (4,): x, y, width, height of the object; absent: the whole image
    area: NotRequired[float]  # of the object's segment in square pixels, for object keypoint similarity
    crowd: NotRequired[bool]  # whether it is several objects at once, which are no record of their own
    score: NotRequired[float]  # of the box, where it was detected
    head_size: NotRequired[float]  # of the head in pixels of the stored image, for PCKh
    keypoints3d: NotRequired[np.ndarray]  # float32 (K, 3)
    intrinsics: NotRequired[np.ndarray]  # float32 (3, 3), of the stored image
    hand: NotRequired[str]  # "left" or "right"
    sequence: NotRequired[str]  # the clip that this frame belongs to; frames of one camera and one subject
    frame: NotRequired[int]  # its number in the clip
    segmentation: NotRequired[bytes]  # PNG of the image's size, uint8: 0 background, else the number of a part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Motion:
    """A recorded motion without images.

    Attributes:
      name: a file, for messages.
      joints: K names.
      positions: float32 (T, K, 3) metres in a world frame with z up, or in a camera's frame (x right, y down, z
        forward) where the data set has no other.
      rate: frames per second.
      subject: who moves; empty if unknown.
    """

    name: str
    joints: tuple[str, ...]
    positions: np.ndarray
    rate: float
    subject: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
    """What a user should know about data that were read: what was left out, or what to be careful with.

    Attributes:
      what: a kind, in words.
      count: how many.
      example: one of them; what cannot be printed in it is escaped.
    """

    what: str
    count: int
    example: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "example", printable(self.example))

    def __str__(self) -> str:
        more = ", ..." if self.count > 1 else ""
        return f"{self.what}: {self.count:,}" + (f" ({self.example}{more})" if self.example else "")


def merged(notes: Iterable[Note]) -> tuple[Note, ...]:
    """The notes of one kind as one."""
    by_kind: dict[str, Note] = {}
    for note in notes:
        first = by_kind.setdefault(note.what, dataclasses.replace(note, count=0))
        by_kind[note.what] = dataclasses.replace(first, count=first.count + note.count)
    return tuple(by_kind.values())


@runtime_checkable
class Source(Protocol):
    """A split of a data set with random access; pure: the same index always gives the same record."""

    @property
    def skeleton(self) -> Skeleton:
        """Names the joints of the records' label arrays."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether any record has labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


def printable(name: str) -> str:
    """A name with everything escaped that a terminal, a page or UTF-8 cannot take: bytes of file names that are no
    text, line ends, control characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


class BrokenImageError(ValueError):
    """An image that cannot be decoded. The pipeline skips and counts these; everything else is an error."""
