"""How figures and their surroundings look: colours, clothes, light, backgrounds and the camera's faults."""

import dataclasses

import cv2
import numpy as np

from jaxpose.data.generators.embedded import parts

PAN = 8  # how far the background may move behind the figure, in pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """How one clip looks.

    Attributes:
      albedo: RGB of each material under full light, shape (M, 3).
      girth: factor on all radii.
      light: direction to the light in the camera frame, unit length, shape (3,).
      ambient: brightness in the shade.
      diffuse: what the light adds.
      patterned: parts with patterned clothes, shape (B,).
      cells: corners of the pattern's stripes, (along, across) a part in [0, 1], shape (S, 4, 2).
      dye: RGB of the stripes, shape (3,).
      background: uint8 (size + PAN, size + PAN, 3).
      blur: standard deviation in pixels, 0 for none.
      noise: standard deviation in grey levels.
      contrast: factor on the image about its middle grey.
      exposure: uint8 (size, size, 3), 255 where the camera darkens nothing; None for a perfect one.
    """

    albedo: np.ndarray
    girth: float
    light: np.ndarray
    ambient: float
    diffuse: float
    patterned: np.ndarray
    cells: np.ndarray
    dye: np.ndarray
    background: np.ndarray
    blur: float
    noise: float
    contrast: float
    exposure: np.ndarray | None


def sample(rng: np.random.Generator, kind: str, style: str, size: int) -> Look:
    """The look of one clip of a domain, for images of `size` pixels."""
    studio = style == "studio"
    skin = _skin(rng, studio)
    background = _plain(rng, size + PAN) if studio else _clutter(rng, size + PAN, skin)
    around = np.array(cv2.mean(background)[:3])
    tint = 1.0 if studio else rng.uniform(0.93, 1.07, 3)
    # The figure stands out: of a few random colours each cloth takes the one farthest from its surroundings.
    hue, saturation, value = rng.random((3, 4, 5))
    if studio:
        saturation, value = 0.6 + 0.35 * saturation, 0.55 + 0.45 * value
    else:
        saturation, value = 0.75 * saturation, 0.2 + 0.78 * value
    offered = _rgb(hue, saturation, value)
    chosen = np.argmax(np.linalg.norm(offered - around, axis=-1), axis=1)
    shirt, trousers, shoe, trim = offered[np.arange(4), chosen]
    if kind == "body":
        hair = _rgb(rng.uniform(0.03, 0.12), rng.uniform(0.2, 0.7), rng.uniform(0.08, 0.55))
        bare_arms, bare_legs, plain_shirt, plain_trousers = rng.random(4) < (0.5, 0.3, 0.5, 0.8)
        colours = {
            "skin": skin,
            "hair": hair,
            "shirt": shirt,
            "forearm": skin if bare_arms else shirt,
            "trousers": trousers,
            "shin": skin if bare_legs else trousers,
            "shoe": shoe,
            "trim": trim,
            "eye": np.full(3, 25.0),
            "lip": skin * (0.8, 0.5, 0.5),
            "nose": skin * 0.75,
        }
        patterned = [] if studio or plain_shirt else ["shirt", *([] if bare_arms else ["forearm"])]
        patterned += [] if studio or plain_trousers else ["trousers", *([] if bare_legs else ["shin"])]
    else:
        palm = skin * (1.0, 0.82, 0.8) + (30.0, 24.0, 24.0)
        nail = 0.5 * skin + (125.0, 95.0, 100.0)
        colours = {"skin": skin, "palm": palm, "nail": nail, "sleeve": shirt}
        patterned = [] if studio else ["sleeve"]
    names = parts.MATERIALS[kind]
    light = np.array((rng.uniform(-0.5, 0.5), -0.6, -0.8) if studio else (*rng.uniform(-0.9, (0.9, 0.1)), -0.55))
    ambient = 0.66 if studio else rng.uniform(0.46, 0.6)
    return Look(
        albedo=np.clip(np.stack([colours[name] for name in names]) * tint, 0, 255),
        girth=rng.uniform(0.85, 1.15),
        light=light / np.linalg.norm(light),
        ambient=ambient,
        diffuse=(1.02 if studio else rng.uniform(0.92, 1.12)) - ambient,
        patterned=np.flatnonzero(np.isin(parts.PARTS[kind].materials, [names.index(n) for n in patterned])),
        cells=_PATTERNS[rng.integers(len(_PATTERNS))],
        dye=trim * tint,
        background=background,
        blur=0.0 if studio else rng.uniform(0.2, 0.5) * size / 96,
        noise=2.0 if studio else rng.uniform(2.0, 4.0),
        contrast=1.0 if studio else rng.uniform(0.85, 1.05),
        exposure=None if studio else _exposure(rng, size),
    )


def _rgb(hue, saturation, value) -> np.ndarray:
    k = (np.array((5, 3, 1)) + 6 * np.asarray(hue)[..., None]) % 6
    fall = np.clip(np.minimum(k, 4 - k), 0, 1)
    return 255 * np.asarray(value)[..., None] * (1 - np.asarray(saturation)[..., None] * fall)


def _skin(rng: np.random.Generator, studio: bool) -> np.ndarray:
    """Studio figures are fair to tan; in the street all tones occur."""
    if studio:
        return _rgb(rng.uniform(0.05, 0.08), rng.uniform(0.28, 0.45), rng.uniform(0.82, 1.0))
    value = rng.uniform(0.4, 0.95)
    return _rgb(rng.uniform(0.03, 0.08), rng.uniform(0.3, 0.55) * (1.3 - 0.5 * value), value)


def _plain(rng: np.random.Generator, size: int) -> np.ndarray:
    """A soft gradient of one colour, with or without a floor."""
    base = _rgb(rng.random(), rng.uniform(0.0, 0.35), rng.uniform(0.45, 1.0))
    corners = np.clip(base + rng.uniform(-22, 22, (2, 2, 1)), 0, 255).astype(np.uint8)
    image = cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        horizon = int(size * rng.uniform(0.6, 0.9))
        image[horizon:] = cv2.convertScaleAbs(image[horizon:], alpha=rng.uniform(0.8, 0.95))
    return image


def _clutter(rng: np.random.Generator, size: int, skin: np.ndarray) -> np.ndarray:
    """Blocks, posts and rows of windows of colours away from the skin's, under noise of several octaves."""
    bases = _rgb(rng.random(4), rng.uniform(0.0, 0.4, 4), rng.uniform(0.3, 0.88, 4))
    base = bases[np.argmax(np.linalg.norm(bases - skin, axis=1))]

    def near(grey: float, colour: float, *shape: int) -> np.ndarray:
        change = rng.normal(0, grey, (*shape, 1)) + rng.normal(0, colour, (*shape, 3))
        return np.clip(base + change, 0, 255)

    image = cv2.resize(near(18.0, 9.0, 3, 3).astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    count = int(rng.integers(6, 11))
    corners = rng.integers(-size // 6, size, (count, 2)).tolist()
    extents = (size * rng.uniform(0.06, 0.5, (count, 2))).astype(int).tolist()
    shapes = rng.random(count).tolist()
    colours = near(20.0, 10.0, count).tolist()
    for (x, y), (width, height), colour, shape in zip(corners, extents, colours, shapes, strict=True):
        if shape < 0.25:  # a post or a cable
            cv2.line(image, (x, y), (x + height, y + 3 * width), colour, 1 + width // 12, cv2.LINE_AA)
            continue
        cv2.rectangle(image, (x, y), (x + width, y + height), colour, -1)
        if shape < 0.5:  # windows or planks
            dark = [0.75 * channel for channel in colour]
            for step in range(3, width - 2, max(4, size // 12)):
                cv2.line(image, (x + step, y + 2), (x + step, y + height - 2), dark, 2)
    for cells, strength in ((6, 0.14), (20, 0.14), (48, 0.08)):
        octave = rng.integers(0, 256, (cells, cells), dtype=np.uint8)
        octave = cv2.resize(octave, (size, size), interpolation=cv2.INTER_LINEAR)
        octave = cv2.cvtColor(octave, cv2.COLOR_GRAY2RGB)
        image = cv2.addWeighted(image, 1.0, octave, strength, -127.5 * strength)
    return image


def _exposure(rng: np.random.Generator, size: int) -> np.ndarray:
    """A camera at night: dark, with a cool white balance, and darker towards the corners."""
    x = np.linspace(-1, 1, size) ** 2
    fall = np.minimum(1.0, 1.08 - rng.uniform(0.06, 0.2) * (x + x[:, None]))
    cast = rng.uniform((0.14, 0.22, 0.38), (0.28, 0.38, 0.55))
    return (255 * np.maximum(fall, 0.4)[..., None] * cast).astype(np.uint8)


def _stripes(count: int, share: float, *, across: bool) -> np.ndarray:
    start = np.linspace(0.08, 0.92 - share, count)
    a, b = np.stack((start, start + share)), np.array((0.05, 0.95))
    corners = [(a[0], b[0]), (a[1], b[0]), (a[1], b[1]), (a[0], b[1])]
    cells = np.stack([np.stack(np.broadcast_arrays(u, v), axis=-1) for u, v in corners], axis=1)
    return cells if across else cells[..., ::-1]


_PATTERNS = (
    _stripes(4, 0.12, across=True),
    _stripes(3, 0.18, across=True),
    _stripes(3, 0.14, across=False),
    np.concatenate((_stripes(3, 0.09, across=True), _stripes(2, 0.12, across=False))),
)
