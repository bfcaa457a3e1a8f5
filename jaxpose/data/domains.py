"""Opens the source and the target domain of a run, joined by joint name; see `schemes` for how they are named."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxpose.data import schemes
from jaxpose.data.generators import sprites
from jaxpose.data.host.cache import Cache, files_of
from jaxpose.data.host.elements import Crops
from jaxpose.data.host.windows import Window, Windows
from jaxpose.data.joints import matching, skeletons
from jaxpose.data.records import Note, Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain's splits, with the joints that it shares with the other domain, and what its readers had to say."""

    spec: str
    splits: Mapping[str, Crops]
    notes: tuple[Note, ...] = ()

    def elements(self, split: str, fields: tuple[str, ...], window: Window | None = None, *, word: str) -> Crops:
        """Those of a split with other fields, or windows of its frames; `word` names a cache of windows.

        Raises:
          ValueError: in words that go on after the domain's, if there are no such windows.
        """
        crops = self.splits[split]
        if window is None:
            return dataclasses.replace(crops, fields=fields)
        windows = Windows(crops.source, window)
        if not len(windows):
            apart = " or ".join(", ".join(map(str, row)) for row in window.offsets[:3])
            raise ValueError(f"{split}: found no frames of one clip at distances {apart}, expected some")
        cache = None if crops.cache is None else dataclasses.replace(crops.cache, name=f"{word}_{split}")
        return dataclasses.replace(crops, fields=fields, windows=windows, cache=cache)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Source and target domain, joined by joint name.

    Attributes:
      skeleton: the shared joints, with the source's names.
      match: how the joints were matched.
      domains: `source`, `target` and, where they are given, others.
      area: first and last crop pixel, on both axes, where keypoints can lie, if that is known.
      pixels_per_unit: crop pixels per unit of the data's own labels.
    """

    skeleton: skeletons.Skeleton
    match: matching.Match
    domains: Mapping[str, Domain]
    area: tuple[float, float] | None = None
    pixels_per_unit: float = 1.0


def open_pair(
    *,
    source: str,
    target: str,
    labelled: str | None = None,
    root: str,
    image_size: int,
    margin: float,
    memory: int,
    seed: int,
    cache: str | None = None,
) -> Pair:
    """Opens both domains and finds their shared joints.

    Args:
      source, target: see `schemes`.
      labelled: as the target, with labels, which are joined by its joints' names; None for none.
      root: where relative paths start.
      image_size, margin: of the crops.
      memory: MiB of crops kept in memory per split.
      seed: of the generators.
      cache: folder for the decoded crops of the training splits, None for none.

    Raises:
      ValueError: naming what is missing: a scheme, a path, a labelled image, a shared joint.
    """
    specs = {"source": source, "target": target} | ({} if labelled is None else {"labelled": labelled})
    opened: dict[str, schemes.Opened] = {}
    for name, spec in specs.items():
        known = next(reversed(opened.values())).splits["train"].skeleton if opened else None
        try:
            opened[name] = schemes.open_data(spec, root=root, image_size=image_size, seed=seed, skeleton=known)
        except ValueError as error:
            raise ValueError(f"data.{name}={error}") from error
        if name != "target" and not opened[name].splits["train"].labelled:
            raise ValueError(f"data.{name}={spec}: found no labels in the training split, expected a labelled {name}")
    first, second = (opened[name].splits["train"] for name in ("source", "target"))
    aliases = {**{theirs: ours for ours, theirs in opened["target"].aliases.items()}, **opened["source"].aliases}
    match = matching.match(first.skeleton, second.skeleton, aliases)
    joints = {"source": match.source_indices, "target": match.target_indices}
    if labelled is not None:
        wanted = [second.skeleton.joints[i] for i in match.target_indices]
        there = opened["labelled"].splits["train"].skeleton.joints
        if missing := set(wanted) - set(there):
            raise ValueError(f"data.labelled={labelled}: found no joint {min(missing)}, expected those of the target")
        joints["labelled"] = np.array([there.index(joint) for joint in wanted])
    domains = {
        name: Domain(
            spec=specs[name],
            splits={
                split: Crops(
                    source=part,
                    joints=joints[name],
                    size=image_size,
                    margin=margin,
                    memory=memory * 2**20,
                    cache=_cache(cache, name, specs[name], root, part) if cache and split == "train" else None,
                )
                for split, part in found.splits.items()
            },
            notes=found.notes,
        )
        for name, found in opened.items()
    }
    pair = Pair(skeleton=match.skeleton, match=match, domains=domains)
    if not isinstance(second, sprites.SpriteSource):
        return pair
    scale = image_size / sprites.SIZE
    edges = [scale * (pixel + 0.5) - 0.5 for pixel in sprites.AREA]
    return dataclasses.replace(pair, area=(edges[0], edges[1]), pixels_per_unit=scale * sprites.POSITION_SPAN)


def _cache(folder: str, domain: str, spec: str, root: str, source: Source) -> Cache:
    files = files_of(spec, root=root, source=source, leave_out=[folder])
    return Cache(folder=folder, name=f"{domain}_train", asked={"spec": spec}, found={"files": files})
