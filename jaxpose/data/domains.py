"""Opens the domains of a run: source and target, joined by joint name, and others; see `schemes` for their names."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxpose.data import few, schemes
from jaxpose.data.generators import sprites
from jaxpose.data.host.cache import Cache, files_of
from jaxpose.data.host.elements import Crops
from jaxpose.data.host.windows import Window
from jaxpose.data.joints import matching, skeletons
from jaxpose.data.motion.source import MotionSource
from jaxpose.data.records import Note, Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain's splits, its joints, and what its readers had to say.

    Attributes:
      spec: what it is called in the configuration.
      splits: single images or recorded frames.
      skeleton: the joints of its elements; where there are images, those that source and target share.
      hidden: fields of its records that it does not give.
      notes: of its readers.
    """

    spec: str
    splits: Mapping[str, Crops | MotionSource]
    skeleton: skeletons.Skeleton
    hidden: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    def elements(
        self, split: str, fields: tuple[str, ...], window: Window | None = None, *, word: str
    ) -> Crops | MotionSource:
        """Those of a split with other fields, or windows of its frames; `word` names a cache of windows.

        Raises:
          ValueError: in words that go on after the domain's, if there are no such fields or windows.
        """
        part = self.splits[split]
        try:
            known = [field for field in part.known if field not in self.hidden]
            if missing := [field for field in fields if field not in known]:
                raise ValueError(f"found no {missing[0]}, expected some of {', '.join(known)}")
            return part.read_as(fields, window, f"{word}_{split}")
        except ValueError as error:
            raise ValueError(f"{split}: {error}") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenedPair:
    """Source and target domain, joined by joint name, and what else a recipe reads.

    Attributes:
      skeleton: the shared joints, with the source's names.
      match: how the joints were matched.
      domains: `source`, `target` and, where they are given, `labelled`, `motions` and `poses`.
      area: first and last crop pixel, on both axes, where keypoints can lie, if that is known.
      pixels_per_unit: crop pixels per unit of the data's own labels.
    """

    skeleton: skeletons.Skeleton
    match: matching.Match
    domains: Mapping[str, Domain]
    area: tuple[float, float] | None = None
    pixels_per_unit: float = 1.0

    def crops(self, domain: str, split: str) -> Crops:
        """A split of a domain of images."""
        found = self.domains[domain].splits[split]
        assert isinstance(found, Crops)
        return found


