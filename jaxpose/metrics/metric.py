"""What a metric is: sums over batches, which are added on the devices, and values of rows, which the host reduces."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypedDict, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

JOINT, CLIP, ACTION = "joint:", "clip:", "action:"  # how groups of one joint, one clip and one action begin
MOST_CLIPS = 256  # of a split of more, single ones are not told apart

Fields = Mapping[str, jax.Array]
PerRow = dict[str, Any]  # arrays over rows: of the devices in `update`, of the whole split and the host in `rows`
Groups = Mapping[str, np.ndarray]  # joints by report group and, as `joint:NAME`, one by one


class Measurement(TypedDict):
    """One number of `results.json`."""

    metric: str
    group: str
    value: float
    count: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """What is found in a batch of elements; whatever a stage does not predict is None.

    Attributes:
      points: (B, K, 2) or, of windows of frames, (B, T, K, 2) in pixels of the crop.
      peaks: as `points`, as the evaluation reads them that belongs to the way of drawing labels, see `inputs.Coding`.
      scores: (B, K) or (B, T, K) confidences; 1 is that of a map which is a label's.
      points3d: (B, K, 3) or (B, T, K, 3) metres.
      maps: heatmaps (B, H, W, K).
      scalars: (B,) by name.
    """

    points: Any = None  # Any: JAX also fills pytrees with shapes and placeholders
    peaks: Any = None
    scores: Any = None
    points3d: Any = None
    maps: Any = None
    scalars: Any = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """How a metric's values are to be read.

    Attributes:
      unit: of a `fraction`, tables show percent.
      lower_is_better: whether it is an error.
      digits: decimals in tables.
    """

    unit: str
    lower_is_better: bool
    digits: int = 1


FRACTION = Scale(unit="fraction", lower_is_better=False)


@runtime_checkable
class Metric(Protocol):
    """A metric with its settings.

    Attributes:
      scale: of its values.
      needs: the part of `Predictions` that it measures.
      fields: of the evaluated elements that it reads.
    """

    scale: ClassVar[Scale]
    needs: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]

    def update(self, predictions: Predictions, fields: Fields) -> tuple[Any, PerRow]:
        """The sums of a batch and what is known of each row, on the device; rows that do not count have `row` False."""
        ...

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """The results of a split, on the host; `clips` names each row's clip, or is empty."""
        ...


@runtime_checkable
class OfPeople(Protocol):
    """A metric that also counts people who are no rows."""

    def among(self, people: Mapping[str, np.ndarray]) -> Metric:
        """The metric on images in which these people are annotated, see `elements.Crops.people`."""
        ...


def label_mask(fields: Fields, labels: str = "visible") -> Bool[Array, "B K"]:
    """Which labels count; of `annotated` joints also those outside the crop."""
    return (fields[labels] > 0) & fields["row"][:, None]


def without(mask: Bool[Array, "B K"], joints: Sequence[int]) -> Bool[Array, "B K"]:
    """The labels of the other joints."""
    others = ~np.isin(np.arange(mask.shape[1]), joints)
    return mask & others[None]


def means(
    metric: str,
    value: Float[np.ndarray, "N K"] | Bool[np.ndarray, "N K"],
    mask: Bool[np.ndarray, "N K"],
    groups: Groups,
    clips: Sequence[str],
) -> Iterator[Measurement]:
    """Rows of the mean over the labels of every group of joints that has some, then of every clip, see `by_clip`."""
    for group, indices in groups.items():
        chosen = value[:, indices][mask[:, indices]]
        if len(chosen):
            yield Measurement(metric=metric, group=group, value=float(chosen.mean(dtype=np.float64)), count=len(chosen))
    yield from by_clip(metric, value, mask, clips)


def by_clip(
    metric: str,
    value: Float[np.ndarray, "N K"] | Bool[np.ndarray, "N K"],
    mask: Bool[np.ndarray, "N K"],
    clips: Sequence[str],
) -> Iterator[Measurement]:
    """Rows of the mean over the labels of every clip that has some, in the order in which they come.

    Args:
      metric: its name.
      value: of every label.
      mask: which labels count.
      clips: the clip of each row; nothing is said of one clip alone, or of more than `MOST_CLIPS`.
    """
    if 1 < len(set(clips)) <= MOST_CLIPS:
        yield from _by_name(metric, value, mask, clips, CLIP)


def by_action(
    metric: str,
    value: Float[np.ndarray, "N K"] | Bool[np.ndarray, "N K"],
    mask: Bool[np.ndarray, "N K"],
    clips: Sequence[str],
    pattern: str,
) -> Iterator[Measurement]:
    """Rows of the mean over the labels of every action that has some, and as `actions` the mean of these means.

    Args:
      metric: its name.
      value: of every label.
      mask: which labels count.
      clips: the clip of each row.
      pattern: a regular expression: what it finds in a clip's name is the action. Clips of none are left out.
    """
    matches = [re.search(pattern, clip) for clip in clips]
    index = np.array([i for i, match in enumerate(matches) if match], np.int64)
    rows = list(_by_name(metric, value[index], mask[index], [match[0] for match in matches if match], ACTION))
    yield from rows
    if rows:
        mean = float(np.mean([row["value"] for row in rows]))
        yield Measurement(metric=metric, group="actions", value=mean, count=sum(row["count"] for row in rows))


def _by_name(
    metric: str,
    value: Float[np.ndarray, "N K"] | Bool[np.ndarray, "N K"],
    mask: Bool[np.ndarray, "N K"],
    names: Sequence[str],
    prefix: str,
) -> Iterator[Measurement]:
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    index = np.array([numbers[name] for name in names], np.int64)
    total = np.bincount(index, weights=np.where(mask, value, 0).sum(axis=1), minlength=len(numbers))
    count = np.bincount(index, weights=mask.sum(axis=1), minlength=len(numbers))
    for name, t, n in zip(numbers, total, count, strict=True):
        if n:
            yield Measurement(metric=metric, group=prefix + name, value=float(t / n), count=int(n))
