"""FreiHAND."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxpose import untrusted
from jaxpose.data.joints.skeletons import HAND21
from jaxpose.data.records import Record
from jaxpose.datasets import _hands, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard, Skipped

VARIANTS = ("gs", "hom", "sample", "auto")  # in the order of the files' numbers


def _tllib(lengths: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    """tllib divides the owners' training images at random, after listing the variants as gs, auto, sample, hom.

    Images of one pose lie on both sides of the division. There is none if an image was left out.
    """
    count, rest = divmod(lengths.get("train", 0), len(VARIANTS))
    if rest:
        return {}
    listed = [VARIANTS.index(v) * count + i for v in ("gs", "auto", "sample", "hom") for i in range(count)]
    return {
        split: [("train", listed[i]) for i in index] for split, index in _reading.tllib_division(len(listed)).items()
    }


class Freihand(RecordBuilder):
    """130,240 images of 224x224 pixels of one hand with 21 joints: 32,560 for training in four variants, 3,960 to test.

    The training images were taken before a green screen. `training/rgb` holds them as they are (gs) and then, in the
    same order, with other backgrounds: homogenized (hom), coloured automatically with and without given points (sample,
    auto). The variants of a pose have the same labels, so a division of `train` must divide the poses: record i shows
    pose i modulo 32,560. The owners' evaluation images make `test` if their labels, published later, are there.

    3D joints are in metres; 2D joints are their projection. The owners do not say which joints are occluded, so all in
    the image count as visible. The masks are left out, because evaluation images have none of their kind. All hands are
    right ones: the owners fit MANO's right hand to all of them. (tllib takes them for left ones and mirrors all.)

    Source: the owners' toolbox, github.com/lmb-freiburg/freihand.
    """

    SKELETON = HAND21
    FIELDS = ("bbox", "keypoints3d", "intrinsics", "hand")
    COUNTS = {"train": 130_240, "test": 3960}
    HOMEPAGE = "https://lmb.informatik.uni-freiburg.de/projects/freihand/"
    LICENCE = "for research, not commercial"
    CITATION = (
        "Zimmermann, Ceylan, Yang, Russell, Argus and Brox: FreiHAND: A dataset for markerless capture of hand pose "
        "and shape from single RGB images. ICCV 2019."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack FreiHAND_pub_v2.zip, which holds training/rgb/00000000.jpg ..., training_K.json and training_xyz.json; "
        "for the test split also FreiHAND_pub_v2_eval.zip, which holds evaluation/rgb/00000000.jpg ..., "
        "evaluation_K.json and evaluation_xyz.json"
    )
    PRESETS = {"tllib": _tllib}

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The training images, variant after variant; the evaluation images."""
        found = {"train": _split(root, "training", variants=len(VARIANTS))}
        if (root / "evaluation_xyz.json").exists():
            found["test"] = _split(root, "evaluation", variants=1)
        return found


def _split(root: Path, part: str, *, variants: int) -> list[Shard]:
    """The shards of one of the owners' sets."""
    _reading.require(root / part / "rgb", f"the images {part}/rgb/00000000.jpg ...")
    intrinsics = _labels(root / f"{part}_K.json", (None, 3, 3), "3x3 intrinsics per pose")
    joints = _labels(root / f"{part}_xyz.json", (None, len(_hands.BASE_TO_TIP), 3), "21 joints per pose")
    if len(joints) != len(intrinsics):
        raise ValueError(
            f"{root / part}_xyz.json: found {len(joints)} poses, expected the {len(intrinsics)} of _K.json"
        )
    poses = len(joints)
    joints = joints[:, _hands.positions(_hands.BASE_TO_TIP)]
    return [
        functools.partial(_shard, root, part, index, joints[index % poses], intrinsics[index % poses])
        for index in _reading.in_parts(np.arange(poses * variants))
    ]


def _labels(path: Path, shape: tuple[int | None, ...], what: str) -> np.ndarray:
    return _reading.array(untrusted.read_json(path, list, what), shape, str(path))


def _shard(
    root: Path, part: str, numbers: np.ndarray, joints: np.ndarray, intrinsics: np.ndarray
) -> Iterator[Record | Skipped]:
    for number, keypoints3d, matrix in zip(numbers, joints, intrinsics, strict=True):
        name = f"{part}/rgb/{number:08d}.jpg"
        yield _hands.hand_record(
            image=_reading.read_image(root, name),
            name=name,
            hand="right",
            keypoints3d=keypoints3d,
            intrinsics=matrix,
            size=(224, 224),
        )