def open_pair(
    *,
    source: str,
    target: str,
    labelled: str | None = None,
    motions: str | None = None,
    poses: str | None = None,
    root: str,
    image_size: int,
    margin: float,
    memory: int,
    seed: int,
    cache: str | None = None,
) -> OpenedPair:
    """Opens all domains and finds the joints that source and target share.

    Args:
      source, target: see `schemes`.
      labelled: as the target, with labels, which are joined by its joints' names; or how many rows of the target's
        training split have some, see `few`; None for none.
      motions: recorded motions, with joints of their own; None for none.
      poses: labelled images, of which no pixel is read, joined by the source's or the target's names; or motions, of
        which frames are read. None for none.
      root: where relative paths start.
      image_size, margin: of the crops.
      memory: MiB of crops kept in memory per split.
      seed: of the generators.
      cache: folder for the decoded crops of the training splits, None for none.

    Raises:
      ValueError: naming what is missing: a scheme, a path, a labelled image, a shared joint.
    """
    drawn = labelled if labelled is not None and few.is_amount(labelled) else None
    given = {
        "source": source,
        "target": target,
        "labelled": None if drawn else labelled,
        "motions": motions,
        "poses": poses,
    }
    specs = {name: spec for name, spec in given.items() if spec is not None}
    opened: dict[str, schemes.Opened] = {}
    for name, spec in specs.items():
        known = next(reversed(opened.values())).skeleton if name in ("target", "labelled") else None
        try:
            opened[name] = schemes.open_data(spec, root=root, image_size=image_size, seed=seed, skeleton=known)
        except ValueError as error:
            raise ValueError(f"data.{name}={error}") from error
        if opened[name].motions and name not in ("motions", "poses"):
            raise ValueError(f"data.{name}={spec}: found motions without images, expected images")
        if name == "motions" and not opened[name].motions:
            raise ValueError(f"data.{name}={spec}: found images, expected motions")
        if opened[name].splits and name != "target" and not opened[name].splits["train"].labelled:
            raise ValueError(f"data.{name}={spec}: found no labels in the training split, expected a labelled {name}")
    aliases = {**{theirs: ours for ours, theirs in opened["target"].aliases.items()}, **opened["source"].aliases}
    match = matching.match(opened["source"].skeleton, opened["target"].skeleton, aliases)
    shared = match.skeleton
    joints = {"source": match.source_indices, "target": match.target_indices}
    for name in ("labelled", "poses"):
        if name in opened and opened[name].splits:
            names = [(p.target,) if name == "labelled" else (p.source, p.target) for p in match.pairs]
            whose = "the target" if name == "labelled" else "source or target"
            joints[name] = _named(opened[name].skeleton, names, f"data.{name}={specs[name]}", whose)

    def crops(name: str, split: str, part: Source) -> Crops:
        pixels = ("image",) if name != "poses" else ()
        kept = _cache(cache, name, specs[name], root, part) if cache and split == "train" and pixels else None
        return Crops(
            source=part,
            joints=joints[name],
            size=image_size,
            margin=margin,
            memory=memory * 2**20,
            cache=kept,
            fields=(*pixels, "keypoints", "visible", "scale"),
        )

    domains = {
        name: Domain(
            spec=specs[name],
            splits={split: crops(name, split, part) for split, part in found.splits.items()}
            | {split: MotionSource(source=part) for split, part in found.motions.items()},
            skeleton=shared if found.splits else found.skeleton,
            hidden=("image", "mask") if name == "poses" else (),
            notes=found.notes,
        )
        for name, found in opened.items()
    }
    if drawn:
        domains |= _with_few_labels(domains["target"], drawn, seed)
    pair = OpenedPair(skeleton=shared, match=match, domains=domains)
    if not isinstance(opened["target"].splits["train"], sprites.SpriteSource):
        return pair
    scale = image_size / sprites.SIZE
    edges = [scale * (pixel + 0.5) - 0.5 for pixel in sprites.AREA]
    return dataclasses.replace(pair, area=(edges[0], edges[1]), pixels_per_unit=scale * sprites.POSITION_SPAN)


def _named(skeleton: skeletons.Skeleton, wanted: Sequence[tuple[str, ...]], where: str, whose: str) -> np.ndarray:
    """Where a skeleton has some joints, by the first of each one's names that it has."""
    found = []
    for names in wanted:
        there = [name for name in names if name in skeleton.joints]
        if not there:
            raise ValueError(f"{where}: found no joint {names[0]}, expected those of {whose}")
        found.append(skeleton.joints.index(there[0]))
    return np.array(found)


def _with_few_labels(target: Domain, amount: str, seed: int) -> dict[str, Domain]:
    """The target with fewer training rows, and those that it gives away."""
    whole = target.splits["train"]
    assert isinstance(whole, Crops)
    try:
        labelled, rest = few.draw(whole, amount, seed=seed)
    except ValueError as error:
        raise ValueError(f"data.labelled={amount}: {error} (data.target={target.spec})") from None
    given = dataclasses.replace(target, spec=amount, splits={"train": labelled}, notes=())
    return {"target": dataclasses.replace(target, splits={**target.splits, "train": rest}), "labelled": given}


def _cache(folder: str, domain: str, spec: str, root: str, source: Source) -> Cache:
    files = files_of(spec, root=root, source=source, leave_out=[folder])
    return Cache(folder=folder, name=f"{domain}_train", asked={"spec": spec}, found={"files": files})
