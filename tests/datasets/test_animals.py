import json
import pickle

import flat_common as common
import numpy as np
import pytest
import scipy.io

from jaxpose.data.joints import joint_sets
from jaxpose.datasets.animals import ANIMALPOSE20, TIGDOG18, AnimalPose, SyntheticAnimals, TigDog

# The owners' order of Animal Pose.
ANIMALPOSE = (
    *("left eye", "right eye", "nose", "left earbase", "right earbase"),
    *("L_F_elbow", "R_F_elbow", "L_B_elbow", "R_B_elbow", "L_F_knee", "R_F_knee", "L_B_knee", "R_B_knee"),
    *("L_F_paw", "R_F_paw", "L_B_paw", "R_B_paw", "throat", "withers", "tailbase"),
)
SIDES = {"L_F_": "left_front_", "R_F_": "right_front_", "L_B_": "left_back_", "R_B_": "right_back_"}


def canonical(name):
    for short, long in SIDES.items():
        name = name.replace(short, long)
    return name.replace("earbase", "ear_base").replace("tailbase", "tail_base").replace(" ", "_")


def animal(image, category, **changes):
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [5, 10, 45, 30],
        "keypoints": [[20 + i, 30 - i, 1] for i in range(20)],
        "num_keypoints": 20,
        **changes,
    }


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "animal_pose"
    names = {"1": "f.jpg", "2": "b.jpg", "3": "c.jpg", "4": "d.jpg", "5": "a.jpg", "6": "e.jpg"}  # the fifth is e
    for name in names.values():
        common.write(folder / "images" / name, common.picture())
    partly = [[0, 0, 0]] * 20
    partly[16] = [7, 8, 1]
    animals = [
        animal(1, 5),
        animal(1, 2),
        animal(6, 5, keypoints=partly),
        animal(2, 5, keypoints=[[0, 0, 0]] * 20),
        animal(2, 5, keypoints=partly[:19]),
        animal(2, 5, bbox=[5, 10, 5, 12]),
        animal(9, 5),
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(("cow", "sheep", "horse", "cat", "dog"), start=1)]
    content = {"images": names, "annotations": animals, "categories": categories}
    common.write(folder / "keypoints.json", json.dumps(content))
    return folder


def test_animal_pose(photographs):
    found = common.splits(AnimalPose, photographs)
    assert {split: len(common.records(items)) for split, items in found.items()} == {
        "dog_train": 1,
        "dog_test": 1,
        "sheep_train": 1,
    }
    (dog,), (small,) = common.records(found["dog_train"]), common.records(found["dog_test"])
    for i, name in enumerate(ANIMALPOSE):
        assert common.joint(ANIMALPOSE20, dog, canonical(name)) == (20 + i, 30 - i, 2)
    np.testing.assert_array_equal(dog["bbox"], [5, 10, 40, 20])
    assert common.joint(ANIMALPOSE20, small, "right_back_paw") == (7, 8, 2)
    assert np.count_nonzero(small["visible"]) == 1
    assert common.reasons(found["dog_train"]) == {
        "b.jpg#3": "no joint is labelled",
        "b.jpg#4": "it has no 20 joints of x, y and a flag",
        "b.jpg#5": "it has no box",
        "annotation 6": "it names no image",
    }


def test_animal_pose_prepared(photographs, tmp_path):
    common.check_prepared(AnimalPose, photographs, tmp_path / "data", "dog_test")


def test_animal_pose_errors(photographs):
    path = photographs / "keypoints.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "../cow"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"keypoints\.json: categories are \.\./cow, .*; expected cat, cow, dog"):
        common.splits(AnimalPose, photographs)
    content["categories"].pop(0)
    content["annotations"][0]["category_id"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"annotation 0 is of category 1, expected"):
        common.splits(AnimalPose, photographs)
    content["images"] = [{"id": 1, "file_name": "a.jpg"}]  # as in COCO
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"keypoints\.json: holds images, annotations, categories; expected images as a"
    ):
        common.splits(AnimalPose, photographs)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"keypoints\.json: no such file"):
        common.splits(AnimalPose, photographs)


