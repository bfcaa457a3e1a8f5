"""Leeds Sports Pose and its extended training set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxpose.data.formats import shards
from jaxpose.data.joints.skeletons import LSP14
from jaxpose.data.readers import lsp
from jaxpose.datasets.builder import RecordBuilder, Shard


def _tllib(lengths: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    """tllib adapts to and tests on all images."""
    everything = [(split, i) for split in ("train", "test") for i in range(lengths.get(split, 0))]
    return {"train": everything, "test": everything}


class Lsp(RecordBuilder):
    """2,000 photographs of sport with 14 joints, scaled so that the person is about 150 pixels long.

    The first thousand are for training, the last for testing. Invisible joints are guessed by the annotators and
    count as occluded.
    """

    SKELETON = LSP14
    FIELDS = ("bbox",)
    COUNTS = {"train": 1000, "test": 1000}
    HOMEPAGE = "http://sam.johnson.io/research/lsp.html"
    LICENCE = "for research; none stated"
    CITATION = "Johnson and Everingham: Clustered pose and nonlinear appearance models. BMVC 2010."
    MANUAL_DOWNLOAD_INSTRUCTIONS = "unpack lsp_dataset.zip, which holds images/im0001.jpg ... and joints.mat"
    PRESETS = {"tllib": _tllib}

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """Images 1 to 1000, then 1001 to 2000."""
        source = lsp.read(root)
        train = np.array([int(Path(name).stem[2:]) <= 1000 for name in source.names])
        parts = {"train": np.flatnonzero(train), "test": np.flatnonzero(~train)}
        return {split: shards.in_shards(source.subset(index)) for split, index in parts.items()}


class Lspet(RecordBuilder):
    """10,000 photographs of sport in difficult poses with 14 joints, labelled by crowd workers; for training.

    Joints without a usable coordinate are missing; people with fewer than 6 joints are left out.
    """

    SKELETON = LSP14
    FIELDS = ("bbox",)
    COUNTS = {"train": 10_000}
    HOMEPAGE = "http://sam.johnson.io/research/lspet.html"
    LICENCE = "for research; none stated"
    CITATION = "Johnson and Everingham: Learning effective human pose estimation from inaccurate annotation. CVPR 2011."
    MANUAL_DOWNLOAD_INSTRUCTIONS = "unpack lspet_dataset.zip, which holds images/im00001.jpg ... and joints.mat"

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """All images."""
        return {"train": shards.in_shards(lsp.read(root))}
