"""COCO's people: through boxes of labels and of a detector, the numbers are those of its owners' evaluation."""

import contextlib
import copy
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_people import SIZE, Rows, measured, opened

from jaxpose.data import domains, schemes
from jaxpose.data.joints.joint_sets import COMMON12
from jaxpose.data.joints.skeletons import COCO17
from jaxpose.metrics import OKSAP
from jaxpose.metrics.metric import Predictions

TAR = "coco_mini_and_munch.tar"
SPEC = f"coco:{TAR}?annotations=person_keypoints_train2017&test_annotations=person_keypoints_val2017"
JOINTS = {"": COCO17.joints, "&joints=common12": COMMON12.joints}
NAMES = (
    *(("ap", "all"), ("ap@0.5", "all"), ("ap@0.75", "all"), ("ap", "medium"), ("ap", "large"), ("ar", "all")),
    *(None, None, ("ar", "medium"), ("ar", "large")),
)


@pytest.fixture
def content(pack: Callable[[str], Path]) -> dict[str, Any]:
    """The file that is tested on, as its owners wrote it."""
    with tarfile.open(pack(TAR)) as archive:
        file = archive.extractfile("coco_mini/person_keypoints_val2017.json")
        assert file is not None
        return json.load(file)


@pytest.fixture
def present(content: dict[str, Any], pack: Callable[[str], Path]) -> dict[str, Any]:
    """The part of it whose images are there; nobody in the others has a labelled joint."""
    with tarfile.open(pack(TAR)) as archive:
        files = {Path(name).name for name in archive.getnames()}
    images = [image for image in content["images"] if image["file_name"] in files]
    kept = {image["id"] for image in images}
    assert not any(a["num_keypoints"] for a in content["annotations"] if a["image_id"] not in kept)
    return content | {"images": images, "annotations": [a for a in content["annotations"] if a["image_id"] in kept]}


def places(joints: Sequence[str]) -> list[int]:
    return [COCO17.joints.index(joint) for joint in joints]


def by_coco(content: Mapping[str, Any], found: list[dict[str, Any]], joints: Sequence[str]) -> np.ndarray:
    """The ten numbers of COCO's summary on all annotations, of some of the joints; `found` are its results."""
    content, chosen = copy.deepcopy(dict(content)), places(joints)
    for person in content["annotations"]:
        flat = np.reshape(person["keypoints"], (17, 3))[chosen]
        person["keypoints"], person["num_keypoints"] = flat.ravel().tolist(), int((flat[:, 2] > 0).sum())
    truth: Any = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = content
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(found)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(COCO17.sigmas)[chosen]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def same(rows: Rows, expected: np.ndarray) -> None:
    for place, value in zip(NAMES, expected, strict=True):
        if place in rows:
            assert rows[place]["value"] == pytest.approx(value, abs=1e-6), place
        elif place is not None:
            assert value == -1, place  # COCO's word for nobody to find


def without_doubles(found: list[dict[str, Any]], joints: Sequence[str]) -> list[dict[str, Any]]:
    """The surest first, each unless it is more than 0.9 similar to one that stays; `crop` is a square's side."""
    sigmas, kept = np.array(COCO17.sigmas)[places(joints)], []
    for one in sorted(found, key=lambda one: -one["score"]):
        for other in kept:
            if other["image_id"] == one["image_id"]:
                a, b = (np.reshape(x["keypoints"], (-1, 3))[:, :2] for x in (one, other))
                area = (one["crop"] ** 2 + other["crop"] ** 2) / 2
                if np.mean(np.exp(-((a - b) ** 2).sum(axis=1) / (8 * sigmas**2 * area))) > 0.9:
                    break
        else:
            kept.append(one)
    return [one for one in found if any(one is other for other in kept)]