# The owners' orders of TigDog's joints.
HORSE = (
    *("left eye", "right eye", "chin", "L_F_paw", "R_F_paw", "L_B_paw", "R_B_paw", "tailbase"),
    *("L_F_knee", "R_F_knee", "L_B_knee", "R_B_knee", "left shoulder", "right shoulder"),
    *("L_F_elbow", "R_F_elbow", "L_B_elbow", "R_B_elbow", "neck"),
)
TIGER = (*HORSE[:8], *HORSE[14:18], *HORSE[12:14], *HORSE[8:12], "neck")


def landmarks(frames, hidden=()):
    cells = np.empty((frames, 1), object)
    for frame in range(frames):
        points = np.stack([5.0 + np.arange(19), np.full(19, 20.0 + frame)], axis=1)
        label = np.empty((1, 1), [("positions", object), ("visibility", object)])
        label[0, 0]["positions"] = points
        label[0, 0]["visibility"] = np.array([[0 if i in hidden else 1] for i in range(19)], np.uint8)
        cells[frame, 0] = label
    return {"landmarks": cells}


@pytest.fixture
def videos(tmp_path):
    root = tmp_path / "behaviorDiscovery2.0"
    for name, shots in (("horse", (3, 1, 2, 4, 5, 6)), ("tiger", (1,))):
        ranges = np.array([[shot, 10 * shot, 10 * shot + 1] for shot in shots], np.uint16)
        (root / "ranges" / name).mkdir(parents=True)
        (root / "landmarks" / name).mkdir(parents=True)
        scipy.io.savemat(root / "ranges" / name / "ranges.mat", {"ranges": ranges})
        for shot in shots:
            if shot != 6:
                scipy.io.savemat(root / "landmarks" / name / f"{shot}.mat", landmarks(2, hidden=(0, 18)))
            for frame in (10 * shot, 10 * shot + 1):
                common.write(root / name / f"{frame:08d}.jpg", common.picture(value=frame))
    scipy.io.savemat(root / "landmarks" / "horse" / "2.mat", landmarks(1, hidden=range(9)))
    (root / "landmarks" / "horse" / "3.mat").write_bytes(b"text")
    (root / "horse" / "00000041.jpg").unlink()
    return tmp_path


def test_tigdog(videos):
    found = common.splits(TigDog, videos)
    assert {split: [r["name"] for r in common.records(items)] for split, items in found.items()} == {
        "horse_train": ["horse/00000010.jpg", "horse/00000011.jpg", "horse/00000040.jpg"],
        "horse_test": ["horse/00000050.jpg", "horse/00000051.jpg"],
        "tiger_train": ["tiger/00000010.jpg", "tiger/00000011.jpg"],
    }
    for split, order in (("horse_train", HORSE), ("tiger_train", TIGER)):
        record = common.records(found[split])[1]
        for i, name in enumerate(order[:18]):
            expected = (5 + i, 21, 2) if i else (0, 0, 0)  # the left eye is hidden
            assert common.joint(TIGDOG18, record, canonical(name)) == expected
        np.testing.assert_array_equal(record["bbox"], [6, 21, 16, 0])
        assert (record["sequence"], record["frame"]) == (f"{split[:5]}/1", 1)
        assert record["image"] == common.picture(value=11)
    assert common.reasons(found["horse_train"]) == {
        "horse/00000020.jpg": "9 joints or fewer are visible",
        "horse/00000021.jpg": "it has no landmarks",
        "horse/00000030.jpg": "the landmarks of its shot cannot be read",
        "horse/00000031.jpg": "the landmarks of its shot cannot be read",
        "horse/00000041.jpg": "the image is missing",
    }


def test_tigdog_prepared(videos, tmp_path):
    common.check_prepared(TigDog, videos, tmp_path / "data", "tiger_train")


