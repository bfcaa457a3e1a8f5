"""Opens the data set that a specification names: `SCHEME:PATH?OPTION=VALUE&...`.

- `bodies:STYLE`, `hands:STYLE`: the embedded generator, styles `studio` and `street`. Options `train`, `validation`,
  `test`: numbers of images.
- `figures:STYLE`: what the embedded bodies do, without images; the same options, numbers of motions.
- `sprites:VARIANT`: the dSprites experiment, `color`, `noisy` or `scream`. The same options, `npz`: the original
  file, `background`: a painting.
- `tfds:NAME`: a prepared data set, by name or folder. Options `train`, `validation`, `test`: its splits or slices of
  them such as `train[:90%]`; `preset`: splits of released code.
- `coco:PATH`: a keypoints JSON, or a folder or tar with one. Options `annotations`, `images`, `category`;
  `test_annotations`: another JSON, all of which is for testing, and `detections`: boxes of people in its images, as
  COCO's results have them, each of which is then a record.
- `deeplabcut:PATH`: a project, its `labeled-data`, or a tar of either.
- `lightning:PATH`: a Lightning Pose data folder or a tar of it. Option `csv`: which table, or view.
- `sleap:PATH`: a `.slp` or `.pkg.slp` file or an exported analysis `.h5`. Option `video` for the latter.
- `images:PATH`: a folder or tar of images without labels.
- `video:PATH`: a video or a folder of them without labels. Options `every` (seconds) or `frames` (per video),
  `method` (`time` or `kmeans`).
- `lsp:PATH`: Leeds Sports Pose, original or extended, a folder or a tar.
- `bvh:PATH`: recorded motions without images, a folder of BVH files or a tar of them, which may be compressed. Options
  `rig` (`cmu` or `bandai`), `unit` (metres), `up` (`y` or `z`), where the files do not show them (`bvh_files`), and
  `train`, `validation`, `test`: patterns of subjects or files. `tfds:NAME` may be of motions, too.

What is read from files of images also takes

- `train`, `validation`, `test`: patterns of clips, folders or files, separated by commas; see `splits.divide`, also for
  what stands without them.
- `skeleton`: a TOML file (see `skeleton_file`).
- `boxes`: `labels`, `whole`, or a JSON file of [x, y, width, height] by name, or a list of such where several records
  have one image.
- `joints`: a joint set, `common12`, `mpii16`, `union21`, `flexpose15`, `face68` or `animal14`, with `head`: what stands
  for the head there.
- `shoulder`: `collar` or `glenohumeral` where a skeleton has both.
- `fps`: frames per second of the clips, where their files do not say it.
"""

import dataclasses
import functools
import os
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data import wrappers
from jaxpose.data.generators import embedded, sprites
from jaxpose.data.joints import joint_sets, skeleton_file
from jaxpose.data.joints.skeletons import MPII16, Skeleton
from jaxpose.data.motion import bvh_files
from jaxpose.data.motion.source import Motions, Prepared, canonical_skeleton, holds_motions, listed
from jaxpose.data.readers import coco, deeplabcut, images, lightning, lsp, sleap, video
from jaxpose.data.readers.given_boxes import boxes_of
from jaxpose.data.readers.tfds_source import TfdsSource, left_out, open_preset, split_lengths
from jaxpose.data.records import Note, Source
from jaxpose.data.splits import divide, divide_motions
from jaxpose.spelling import did_you_mean

