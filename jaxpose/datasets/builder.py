"""What the builders of published data sets share."""

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxpose.data.formats import shards
from jaxpose.data.formats.shards import Item, Preset, Shard, Skipped
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Motion, Record


class RecordBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """A published data set of images, read from the files that its owners distribute.

    A subclass is one data set. Its docstring says what it holds; its class attributes say where it comes from.

    Attributes:
      SKELETON: its joints, by name.
      FIELDS: the optional fields of `Record` that it has.
      COUNTS: the published numbers of records by split; a missing split or None where none is published.
      HOMEPAGE, LICENCE, CITATION: of the owners.
      MANUAL_DOWNLOAD_INSTRUCTIONS: what to download and the layout that `shards` expects.
      PRESETS: splits of released code, by name.
    """

    VERSION = tfds.core.Version("1.0.0")
    SKELETON: ClassVar[Skeleton]
    FIELDS: ClassVar[tuple[str, ...]] = ()
    COUNTS: ClassVar[Mapping[str, int | None]] = {}
    HOMEPAGE: ClassVar[str]
    LICENCE: ClassVar[str]
    CITATION: ClassVar[str]
    PRESETS: ClassVar[Mapping[str, Preset]] = {}

    @abc.abstractmethod
    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """What each shard of each split holds, in the owners' order.

        Args:
          root: the folder that the instructions describe.

        Raises:
          FileNotFoundError: naming the file that is missing.
          ValueError: naming the file that is not as described.
        """

    def features(self) -> tfds.features.FeaturesDict:
        """The features of an example."""
        return shards.record_features(self.SKELETON, self.FIELDS)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=self.features(),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            license=self.LICENCE,
            metadata=tfds.core.MetadataDict(skeleton=shards.skeleton_metadata(self.SKELETON)),
        )

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Sequence[Any]]:
        found = self.shards(Path(dl_manager.manual_dir))
        return {split: [_Keyed(shard, self.features()) for shard in parts] for split, parts in found.items()}


class MotionBuilder(RecordBuilder, skip_registration=True):
    """A published data set of motions without images."""

    def features(self) -> tfds.features.FeaturesDict:
        """The features of an example."""
        return shards.motion_features(len(self.SKELETON))


class _Keyed:
    """A shard as tensorflow-datasets wants it: (key, example) pairs."""

    def __init__(self, shard: Shard, features: tfds.features.FeaturesDict) -> None:
        self._shard, self._features = shard, features

    def __call__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        kept: Iterable[Item] = (item for item in self._shard() if not isinstance(item, Skipped))
        for number, item in enumerate(kept):
            yield number, shards.example(item, self._features)


__all__ = ["Motion", "MotionBuilder", "Preset", "Record", "RecordBuilder", "Shard", "Skipped"]
