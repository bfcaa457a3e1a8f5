"""Four-legged animals: photographs (Animal Pose), videos (TigDog) and renderings (Synthetic Animals)."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import unpickle
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.joint_sets import ANIMAL14
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import MISSING, OCCLUDED, VISIBLE, BrokenImageError, Record
from jaxpose.datasets import _flat, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

_SPECIES = ("cat", "cow", "dog", "horse", "sheep")
_TEST_EVERY = 5  # where the owners have no splits, every fifth is for testing


def _legs(joint: str) -> tuple[str, ...]:
    return tuple(f"{side}_{leg}_{joint}" for leg in ("front", "back") for side in ("left", "right"))


ANIMALPOSE20 = Skeleton(
    name="animalpose20",
    joints=(
        *("left_eye", "right_eye", "nose", "left_ear_base", "right_ear_base"),
        *(*_legs("elbow"), *_legs("knee"), *_legs("paw")),
        *("throat", "withers", "tail_base"),
    ),
    bones=(
        *ANIMAL14.bones,
        *(("left_eye", "right_eye"), ("left_eye", "nose"), ("right_eye", "nose"), ("nose", "throat")),
        *(("left_eye", "left_ear_base"), ("right_eye", "right_ear_base"), ("withers", "tail_base")),
    ),
    flips=(*ANIMAL14.flips, ("left_ear_base", "right_ear_base")),
    groups=ANIMAL14.groups,
)

TIGDOG18 = Skeleton(
    name="tigdog18",
    joints=(
        *("left_eye", "right_eye", "chin", *_legs("paw"), "tail_base", *_legs("knee")),
        *("left_shoulder", "right_shoulder", *_legs("elbow")),
    ),
    bones=(
        *ANIMAL14.bones,
        *(("left_eye", "chin"), ("right_eye", "chin")),
        *(("left_shoulder", "left_front_elbow"), ("right_shoulder", "right_front_elbow")),
        *(("left_shoulder", "tail_base"), ("right_shoulder", "tail_base")),
    ),
    flips=(*ANIMAL14.flips, ("left_shoulder", "right_shoulder")),
    groups={
        **ANIMAL14.groups,
        "chin": ("chin",),
        "hip": ("tail_base",),
        "shoulder": ("left_shoulder", "right_shoulder"),
    },
)

# In tigers' files, the joints from the ninth on are elbows, shoulders, knees; in horses', knees, shoulders, elbows.
_TIGDOG_ORDER = {"horse": tuple(range(18)), "tiger": (*range(8), *range(14, 18), 12, 13, *range(8, 12))}

# The vertex of each joint of TIGDOG18 on the meshes. Source: CC-SSL's readers.
_VERTICES = {
    "horse": (1718, 1684, 1271, 1634, 1650, 1643, 1659, 925, 392, 564, 993, 726, 1585, 1556, 427, 1548, 967, 877),
    "hound": (2028, 2580, 912, 878, 977, 1541, 1734, 480, 799, 1575, 1446, 602, 755, 673, 780, 1580, 466, 631),
    "sheep": (2046, 1944, 1267, 1875, 1900, 1868, 1894, 687, 173, 1829, 1422, 821, 624, 580, 622, 575, 1370, 716),
    "tiger": (2753, 2679, 2032, 1451, 1287, 3085, 1632, 229, 1441, 1280, 2201, 1662, 266, 158, 270, 152, 219, 129),
}


class AnimalPose(RecordBuilder):
    """Dogs, cats, cows, horses and sheep in photographs, with 20 joints; 4,608 images of 6,117 animals.

    The first part of the set, which has joints. Splits are by species, such as `dog_train` and `dog_test`; read them as
    `train=dog_train+sheep_train`. The owners divide nothing: every fifth image, by name, is for testing, so that all
    animals of an image are on one side. UniFrame's division is a file of its own and differs. Labelled joints count as
    visible. The files' boxes are corners, here x, y, width and height. mmpose's conversion has other joint orders and
    boxes; this builder reads the owners' file.
    """

    SKELETON = ANIMALPOSE20
    FIELDS = ("bbox",)
    COUNTS = {}
    HOMEPAGE = "https://sites.google.com/view/animal-pose/"
    LICENCE = "for research; none stated"
    CITATION = "Cao et al.: Cross-domain adaptation for animal pose estimation. ICCV 2019."
    MANUAL_DOWNLOAD_INSTRUCTIONS = "put keypoints.json and images/ of Part I into the folder"

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The animals of each species in the order of the annotations."""
        images = _reading.require(root / "images", "the folder of Animal Pose's images")
        path = root / "keypoints.json"
        found = untrusted.read_json(path, dict, "the annotations of Animal Pose")
        for field, kind in (("images", dict), ("annotations", list), ("categories", list)):
            if not isinstance(found.get(field), kind):
                raise ValueError(
                    f"{path}: holds {untrusted.one_line(', '.join(found))}; expected {field} as a {kind.__name__}"
                )
        species = {
            entry["id"]: entry["name"]
            for entry in found["categories"]
            if isinstance(entry, dict) and isinstance(entry.get("id"), int) and isinstance(entry.get("name"), str)
        }
        names = sorted(name for name in found["images"].values() if isinstance(name, str))
        testing = set(names[_TEST_EVERY - 1 :: _TEST_EVERY])
        if not set(species.values()) <= set(_SPECIES):
            raise ValueError(f"{path}: categories are {', '.join(species.values())}; expected {', '.join(_SPECIES)}")
        rows: dict[str, list[_flat.FileLabels | Skipped]] = {
            f"{s}_{t}": [] for s in _SPECIES for t in ("train", "test")
        }
        for number, animal in enumerate(found["annotations"]):
            where = f"annotation {number}"
            if not isinstance(animal, dict) or not isinstance(animal.get("category_id"), int):
                raise ValueError(f"{path}: {where} has no category_id, expected an annotation")
            if animal["category_id"] not in species:
                raise ValueError(f"{path}: {where} is of category {animal['category_id']}, expected {species}")
            file = found["images"].get(str(animal.get("image_id")))
            split = "test" if file in testing else "train"
            rows[f"{species[animal['category_id']]}_{split}"].append(_animal(animal, file, number))
        return {split: _flat.in_shards(images, found) for split, found in rows.items() if found}