SPLITS = ("train", "validation", "test")
Splits = dict[str, Source]
_Found = Mapping[str, Source | Motions]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A data set.

    Attributes:
      splits: sources by split, none empty; `train` is always there, except where the data are motions.
      motions: by split, as the sources.
      aliases: joint -> its name in the other domain, from a skeleton file.
      notes: what was left out, and what to be careful with.
    """

    splits: Splits
    motions: dict[str, Motions] = dataclasses.field(default_factory=dict)
    aliases: Mapping[str, str]
    notes: tuple[Note, ...]

    @property
    def skeleton(self) -> Skeleton:
        """Names the joints."""
        return (self.splits or self.motions)["train"].skeleton


_EMBEDDED_SIZES = {"train": 4096, "validation": 512, "test": 1024}


def open_data(
    spec: str, *, root: str, image_size: int = 256, seed: int = 0, skeleton: Skeleton | None = None
) -> Opened:
    """Opens a data set.

    Args:
      spec: see this module.
      root: where relative paths start.
      image_size, seed: of the generators.
      skeleton: of data without labels.

    Raises:
      ValueError: that begins with the specification.
    """
    scheme, _, rest = spec.partition(":")
    path, options = options_of(rest)
    place = _Place(root=Path(root).expanduser(), path=path, image_size=image_size, seed=seed, skeleton=skeleton)
    try:
        if scheme not in _SCHEMES:
            hint = did_you_mean(scheme, _SCHEMES)
            raise ValueError(f"found scheme {scheme!r}, expected one of {', '.join(_SCHEMES)}{hint}")
        parts = _SCHEMES[scheme](place, options)
        motions = {split: part for split, part in parts.items() if isinstance(part, Motions)}
        splits = {split: part for split, part in parts.items() if not isinstance(part, Motions)}
        file = None
        if splits and scheme not in _GENERATORS:
            file = options.skeleton_file(place.root)
            splits = {split: _seen(part, place, options, file) for split, part in splits.items()}
        options.reject_rest()
        parts = motions or splits
        if not len(parts.get("train", ())):
            raise ValueError("found 0 training records, expected at least 1")
        notes = wrappers.notes_of(*parts.values())
        if parts["train"].labelled and not len(parts.get("test", ())):
            kind = "motions" if motions else "labelled images"
            what = f"{kind}, none of which is for testing; name some with ?test="
            notes += (Note(what=what, count=len(parts["train"])),)
    except (ValueError, OSError, ImportError) as error:
        raise ValueError(f"{spec}: {untrusted.one_line(error)}") from error  # a file's name may hold a line's end
    return Opened(
        splits={split: part for split, part in splits.items() if len(part)},
        motions={split: part for split, part in motions.items() if len(part)},
        aliases=file.aliases if file else {},
        notes=notes,
    )


def names() -> tuple[str, ...]:
    """The schemes."""
    return tuple(_SCHEMES)


def options_of(rest: str) -> tuple[str, "Options"]:
    """Path and options of what stands behind a scheme."""
    path, _, query = rest.partition("?")
    return path, Options(dict(urllib.parse.parse_qsl(query, keep_blank_values=True)))


def chosen_frames(options: "Options") -> dict[str, Any]:
    """Which frames of a video are asked for, as arguments of `video.read`."""
    given = {
        "every": options.number("every", float),
        "frames": options.number("frames"),
        "method": options.take("method"),
    }
    return {key: value for key, value in given.items() if value is not None}


def default_data_dir() -> Path:
    """Where tensorflow-datasets keeps prepared data."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Place:
    root: Path
    path: str
    image_size: int
    seed: int
    skeleton: Skeleton | None

    @property
    def full(self) -> str:
        """The path from the root."""
        return str(self.root / Path(self.path).expanduser())

    def unlabelled_skeleton(self) -> Skeleton:
        """The skeleton of the domain that has labels."""
        if self.skeleton is None:
            raise ValueError("found data without labels, expected them as the target of a source with labels")
        return self.skeleton


class Options:
    """Options, each of which has to be asked for."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given, self._known = dict(given), dict[str, None]()

    def take(self, name: str) -> str | None:
        """An option's text."""
        self._known[name] = None
        return self._given.get(name)

    def number(self, name: str, kind: type[int] | type[float] = int) -> float | int | None:
        """An option that is a number."""
        text = self.take(name)
        try:
            return None if text is None else kind(text)
        except ValueError:
            raise ValueError(f"found {name}={text}, expected a number") from None

    def splits(self) -> dict[str, str]:
        """The options `train`, `validation` and `test` that are given."""
        return {split: text for split in SPLITS if (text := self.take(split)) is not None}

    def skeleton_file(self, root: Path) -> skeleton_file.SkeletonFile | None:
        """The file that the option `skeleton` names."""
        name = self.take("skeleton")
        return None if name is None else skeleton_file.read_skeleton(root / name)

    def reject_rest(self) -> None:
        """Raises a ValueError if an option is left that nobody asked for."""
        if unknown := sorted(set(self._given) - set(self._known)):
            hint = did_you_mean(unknown[0], self._known)
            raise ValueError(f"found option {unknown[0]!r}, expected one of: {', '.join(self._known)}{hint}")


def _embedded(kind: str, place: _Place, options: Options) -> Splits:
    _check_style(place.path)
    return {
        split: embedded.EmbeddedSource(
            kind=kind, style=place.path, split=split, size=size, image_size=place.image_size, seed=place.seed
        )
        for split, size in _sizes(options)
    }


def _check_style(style: str) -> None:
    if style not in ("studio", "street"):
        raise ValueError(f"found style {style!r}, expected studio or street")


