"""dSprites with a keypoint: one sprite per image, drawn in three domains. Source: RegDA section 5.1."""

import dataclasses
import functools
import pathlib
import zipfile

import cv2
import numpy as np

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.formats import files
from jaxpose.data.joints.skeletons import Skeleton

SKELETON = Skeleton(name="dsprites", joints=("centre",))
VARIANTS = ("color", "noisy", "scream")
SPLITS = ("train", "validation", "test")
SHAPES = ("square", "ellipse", "heart")
FACTORS = (
    len(SHAPES),
    6,
    40,
    32,
    32,
)  # shapes, scales, orientations, positions x and y; the flat index's order
SIZE = 64  # pixels, of an image's side
AREA = (16, 47)  # pixels, first and last, that centres lie on in x and y
POSITION_SPAN = 31.0  # pixels that the factor `position` in [0, 1] spans


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SpriteSource:
    """A source (`records.Source`) of uint8 (64, 64, 3) images of a sprite, the keypoint at its centre.

    The keypoint is 16 + 31 * position in x and y. Splits hold different factor combinations, 98 %, 1 % and 1 %
    of the 737,280, in every variant and for every seed. A combination has one colour and noise per seed.
    Source: disentanglement_lib for the composition of sprite s in {0, 1} and background:
    `color` s * U(0.5, 1)^3; `noisy` min(s + U(0, 1), 1) per value; `scream` b = (patch of the painting +
    U(0, 1)^3) / 2, inside the sprite 1 - b.

    Attributes:
      variant: color, noisy or scream.
      split: train, validation or test.
      size: how many random combinations of the split to take.
      seed: of the choice of combinations and of the colours.
      npz: dSprites' original file, to take its masks; None renders the shapes from the documented factors, in
        sizes that give the original's mean coverage of 4.25 %.
      background: an image of Munch's The Scream; None paints swirls in its colours.

    Raises:
      ValueError: if a field is out of range, or a file is not what it should be (when first read).
    """

    variant: str
    split: str
    size: int
    seed: int = 0
    npz: str | None = None
    background: str | None = None

    def __post_init__(self) -> None:
        for field, known in (("variant", VARIANTS), ("split", SPLITS)):
            if getattr(self, field) not in known:
                raise ValueError(f"sprites: {field} is {getattr(self, field)!r}, expected {', '.join(known)}")
        available = np.count_nonzero(_split_of_index() == SPLITS.index(self.split))
        if not 0 < self.size <= available:
            raise ValueError(f"sprites: size is {self.size}, expected 1 to {available} in split {self.split}")
        for field in ("npz", "background"):
            file = getattr(self, field)
            if file is not None and not pathlib.Path(file).is_file():
                raise ValueError(f"sprites: {field} is {file}, expected a file")

    @property
    def skeleton(self) -> Skeleton:
        """One joint, `centre`."""
        return SKELETON

    @property
    def labelled(self) -> bool:
        """Always."""
        return True

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> records.Record:
        combination = int(self.combinations[index])
        shape, scale, orientation, x, y = (int(i) for i in np.unravel_index(combination, FACTORS))
        centre = AREA[0] + x, AREA[0] + y
        if self.npz is None:
            mask = _paste(_sprite(SHAPES[shape], scale, orientation), centre)
        else:
            mask = np.unpackbits(self._masks[index]).reshape(SIZE, SIZE).astype(bool)
        rng = np.random.default_rng((self.seed, VARIANTS.index(self.variant), combination))
        return records.Record(
            image=self._compose(mask, rng),
            keypoints=np.array([centre], dtype=np.float32),
            visible=np.array([records.VISIBLE], dtype=np.uint8),
            name=f"dsprites/{self.variant}/{combination:06d}",
        )

    @functools.cached_property
    def combinations(self) -> np.ndarray:
        """The flat index of each record into all factor combinations, int64 (size,)."""
        members = np.flatnonzero(_split_of_index() == SPLITS.index(self.split))
        rng = np.random.default_rng((self.seed, SPLITS.index(self.split), VARIANTS.index(self.variant)))
        return rng.choice(members, self.size, replace=False)

    def _compose(self, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.variant == "color":
            return mask[..., None] * _to_bytes(rng.uniform(0.5, 1.0, 3))
        if self.variant == "noisy":
            noise = rng.random((SIZE, SIZE, 3), dtype=np.float32)
            return _to_bytes(np.where(mask[..., None], np.float32(1), noise))
        row, column = (int(rng.integers(extent - SIZE)) for extent in self._painting.shape[:2])
        patch = self._painting[row : row + SIZE, column : column + SIZE]
        blend = (patch + rng.random(3, dtype=np.float32)) / 2
        return _to_bytes(np.where(mask[..., None], 1 - blend, blend))

    @functools.cached_property
    def _painting(self) -> np.ndarray:
        return _swirls() if self.background is None else _thumbnail(self.background)

    @functools.cached_property
    def _masks(self) -> np.ndarray:
        """The original's masks of the chosen combinations, uint8 (size, 512), 8 pixels per byte."""
        assert self.npz is not None
        masks = _read_masks(self.npz, self.combinations)
        _check_centres(self.npz, masks, self.combinations)
        return masks


@functools.cache
def _split_of_index() -> np.ndarray:
    """The place in SPLITS of each combination: a hash of its index, the same with any library version."""
    bits = np.arange(np.prod(FACTORS), dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    percent = (bits ^ (bits >> np.uint64(31))) % np.uint64(100)
    return np.select([percent == 0, percent == 1], [SPLITS.index("test"), SPLITS.index("validation")], 0)


_RADIUS = 13  # pixels; no sprite reaches further from its centre
# Pixels at scale 1: half the square's side, half the ellipse's axes, the unit of the heart's curve.
_SQUARE, _ELLIPSE, _HEART = 9.0, (12.5, 6.25), 9.3
_HEART_CENTROID = 0.2935  # units of the curve, above its origin


@functools.cache
def _sprite(shape: str, scale: int, orientation: int) -> np.ndarray:
    """The binary mask of a shape about its centroid, bool (27, 27)."""
    angle = np.linspace(0, 2 * np.pi, FACTORS[2])[orientation]
    size = np.linspace(0.5, 1.0, FACTORS[1])[scale]
    y, x = np.mgrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1] / size
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    if shape == "square":
        return np.maximum(abs(u), abs(v)) < _SQUARE
    if shape == "ellipse":
        return (u / _ELLIPSE[0]) ** 2 + (v / _ELLIPSE[1]) ** 2 < 1
    u, v = u / _HEART, _HEART_CENTROID - v / _HEART
    return (u**2 + v**2 - 1) ** 3 < u**2 * v**3


def _paste(sprite: np.ndarray, centre: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    left, top = centre[0] - _RADIUS, centre[1] - _RADIUS
    mask[top : top + len(sprite), left : left + len(sprite)] = sprite
    return mask


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(image * 255).astype(np.uint8)


def _thumbnail(file: str) -> np.ndarray:
    """The painting within 350x274 pixels as in disentanglement_lib, float32 (H, W, 3) in [0, 1]."""
    image = files.decode_image(untrusted.read_file(file, "a painting"), file)
    height, width = image.shape[:2]
    scale = min(350 / width, 274 / height, 1)
    shape = round(width * scale), round(height * scale)
    if min(shape) <= SIZE:
        raise ValueError(f"{file}: background is {width}x{height} pixels, expected more than {SIZE} both ways")
    return cv2.resize(image, shape, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


# Mean colours of The Scream from top to bottom: sky, water, ground.
_SKY_TO_GROUND = np.array([(186, 109, 64), (205, 112, 50), (105, 82, 60), (72, 76, 62), (84, 68, 48), (62, 54, 40)])


def _swirls() -> np.ndarray:
    """A stand-in for the painting, float32 (274, 215, 3) in [0, 1]: wavy bands, a whirl and a dark figure."""
    y, x = np.mgrid[0:1:274j, 0:1:215j]
    radius, angle = np.hypot(x - 0.6, y - 0.4), np.arctan2(y - 0.4, x - 0.6)
    height = y + 0.05 * np.sin(5 * x + 4 * np.sin(4 * y)) + 0.12 * np.exp(-8 * radius) * np.sin(angle + 25 * radius)
    stops = np.linspace(0, 1, len(_SKY_TO_GROUND))
    image = np.stack([np.interp(height, stops, channel) for channel in _SKY_TO_GROUND.T], axis=-1)
    image += np.sin(60 * height + 3 * np.sin(7 * x))[..., None] * (26, 20, 14)
    image += np.sin(190 * height + 25 * x + 4 * np.sin(9 * x))[..., None] * (20, 18, 15)
    image *= 1 - 0.6 * np.exp(-(((x - 0.5) / 0.14) ** 4) - ((y - 0.85) / 0.25) ** 4)[..., None]
    return (np.clip(image, 0, 255) / 255).astype(np.float32)


def _read_masks(npz: str, combinations: np.ndarray) -> np.ndarray:
    """Some of dSprites' masks, packed; the 3 GB of all of them pass through in blocks and are not kept."""
    shape = (int(np.prod(FACTORS)), SIZE, SIZE)
    block, masks = 4096, np.empty((len(combinations), SIZE * SIZE // 8), dtype=np.uint8)
    order = np.argsort(combinations)
    bounds = np.searchsorted(combinations[order], np.arange(0, shape[0] + block, block))
    with (
        untrusted.reading(npz, "dSprites' .npz with imgs"),
        zipfile.ZipFile(npz) as archive,
        archive.open("imgs.npy") as file,
    ):
        np.lib.format.read_magic(file)
        found = np.lib.format.read_array_header_1_0(file)
        if found != (shape, False, np.dtype(np.uint8)):
            raise ValueError(f"{npz}: imgs is {found[2]} {found[0]}, expected dSprites' uint8 {shape}")
        for first, last, start in zip(bounds[:-1], bounds[1:], range(0, shape[0], block), strict=True):
            pixels = np.frombuffer(file.read(block * SIZE * SIZE), np.uint8).reshape(-1, SIZE * SIZE)
            rows = order[first:last]
            masks[rows] = np.packbits(pixels[combinations[rows] - start], axis=1)
    return masks


def _check_centres(npz: str, masks: np.ndarray, combinations: np.ndarray) -> None:
    """That sprites lie where the keypoints are, x and y in the order assumed."""
    shapes, *_, x, y = np.unravel_index(combinations[:256], FACTORS)
    pixels = np.unpackbits(masks[:256], axis=1).reshape(-1, SIZE, SIZE).astype(np.float64)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    mass = pixels.sum(axis=(1, 2))
    distance = np.hypot(
        (pixels * columns).sum(axis=(1, 2)) / mass - (AREA[0] + x),
        (pixels * rows).sum(axis=(1, 2)) / mass - (AREA[0] + y),
    )
    symmetric = shapes != SHAPES.index("heart")
    if symmetric.any() and (median := np.median(distance[symmetric])) > 2:
        raise ValueError(f"{npz}: sprites lie {median:.1f} pixels from 16 + 31 * position, expected at most 2")