class TigDog(RecordBuilder):
    """Horses and tigers in videos with 18 joints.

    Splits are `horse_train`, `horse_test`, `tiger_train` and `tiger_test`: every fifth shot, by number, is for testing,
    as the owners divide nothing (CC-SSL draws a fifth of the shots at random and publishes its indices of frames, 8,380
    and 1,772 of horses, 6,523 and 1,765 of tigers). As in CC-SSL, frames with 9 visible joints or fewer are skipped.
    The order of the joints differs between horses and tigers; here it does not. The owners' nineteenth joint, the neck,
    is left out. Hooves are paws and the root of the tail is `tail_base`, as in `AnimalPose`. Joints without the flag
    are missing. Coordinates are as in the files; whether they count from 0 or 1 is not published. The box is that of
    the joints. `sequence` is the shot, `frame` its number in the shot.
    """

    SKELETON = TIGDOG18
    FIELDS = ("bbox", "sequence", "frame")
    COUNTS = {}
    HOMEPAGE = "http://calvin-vision.net/datasets/tigdog/"
    LICENCE = "for research; none stated"
    CITATION = "Del Pero et al.: Articulated motion discovery using pairs of trajectories. CVPR 2015."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack TigDog, so that the folder holds behaviorDiscovery2.0/ranges/{horse,tiger}/ranges.mat, "
        "landmarks/{horse,tiger}/1.mat ..., horse/00000001.jpg ... and tiger/"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """A shot per shard, by number; shots without landmarks are left out."""
        root = _reading.require(root / "behaviorDiscovery2.0", "the folder of TigDog")
        found: dict[str, list[Shard]] = {}
        for animal in _TIGDOG_ORDER:
            _reading.require(root / animal, f"the folder of the {animal} frames")
            _reading.require(root / "landmarks" / animal, f"the folder of the {animal} landmarks")
            shots = [shot for shot in _ranges(root, animal) if (_landmarks(root, animal, shot[0])).is_file()]
            for place, (shot, first, last) in enumerate(shots):
                split = "test" if place % _TEST_EVERY == _TEST_EVERY - 1 else "train"
                part = functools.partial(_shot, root, animal, shot, first, last)
                found.setdefault(f"{animal}_{split}", []).append(part)
        return found


