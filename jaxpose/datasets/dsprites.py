"""dSprites in the three domains of the keypoint experiment."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from jaxpose.data.generators import sprites
from jaxpose.data.records import Record
from jaxpose.datasets import _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

_NPZ = "dsprites_ndarray_co1sh3sc6or40x32x32_64x64.npz"
_PAINTING = "The_Scream.jpg"
_WHOLE = np.array([0, 0, sprites.SIZE, sprites.SIZE], np.float32)
_SHARD = 2000
_LENGTHS = {"train": 722_639, "validation": 7_390, "test": 7_251}


class DspritesColor(RecordBuilder):
    """All 737,280 sprites of dSprites (square, ellipse, heart) in a random colour on black, 64x64, one keypoint.

    The keypoint is the sprite's centre, 16 + 31 position pixels in x and y. The owners have no splits: these are 98 %,
    1 % and 1 % of the combinations of factors, drawn by a hash, the same in the three domains; DAR's lists, which RegDA
    used, are others of about the same sizes. Records come in a random order. Images are composed as `sprites` does when
    it generates them while training, from the masks of the original file, and are kept as PNG. The box is the image.
    """

    VARIANT: ClassVar[str] = "color"
    SKELETON = sprites.SKELETON
    FIELDS = ("bbox",)
    COUNTS = _LENGTHS
    HOMEPAGE = "https://github.com/google-deepmind/dsprites-dataset"
    LICENCE = "Apache 2.0"
    CITATION = "Matthey et al.: dSprites: Disentanglement testing sprites dataset. 2017."
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"put {_NPZ} into the folder"

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The sprites of each split."""
        npz = _reading.require(root / _NPZ, "the owners' file")
        background = _reading.require(root / _PAINTING, "the painting") if self.VARIANT == "scream" else None
        return {
            split: [
                functools.partial(_sprites, self.VARIANT, split, length, npz, background, start)
                for start in range(0, length, _SHARD)
            ]
            for split, length in _LENGTHS.items()
        }


class DspritesNoisy(DspritesColor):
    """The sprites of `DspritesColor` in white on coloured noise."""

    VARIANT = "noisy"


class DspritesScream(DspritesColor):
    """The sprites of `DspritesColor` as the negative of a patch of Munch's The Scream, tinted, on that patch."""

    VARIANT = "scream"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"put {_NPZ} and a picture of the painting as {_PAINTING} into the folder"


def _sprites(variant: str, split: str, length: int, npz: Path, background: Path | None, start: int) -> Iterator[Record]:
    source = _open(variant, split, length, npz, background)
    for index in range(start, min(start + _SHARD, length)):
        record = source[index]
        pixels = cv2.cvtColor(np.asarray(record["image"]), cv2.COLOR_RGB2BGR)
        record["image"] = cv2.imencode(".png", pixels)[1].tobytes()
        record["bbox"] = _WHOLE
        yield record


@functools.lru_cache(maxsize=1)
def _open(variant: str, split: str, length: int, npz: Path, background: Path | None) -> sprites.SpriteSource:
    """Kept between the shards of one process, because it reads the whole file: 370 MB of memory at most."""
    painting = None if background is None else str(background)
    return sprites.SpriteSource(variant=variant, split=split, size=length, npz=str(npz), background=painting)