def detector_file(path: Path, content: Mapping[str, Any], *, seed: int = 0) -> list[dict[str, Any]]:
    """What a detector of people finds: most of them, some twice, and others in all images."""
    rng = np.random.default_rng(seed)
    boxes = [(p["image_id"], np.array(p["bbox"], float)) for p in content["annotations"] if rng.random() < 0.9]
    boxes += [boxes[i] for i in rng.integers(0, len(boxes), 20)]
    boxes += [(image["id"], np.array([30.0, 40, 200, 150])) for image in content["images"]]
    found = [
        {
            "image_id": image,
            "category_id": 1,
            "bbox": np.maximum(box + rng.normal(0, 3, 4), 2).tolist(),
            "score": float(np.round(rng.random(), 2)),  # also the same twice
        }
        for image, box in boxes
    ]
    path.write_text(json.dumps([*found, {"image_id": 785, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]))
    return found


def square(box: Sequence[float]) -> tuple[float, np.ndarray]:
    """Side and middle of a crop."""
    x, y, w, h = np.asarray(box, np.float32).tolist()
    return 1.25 * max(w, h), np.array([x + (w - 1) / 2, y + (h - 1) / 2])


def find(fields: Mapping[str, jax.Array]) -> Predictions:
    """Points that are near the labels where there are some, and joints of which a part is seen."""
    drift = jnp.sin(9 * fields["crop"][:, 0, 2])[:, None, None]
    points = fields["keypoints"] + 3 * drift * jnp.sin(7 * fields["keypoints"])
    grid = jnp.arange(points.shape[1], dtype=jnp.float32)
    somewhere = 32 + 20 * jnp.stack([jnp.cos(grid), jnp.sin(grid)], axis=-1)[None] * (1 + 0.3 * drift)
    return Predictions(
        points=jnp.where(jnp.any(fields["keypoints"] != 0, axis=(1, 2), keepdims=True), points, somewhere),
        scores=jnp.abs(jnp.sin(points[..., 0] + points[..., 1])),
    )


def results(pair: domains.OpenedPair, rows: Sequence[tuple[int, Sequence[float], float]]) -> list[dict[str, Any]]:
    """COCO's results of `find` in boxes: image, box and score of each."""
    crops, found = pair.crops("target", "test"), []
    elements = pair.domains["target"].elements("test", ("keypoints", "crop"), word="target")
    assert len(crops) == len(rows)
    predict = jax.jit(find)
    for i, (image, box, score) in enumerate(rows):
        one = elements[i]
        predicted = predict({name: jnp.asarray(one[name])[None] for name in ("keypoints", "crop")})
        side, middle = square(box)
        points = (np.asarray(predicted.points[0], np.float64) - (SIZE - 1) / 2) * side / SIZE + middle
        sure = np.asarray(predicted.scores[0], np.float64)
        seen = sure[sure > 0.2]
        keypoints = np.c_[points, np.ones(len(points))].ravel().tolist()
        total = float(np.float32(score)) * (seen.mean() if len(seen) else 0.0)
        found.append({"image_id": image, "category_id": 1, "keypoints": keypoints, "score": total, "crop": side})
    return found


@pytest.mark.parametrize("joints", sorted(JOINTS))
def test_in_boxes_of_labels_all_annotations_count(
    joints: str, content: dict[str, Any], pack: Callable[[str], Path]
) -> None:
    pair = opened(SPEC + joints, pack(TAR).parent)
    rows = measured(pair, find, "ap")
    labelled = [a for a in content["annotations"] if a["num_keypoints"] and not a["iscrowd"]]
    names = JOINTS[joints]
    order = pair.skeleton.joints
    assert set(order) == set(names)
    found = results(pair, [(a["image_id"], a["bbox"], 1.0) for a in labelled])
    kept = without_doubles(found, order)
    same(rows, by_coco(content, kept, order))
    assert 0.05 < rows["ap", "all"]["value"] < 0.95
    chosen = [np.reshape(a["keypoints"], (17, 3))[places(names), 2].any() for a in labelled]
    assert rows["ap", "all"]["count"] == sum(chosen)


@pytest.mark.parametrize("joints", sorted(JOINTS))
def test_in_detected_boxes_false_ones_and_doubles_count(
    joints: str, present: dict[str, Any], pack: Callable[[str], Path], tmp_path: Path
) -> None:
    boxes = detector_file(tmp_path / "found.json", present)
    pair = opened(f"{SPEC}&detections={tmp_path / 'found.json'}{joints}", pack(TAR).parent)
    rows = measured(pair, find, "ap")
    found = results(pair, [(one["image_id"], one["bbox"], one["score"]) for one in boxes])
    kept = without_doubles(found, pair.skeleton.joints)
    assert len(kept) < len(found)
    same(rows, by_coco(present, kept, pair.skeleton.joints))


def perturbed(rng: np.random.Generator, content: Mapping[str, Any], joints: Sequence[str]) -> list[dict[str, Any]]:
    """Results in which people are missing or found twice, near or far, in crowds and where nobody is."""
    spread, missing, scale = rng.uniform(0, 0.15), rng.uniform(0, 0.5), rng.uniform(0.3, 2)
    found = []
    for person in content["annotations"]:
        points = np.reshape(person["keypoints"], (17, 3))[places(joints), :2].astype(float)
        box = np.array(person["bbox"], float)
        unknown = ~points.any(axis=1)
        points[unknown] = box[:2] + rng.uniform(-1.5, 2.5, (int(unknown.sum()), 2)) * box[2:]
        for _ in range(int(rng.choice([0, 1, 2], p=[missing, 0.9 * (1 - missing), 0.1 * (1 - missing)]))):
            error = rng.normal(0, spread * rng.uniform(0, scale) * np.sqrt(person["area"]), points.shape)
            found.append((person["image_id"], points + error))
    for image in rng.choice([image["id"] for image in content["images"]], int(rng.integers(1, 20))):
        found.append((int(image), rng.uniform(0, 400, (len(joints), 2))))
    rng.shuffle(found)
    digits = int(rng.integers(1, 6))  # few make equal scores
    return [
        {
            "image_id": image,
            "category_id": 1,
            "keypoints": np.c_[points, np.ones(len(points))].ravel().tolist(),
            "score": float(np.round(rng.random(), digits)),
            "crop": float(np.ptp(points, axis=0).max()),
        }
        for image, points in found
    ]


@pytest.mark.parametrize(
    ("joints", "trials"),
    [*((joints, 25) for joints in JOINTS), *(pytest.param(joints, 1500, marks=pytest.mark.slow) for joints in JOINTS)],
)
def test_any_results_have_the_numbers_of_cocos_evaluation(
    joints: str, trials: int, present: dict[str, Any], pack: Callable[[str], Path], tmp_path: Path
) -> None:
    detector_file(tmp_path / "found.json", present)
    pair = opened(f"{SPEC}&detections={tmp_path / 'found.json'}{joints}", pack(TAR).parent)
    people, names = pair.crops("target", "test").people, pair.skeleton.joints
    assert people is not None
    images = dict(zip(sorted(image["id"] for image in present["images"]), people["images"], strict=True))
    values = []
    for trial in range(trials):
        found = perturbed(np.random.default_rng(trial), present, names)
        nms = (0.9, 1.0)[trial % 2]
        size = len(found)
        per_row = {
            "points": np.array([one["keypoints"] for one in found]).reshape(size, -1, 3)[..., :2],
            "scores": np.ones((size, len(names))),
            "score": np.array([one["score"] for one in found]),
            "crop_area": np.array([one["crop"] ** 2 for one in found]),
            "row": np.ones(size, bool),
            "image": np.stack([images[one["image_id"]] for one in found]),
        }
        sigmas = tuple(np.array(COCO17.sigmas)[places(names)].tolist())
        metric = OKSAP(sigmas=sigmas, size=SIZE, nms=nms).among(people)
        rows = {(row["metric"], row["group"]): row for row in metric.rows(None, per_row, {}, ())}
        kept = without_doubles(found, names) if nms < 1 else found
        same(rows, by_coco(present, kept, names))
        values.append(rows["ap", "all"]["value"])
    assert min(values) < 0.2
    assert max(values) > 0.6


def test_of_some_images_only_their_people_are_to_be_found(pack: Callable[[str], Path]) -> None:
    root = str(pack(TAR).parent)
    found = schemes.open_data(f"coco:{TAR}?annotations=person_keypoints_val2017&test=*397133.jpg", root=root)
    pair = opened(f"coco:{TAR}?annotations=person_keypoints_val2017&test=*397133.jpg", Path(root))
    people = pair.crops("target", "test").people
    assert people is not None
    assert len(people["images"]) == 1
    everyone = [(a["iscrowd"], a["num_keypoints"]) for a in annotations(pack(TAR)) if a["image_id"] == 397133]
    assert len(people["crowd"]) == len(everyone) >= len(found.splits["test"])


def annotations(path: Path) -> list[dict[str, Any]]:
    with tarfile.open(path) as archive:
        file = archive.extractfile("coco_mini/person_keypoints_val2017.json")
        assert file is not None
        return json.load(file)["annotations"]


BOX = {"image_id": 397133, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        ([BOX | {"image_id": 7}], "found detections of image 7, ..., expected of images of"),
        ([], "found detections of image nothing, ..., expected of images of"),
        (
            [BOX | {"category_id": [1]}, BOX | {"image_id": [7]}],
            "found detections of image [7], ..., expected of images",
        ),
        ([{k: v for k, v in BOX.items() if k != "score"}], "detection 0: found the score None, expected a number"),
        ([BOX, BOX | {"bbox": [1, 2]}], "detection 1: found the bbox [1, 2], expected x, y, width, height"),
        ([3], "detection 0: found 3, expected a list of detections with image_id, bbox and score"),
        ({}, "found a dict, expected a list of detections with image_id, bbox and score"),
    ],
)
def test_detections_of_something_else_are_one_line(
    detections: Any, message: str, pack: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "found.json").write_text(json.dumps(detections))
    with pytest.raises(ValueError, match="coco:") as caught:
        schemes.open_data(f"{SPEC}&detections={tmp_path / 'found.json'}", root=str(pack(TAR).parent))
    assert f"found.json: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "annotations=person_keypoints_val2017&detections=a.json",
            "found detections=a.json, expected test_annotations",
        ),
        (f"{SPEC.partition('?')[2]}&test=*", "found test=*, expected none beside test_annotations"),
        (f"{SPEC.partition('?')[2]}&detections=a.json&boxes=whole", "found boxes and detections, expected one of them"),
    ],
)
def test_options_that_contradict_each_other_are_one_line(
    options: str, message: str, pack: Callable[[str], Path]
) -> None:
    with pytest.raises(ValueError, match="coco:") as caught:
        schemes.open_data(f"coco:{TAR}?{options}", root=str(pack(TAR).parent))
    assert message in str(caught.value)
