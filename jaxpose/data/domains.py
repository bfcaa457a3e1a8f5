"""Opens the domains that a configuration names: `SCHEME:PATH?OPTION=VALUE&...`.

- `bodies:STYLE`, `hands:STYLE`: the embedded generator, styles `studio` and `street`. Options `train`, `validation`,
  `test`: numbers of images.
- `sprites:VARIANT`: the dSprites experiment, `color`, `noisy` or `scream`. The same options, `npz`: the original
  file, `background`: a painting.
- `deeplabcut:PATH`: a project, its `labeled-data`, or a tar of either. Options `train`, `validation`, `test`: patterns
  of video folders, separated by commas.
- `lsp:PATH`: Leeds Sports Pose, original or extended, a folder or a tar.

Files without split options are divided by video: every fifth is for testing. Where there is one video only, or none,
every fifth image is.
"""

import dataclasses
import fnmatch
import pathlib
import urllib.parse
from collections.abc import Mapping

import numpy as np

from jaxpose.data import embedded, skeletons, sprites
from jaxpose.data.files import FileSource
from jaxpose.data.pipeline import Crops
from jaxpose.data.readers import deeplabcut, lsp
from jaxpose.data.records import Source

SPLITS = ("train", "validation", "test")
_EMBEDDED_SIZES = {"train": 4096, "validation": 512, "test": 1024}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain's splits, with the joints that it shares with the other domain."""

    spec: str
    splits: Mapping[str, Crops]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Source and target domain, joined by joint name.

    Attributes:
      skeleton: the shared joints.
      domains: `source` and `target`.
      area: first and last crop pixel, on both axes, where keypoints can lie, if that is known.
      pixels_per_unit: crop pixels per unit of the data's own labels.
    """

    skeleton: skeletons.Skeleton
    domains: Mapping[str, Domain]
    area: tuple[float, float] | None = None
    pixels_per_unit: float = 1.0


def open_pair(*, source: str, target: str, root: str, image_size: int, margin: float, memory: int, seed: int) -> Pair:
    """Opens both domains and finds their shared joints.

    Args:
      source, target: see this module.
      root: where relative paths start.
      image_size, margin: of the crops.
      memory: MiB of crops kept in memory per split.
      seed: of the generators.

    Raises:
      ValueError: naming what is missing: a scheme, a path, a labelled image, a shared joint.
    """
    opened = {"source": _open(source, "data.source", root, image_size, seed)}
    opened["target"] = _open(target, "data.target", root, image_size, seed)
    if not opened["source"]["train"].labelled:
        raise ValueError(f"data.source={source}: found no labels in the training split, expected a labelled source")
    shared = skeletons.shared(opened["source"]["train"].skeleton, opened["target"]["train"].skeleton)
    keep = memory * 2**20 // (3 * image_size**2)
    domains = {}
    for name, splits in opened.items():
        crops = {}
        for split, part in splits.items():
            joints = part.skeleton.indices(shared.joints)
            crops[split] = Crops(source=part, joints=joints, size=image_size, margin=margin, memory=keep)
        domains[name] = Domain(spec=source if name == "source" else target, splits=crops)
    if not isinstance(opened["target"]["train"], sprites.SpriteSource):
        return Pair(skeleton=shared, domains=domains)
    scale = image_size / sprites.SIZE
    first, last = (scale * (pixel + 0.5) - 0.5 for pixel in sprites.AREA)
    return Pair(skeleton=shared, domains=domains, area=(first, last), pixels_per_unit=scale * sprites.POSITION_SPAN)


def _open(spec: str, field: str, root: str, image_size: int, seed: int) -> dict[str, Source]:
    scheme, _, rest = spec.partition(":")
    path, _, query = rest.partition("?")
    options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    full = str(pathlib.Path(root).expanduser() / pathlib.Path(path).expanduser())
    try:
        match scheme:
            case "bodies" | "hands":
                splits = _open_embedded(scheme, path, options, image_size, seed)
            case "sprites":
                splits = _open_sprites(path, options, root, seed)
            case "deeplabcut":
                splits = _open_deeplabcut(full, options)
            case "lsp":
                _reject(options, ())
                splits = _divide(lsp.read(full))
            case _:
                raise ValueError(f"found scheme {scheme!r}, expected bodies, hands, sprites, deeplabcut or lsp")
        if not len(splits.get("train", ())):
            raise ValueError("found 0 training records, expected at least 1")
    except (ValueError, OSError) as error:
        raise ValueError(f"{field}={spec}: {error}") from error
    return {split: part for split, part in splits.items() if len(part)}


def _open_embedded(kind: str, style: str, options: dict[str, str], image_size: int, seed: int) -> dict[str, Source]:
    _reject(options, SPLITS)
    if style not in ("studio", "street"):
        raise ValueError(f"found style {style!r}, expected studio or street")
    return {
        split: embedded.EmbeddedSource(
            kind="body" if kind == "bodies" else "hand",
            style=style,
            split=split,
            size=_count(options, split),
            image_size=image_size,
            seed=seed,
        )
        for split in SPLITS
        if _count(options, split)
    }


def _open_sprites(variant: str, options: dict[str, str], root: str, seed: int) -> dict[str, Source]:
    _reject(options, (*SPLITS, "npz", "background"))
    if variant not in ("color", "noisy", "scream"):
        raise ValueError(f"found variant {variant!r}, expected color, noisy or scream")
    paths = {key: str(pathlib.Path(root) / options[key]) for key in ("npz", "background") if key in options}
    return {
        split: sprites.SpriteSource(variant=variant, split=split, size=_count(options, split), seed=seed, **paths)
        for split in SPLITS
        if _count(options, split)
    }


def _open_deeplabcut(path: str, options: dict[str, str]) -> dict[str, Source]:
    _reject(options, SPLITS)
    if not options:
        return _divide(deeplabcut.read(path))
    whole = deeplabcut.read(path, folders=",".join(options.values()).split(","))
    splits = {}
    for split in SPLITS:
        patterns = options.get(split, "").split(",")
        chosen = [
            i for i, name in enumerate(whole.sequences or ()) if any(fnmatch.fnmatchcase(name, p) for p in patterns)
        ]
        splits[split] = whole.subset(chosen)
    return splits


def _divide(whole: FileSource) -> dict[str, Source]:
    sequences = whole.sequences or ()
    numbers = {name: i for i, name in enumerate(sorted(set(sequences)))}
    if len(numbers) > 1:
        group = np.array([numbers[name] for name in sequences])
    else:
        group = np.arange(len(whole))
    test = group % 5 == 4
    return {"train": whole.subset(np.flatnonzero(~test)), "test": whole.subset(np.flatnonzero(test))}


def _count(options: dict[str, str], split: str) -> int:
    text = options.get(split, str(_EMBEDDED_SIZES[split]))
    if not text.isdecimal():
        raise ValueError(f"found {split}={text}, expected a number of images")
    return int(text)


def _reject(options: Mapping[str, str], known: tuple[str, ...]) -> None:
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"found option {unknown[0]!r}, expected one of: {', '.join(known) or 'none'}")