def test_tigdog_errors(videos):
    path = videos / "behaviorDiscovery2.0" / "ranges" / "tiger" / "ranges.mat"
    scipy.io.savemat(path, {"ranges": np.zeros((4, 2))})
    with pytest.raises(ValueError, match=r"ranges\.mat: ranges are float64 \(4, 2\), expected shot, first and last"):
        common.splits(TigDog, videos)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"ranges\.mat: no such file"):
        common.splits(TigDog, videos)
    with pytest.raises(FileNotFoundError, match=r"behaviorDiscovery2\.0: found no such file or folder"):
        common.splits(TigDog, videos / "behaviorDiscovery2.0")


@pytest.fixture
def renderings(tmp_path):
    folder = tmp_path / "synthetic_animal" / "horse_combineds5r5_texture"
    vertices = np.zeros((3299, 3))
    vertices[:, 0], vertices[:, 1], vertices[:, 2] = np.arange(3299) % 70 - 5, np.arange(3299) % 50, 1
    for i in range(6):
        common.write(folder / f"000{i}_img.png", common.picture(value=i, suffix=".png"))
        vertices[1718] = (17, 18, 1)  # the left eye
        vertices[877] = (30, 31, 0)  # the right elbow at the back, behind the surface
        vertices[1684] = (100, 20, 1)  # the right eye, out of the image
        np.save(folder / f"000{i}_kpts.npy", vertices)
    return tmp_path


def test_synthetic_animals(renderings):
    found = common.splits(SyntheticAnimals, renderings)
    assert {split: [r["name"] for r in items] for split, items in found.items()} == {
        "horse_train": [f"horse/000{i}_img.png" for i in (0, 1, 2, 3, 5)],
        "horse_test": ["horse/0004_img.png"],
    }
    record = found["horse_train"][0]
    assert common.joint(TIGDOG18, record, "left_eye") == (17, 18, 2)
    assert common.joint(TIGDOG18, record, "right_back_elbow") == (30, 31, 1)
    assert common.joint(TIGDOG18, record, "right_eye") == (0, 0, 0)
    assert common.joint(TIGDOG18, record, "left_front_paw") == (1634 % 70 - 5, 1634 % 50, 2)
    np.testing.assert_array_equal(record["bbox"], [0, 0, 80, 49])


def test_broken_renderings(renderings):
    folder = renderings / "synthetic_animal" / "horse_combineds5r5_texture"
    (folder / "0000_kpts.npy").unlink()
    (folder / "0001_kpts.npy").write_bytes(pickle.dumps(np.zeros((3299, 3))))
    np.save(folder / "0002_kpts.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.save(folder / "0003_kpts.npy", np.zeros((1000, 3)))
    (folder / "0005_img.png").write_bytes(b"text")
    assert common.reasons(common.splits(SyntheticAnimals, renderings)["horse_train"]) == {
        **{f"horse/000{i}_img.png": "its file of vertices is missing or broken" for i in range(3)},
        "horse/0003_img.png": "its file does not hold x, y and a flag of all vertices",
        "horse/0005_img.png": "the image cannot be decoded",
    }


def test_synthetic_animals_prepared(renderings, tmp_path):
    common.check_prepared(SyntheticAnimals, renderings, tmp_path / "data", "horse_train")


def test_synthetic_animals_errors(renderings):
    with pytest.raises(FileNotFoundError, match=r"synthetic_animal: found no such file or folder"):
        common.splits(SyntheticAnimals, renderings / "synthetic_animal")
    (renderings / "other" / "synthetic_animal").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"found no horse_combineds5r5_texture/\*_img\.png, expected some species"
    ):
        common.splits(SyntheticAnimals, renderings / "other")


def test_the_three_sets_share_14_joints():
    wanted = set(joint_sets.ANIMAL14.joints)
    assert wanted <= set(TIGDOG18.joints)
    assert wanted <= set(ANIMALPOSE20.joints)
    assert (set(TIGDOG18.joints) & set(ANIMALPOSE20.joints)) - wanted == {"tail_base"}
    assert len(TIGDOG18.flips) == 8