class SyntheticAnimals(RecordBuilder):
    """Horses, tigers, sheep and hounds rendered with random textures on photographs, with 18 joints; 640x480.

    10,000 images of horses and of tigers each, the joints being vertices of the meshes chosen by CC-SSL to fit
    TigDog's. Splits are by species, such as `horse_train` and `horse_test`: every fifth image, by name, is for testing
    (CC-SSL draws a fifth at random). A joint behind the surface is occluded, one outside of the image is missing;
    CC-SSL counts occluded ones as visible. The box is that of all vertices within the image. Only species whose folder
    is there are read.
    """

    SKELETON = TIGDOG18
    FIELDS = ("bbox",)
    COUNTS = {"horse_train": 8000, "horse_test": 2000, "tiger_train": 8000, "tiger_test": 2000}
    HOMEPAGE = "https://github.com/JitengMu/Learning-from-Synthetic-Animals"
    LICENCE = "for research; none stated"
    CITATION = "Mu et al.: Learning from synthetic animals. CVPR 2020."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run get_dataset.sh of the owners, so that the folder holds synthetic_animal/horse_combineds5r5_texture/ and "
        "others with *_img.png and *_kpts.npy"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The images of each species by name."""
        root = _reading.require(root / "synthetic_animal", "the folder of the synthetic animals")
        found: dict[str, list[Shard]] = {}
        for animal in _VERTICES:
            images = sorted((root / f"{animal}_combineds5r5_texture").glob("*_img.png"))
            parts: dict[str, list[Path]] = {"train": [], "test": []}
            for place, image in enumerate(images):
                parts["test" if place % _TEST_EVERY == _TEST_EVERY - 1 else "train"].append(image)
            for split, paths in parts.items():
                if paths:
                    found[f"{animal}_{split}"] = [
                        functools.partial(_rendered, animal, part) for part in _reading.in_parts(paths)
                    ]
        if not found:
            raise FileNotFoundError(f"{root}: found no horse_combineds5r5_texture/*_img.png, expected some species")
        return found


def _animal(animal: Mapping[str, Any], file: Any, number: int) -> _flat.FileLabels | Skipped:
    """An animal of Animal Pose."""
    if not isinstance(file, str):
        return Skipped(f"annotation {number}", "it names no image")
    name = f"{file}#{number}"
    points = _reading.numbers(animal.get("keypoints"), (len(ANIMALPOSE20), 3))
    corners = _reading.numbers(animal.get("bbox"), (4,))
    if points is None:
        return Skipped(name, "it has no 20 joints of x, y and a flag")
    if not (points[:, 2] > 0).any():
        return Skipped(name, "no joint is labelled")
    if corners is None or (corners[2:] <= corners[:2]).any():
        return Skipped(name, "it has no box")
    return file, {
        "name": name,
        "keypoints": np.where(points[:, 2:] > 0, points[:, :2], 0).astype(np.float32),
        "visible": np.where(points[:, 2] > 0, VISIBLE, MISSING).astype(np.uint8),
        "bbox": np.concatenate([corners[:2], corners[2:] - corners[:2]]).astype(np.float32),
    }


def _ranges(root: Path, animal: str) -> list[tuple[int, int, int]]:
    """Shots by number, with their first and last frame."""
    path = root / "ranges" / animal / "ranges.mat"
    found = np.atleast_2d(_flat.load_mat(path, "ranges"))
    if found.ndim != 2 or found.shape[1] != 3 or found.dtype.kind not in "iuf":
        raise ValueError(f"{path}: ranges are {found.dtype} {found.shape}, expected shot, first and last frame")
    return sorted((int(shot), int(first), int(last)) for shot, first, last in found)


def _landmarks(root: Path, animal: str, shot: int) -> Path:
    return root / "landmarks" / animal / f"{shot}.mat"


def _shot(root: Path, animal: str, shot: int, first: int, last: int) -> Iterator[Record | Skipped]:
    """The frames of one shot of TigDog."""
    sequence, names = f"{animal}/{shot}", [f"{animal}/{frame:08d}.jpg" for frame in range(first, last + 1)]
    try:
        listed = np.ravel(_flat.load_mat(_landmarks(root, animal, shot), "landmarks", squeeze=False))
    except ValueError:
        yield from (Skipped(name, "the landmarks of its shot cannot be read") for name in names)
        return
    for frame, name in enumerate(names):
        labels = _tigdog_joints(listed[frame], animal) if frame < len(listed) else None
        if labels is None:
            yield Skipped(name, "it has no landmarks")
            continue
        points, visible = labels
        if np.count_nonzero(visible) <= len(TIGDOG18) // 2:
            yield Skipped(name, "9 joints or fewer are visible")
        elif not (root / name).is_file():
            yield Skipped(name, "the image is missing")
        else:
            yield Record(
                image=untrusted.read_file(root / name, "an image"),
                name=name,
                keypoints=np.where(visible[:, None] > 0, points, 0).astype(np.float32),
                visible=visible,
                bbox=_flat.tight_box(points, visible),
                sequence=sequence,
                frame=frame,
            )


def _tigdog_joints(cell: Any, animal: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Points (18, 2) and visibility (18,) in the order of `TIGDOG18`."""
    label = np.ravel(cell)[0] if np.size(cell) else None
    points = _reading.numbers(getattr(label, "positions", None), (19, 2))
    flags = _reading.numbers(getattr(label, "visibility", None), (19, 1))
    if points is None or flags is None:
        return None
    order = list(_TIGDOG_ORDER[animal])
    return points[order], np.where(flags[order, 0] > 0, VISIBLE, MISSING).astype(np.uint8)