def _sprites(place: _Place, options: Options) -> Splits:
    if place.path not in ("color", "noisy", "scream"):
        raise ValueError(f"found variant {place.path!r}, expected color, noisy or scream")
    paths = {key: str(place.root / name) for key in ("npz", "background") if (name := options.take(key))}
    return {
        split: sprites.SpriteSource(variant=place.path, split=split, size=size, seed=place.seed, **paths)
        for split, size in _sizes(options)
    }


def _sizes(options: Options, usual: Mapping[str, int] = _EMBEDDED_SIZES) -> Iterator[tuple[str, int]]:
    for split in SPLITS:
        text = options.take(split) or str(usual[split])
        if not text.isdecimal():
            raise ValueError(f"found {split}={text}, expected a number of images or motions")
        if int(text):
            yield split, int(text)


def _prepared(place: _Place, options: Options) -> _Found:
    folder = _prepared_folder(place)
    lengths = split_lengths(folder)
    motions = holds_motions(folder)
    preset, chosen = None if motions else options.take("preset"), options.splits()
    if preset is not None:
        return {**open_preset(folder, preset)}
    if not chosen:
        chosen = {split: split for split in SPLITS if split in lengths}
        if "test" not in chosen and "validation" in chosen:
            chosen["test"] = chosen.pop("validation")
        if "train" not in chosen:
            raise ValueError(f"found splits {', '.join(lengths)}; choose with ?train=SPLIT&test=SPLIT")
    if motions:
        opened = {split: Prepared(folder=folder, split=text) for split, text in chosen.items()}
        return {split: listed(part, part.skeleton, left_out(folder)) for split, part in opened.items()}
    return {split: TfdsSource(folder=folder, split=text) for split, text in chosen.items()}


def _prepared_folder(place: _Place) -> Path:
    """The newest version below the root or where tensorflow-datasets keeps its data."""
    candidates = [Path(place.full), default_data_dir() / place.path]
    for candidate in candidates:
        versions = sorted(path.parent for path in candidate.glob("*/dataset_info.json"))
        if (candidate / "dataset_info.json").exists():
            return candidate
        if versions:
            return versions[-1]
    tried = " or ".join(map(str, candidates))
    raise ValueError(f"found no prepared data in {tried}, expected it there: see --mode=prepare --dataset={place.path}")


def _coco(place: _Place, options: Options) -> Splits:
    named = {key: options.take(key) for key in ("annotations", "images", "category")}
    given = {key: text for key, text in named.items() if text is not None}
    test_annotations, detections = options.take("test_annotations"), options.take("detections")
    whole, patterns = coco.read(place.full, **given), options.splits()
    if test_annotations is None:
        if detections is not None:
            raise ValueError(f"found detections={detections}, expected test_annotations, of whose images they are")
        return divide(whole, patterns)
    if "test" in patterns:
        raise ValueError(f"found test={patterns['test']}, expected none beside test_annotations")
    if place.path.lower().endswith(".json"):
        raise ValueError(f"found one file and test_annotations={test_annotations}, expected a folder or tar of both")
    if detections is not None and options.take("boxes") is not None:
        raise ValueError("found boxes and detections, expected one of them")
    boxes = None if detections is None else place.root / detections
    test = coco.read(place.full, **{**given, "annotations": test_annotations, "detections": boxes})
    if test.skeleton.joints != whole.skeleton.joints:
        raise ValueError(
            f"found the joints {', '.join(test.skeleton.joints)} in {test_annotations}, expected those of the training "
            f"annotations: {', '.join(whole.skeleton.joints)}"
        )
    return divide(whole, patterns or {"train": "*"}) | {"test": test}


def _deeplabcut(place: _Place, options: Options) -> Splits:
    return divide(deeplabcut.read(place.full), options.splits())


def _lightning(place: _Place, options: Options) -> Splits:
    table = options.take("csv")
    found = lightning.read(place.full) if table is None else lightning.read(place.full, csv=table)
    return dict(found) if "test" in found else divide(found["train"], options.splits())


def _sleap(place: _Place, options: Options) -> Splits:
    return divide(sleap.read(place.full, video=options.take("video")), options.splits())


def _images(place: _Place, options: Options) -> Splits:
    return divide(images.read(place.full, skeleton=place.unlabelled_skeleton()), options.splits())


def _video(place: _Place, options: Options) -> Splits:
    given = chosen_frames(options)
    source = video.read(place.full, skeleton=place.unlabelled_skeleton(), seed=place.seed, **given)
    return divide(source, options.splits())


def _lsp(place: _Place, options: Options) -> Splits:
    return divide(lsp.read(place.full), options.splits())