def _rendered(animal: str, images: Sequence[Path]) -> Iterator[Record | Skipped]:
    """Synthetic animals."""
    for path in images:
        name = f"{animal}/{path.name}"
        labels = path.with_name(path.name.removesuffix("img.png") + "kpts.npy")
        try:
            vertices: Any = unpickle.load_npy(untrusted.read_file(labels, "vertices"), where=name)
            data = untrusted.read_file(path, "an image")
            width, height = _reading.image_size(data, name)
        except BrokenImageError:
            yield Skipped(name, "the image cannot be decoded")
            continue
        except (OSError, ValueError):
            yield Skipped(name, "its file of vertices is missing or broken")
            continue
        numbers = vertices.dtype.kind in "fiu" and (np.abs(vertices) < _reading.LARGEST).all()
        if not numbers or vertices.ndim != 2 or vertices.shape[1] != 3 or len(vertices) <= max(_VERTICES[animal]):
            yield Skipped(name, "its file does not hold x, y and a flag of all vertices")
            continue
        low, high = vertices[:, :2].min(axis=0).clip(0), vertices[:, :2].max(axis=0).clip(None, (width, height))
        points = vertices[list(_VERTICES[animal])].astype(np.float64)
        inside = ((points[:, :2] >= 0) & (points[:, :2] <= (width - 1, height - 1))).all(axis=1)
        if not inside.any():
            yield Skipped(name, "no joint is in the image")
            continue
        visible = np.where(inside, np.where(points[:, 2] > 0, VISIBLE, OCCLUDED), MISSING).astype(np.uint8)
        yield Record(
            image=data,
            name=name,
            keypoints=np.where(inside[:, None], points[:, :2], 0).astype(np.float32),
            visible=visible,
            bbox=np.concatenate([low, high - low]).astype(np.float32),
        )