def _bvh(place: _Place, options: Options) -> _Found:
    rig, up = options.take("rig"), options.take("up")
    motions, notes = bvh_files.read(place.full, rig=rig, unit=options.number("unit", float), up=up)
    skeleton = canonical_skeleton("bvh", motions[0].joints)
    parts, more = divide_motions(motions, options.splits())
    return {split: listed(part, skeleton, notes + more) for split, part in parts.items()}


def _figures(place: _Place, options: Options) -> _Found:
    _check_style(place.path)
    return {
        split: listed(embedded.motions(place.path, split, size, seed=place.seed), MPII16)
        for split, size in _sizes(options, _FIGURES)
    }


_FIGURES = {"train": 256, "validation": 0, "test": 64}


_SCHEMES: dict[str, Callable[[_Place, Options], _Found]] = {
    "bodies": functools.partial(_embedded, "body"),
    "hands": functools.partial(_embedded, "hand"),
    "sprites": _sprites,
    "tfds": _prepared,
    "coco": _coco,
    "deeplabcut": _deeplabcut,
    "lightning": _lightning,
    "sleap": _sleap,
    "images": _images,
    "video": _video,
    "lsp": _lsp,
    "bvh": _bvh,
    "figures": _figures,
}


_GENERATORS = ("bodies", "hands", "sprites", "figures")


def _seen(source: Source, place: _Place, options: Options, file: skeleton_file.SkeletonFile | None) -> Source:
    """The source as the options that every data set of files has want it."""
    whole = source
    if file is not None:
        source = wrappers.Renamed(source=source, renamed=skeleton_file.apply(source.skeleton, file))
    if (shoulder := options.take("shoulder")) is not None:
        source = _with_shoulders(source, shoulder)
    if (fps := options.number("fps", float)) is not None:
        if not _SLOWEST <= fps <= _FASTEST:
            raise ValueError(f"found fps={fps:g}, expected {_SLOWEST} to {_FASTEST} frames per second")
        source = wrappers.Timed(source=source, fps=fps)
    joints, head = options.take("joints"), options.take("head")
    if joints is not None:
        if joints not in _JOINT_SETS:
            raise ValueError(f"found joints={joints}, expected one of {', '.join(_JOINT_SETS)}")
        source = _JOINT_SETS[joints](source) if head is None else _JOINT_SETS[joints](source, head_mode=head)
    if (boxes := options.take("boxes")) is not None:
        if boxes in ("labels", "whole"):
            return wrappers.Boxed(source=source, boxes=boxes)
        given, notes = boxes_of(whole, read_boxes(place.root / boxes), boxes)
        source = wrappers.Boxed(source=source, boxes=given, notes=notes)
    return source


_SLOWEST, _FASTEST = 0.01, 10_000
_JOINT_SETS: dict[str, Callable[..., Source]] = {
    "common12": joint_sets.common12,
    "mpii16": joint_sets.mpii16,
    "union21": joint_sets.union21,
    "flexpose15": joint_sets.flexpose15,
    "face68": joint_sets.face68,
    "animal14": joint_sets.animal14,
}


def _with_shoulders(source: Source, wanted: str) -> Source:
    """SMPL's collars lie nearer to the neck than what annotators call a shoulder; some codes take them for it."""
    joints = source.skeleton.joints
    if wanted not in ("collar", "glenohumeral") or "left_collar" not in joints:
        raise ValueError(f"found shoulder={wanted}, expected collar or glenohumeral and a skeleton with left_collar")
    if wanted == "glenohumeral":
        return source
    swapped = {
        f"{side}_{a}": f"{side}_{b}"
        for side in ("left", "right")
        for a, b in (("collar", "shoulder"), ("shoulder", "collar"))
    }
    return wrappers.Renamed(source=source, renamed=source.skeleton.rename(swapped))


def read_boxes(path: Path) -> dict[str, np.ndarray]:
    """The boxes (M, 4) of each name.

    Raises:
      FileNotFoundError, ValueError: naming the file.
    """
    found = untrusted.read_json(path, dict, _BOXES)
    for name, value in found.items():
        if not _is_box(value) and not (isinstance(value, list) and value and all(map(_is_box, value))):
            raise ValueError(
                f"{path}: {untrusted.one_line(name)}: found {untrusted.one_line(value)}, expected {_BOXES}"
            )
    return {name: np.array(value, np.float32).reshape(-1, 4) for name, value in found.items()}


def _is_box(value: Any) -> bool:
    numbers = isinstance(value, list) and all(type(v) in (int, float) and abs(v) < _FAR for v in value)
    return numbers and len(value) == 4 and min(value[2:]) > 0


_BOXES = "a JSON object of [x, y, width, height], or lists of such, by image name"
_FAR = 1e9  # pixels
