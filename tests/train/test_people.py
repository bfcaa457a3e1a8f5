"""People as benchmarks evaluate them, from the owners' files to the numbers."""

import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from jaxpose import config as configs
from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.data import domains
from jaxpose.data.joints.joint_sets import COMMON12
from jaxpose.datasets import mpii, prepare
from jaxpose.metrics.metric import Measurement, Predictions
from jaxpose.ops import affine
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes import optimizers
from jaxpose.recipes.measures import metrics_of
from jaxpose.recipes.stage import Evaluation, State, Task, initial_state
from jaxpose.train import mesh as meshes
from jaxpose.train.evaluate import Evaluator, fields_of

SIZE = 64


def opened(spec: str, root: Path, *, margin: float = 1.25) -> domains.OpenedPair:
    """A pair of a domain with itself."""
    return domains.open_pair(source=spec, target=spec, root=str(root), image_size=SIZE, margin=margin, memory=0, seed=0)


Rows = dict[tuple[str, str], Measurement]
Find = Callable[[Mapping[str, jax.Array]], Predictions]


def measured(pair: domains.OpenedPair, find: Find, *metrics: str) -> Rows:
    """Rows of the target's test split, by metric and group, of what is found from the fields of its elements."""
    task = Task(skeleton=pair.skeleton, image_size=SIZE, augmentation=Augmentation())
    found = metrics_of(Config(method=None, metrics=metrics), task)

    def predict(state: State, fields: Mapping[str, jax.Array]) -> Predictions:
        return find(fields)

    evaluation = Evaluation(predict=predict, fields=("keypoints", "crop", "image_id"), metrics=found)
    evaluator = Evaluator(evaluation, task, (), meshes.make_mesh(1), 8, np.zeros((len(task.skeleton), 2), np.float32))
    crops = pair.domains["target"].elements("test", fields_of(evaluation, (), ()), word="target")
    scores = evaluator(initial_state(params={}, stats={}, optimizers={}), crops)
    return {(row["metric"], row["group"]): Measurement(**row) for row in scores.rows}


def unpacked(archive: Path, part: str, folder: Path) -> Path:
    """A part of an archive, in a folder."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, [m for m in opened.getmembers() if m.name.startswith(part)], filter="data")
    return folder / part


@pytest.fixture
def mpii_sample(pack: Callable[[str], Path], tmp_path: Path) -> Path:
    """Five real people in HRNet's layout, prepared; the rectangles of heads are invented: 30, 60, ... pixels long."""
    here = unpacked(pack("mmpose_tests_data.tar.gz"), "tests/data/mpii", tmp_path)
    for folder in ("annot", "images"):
        (here / folder).mkdir()
    for image in here.glob("*.jpg"):
        image.rename(here / "images" / image.name)
    people = json.loads((here / "test_mpii.json").read_text())
    for name in ("train", "valid"):
        (here / "annot" / f"{name}.json").write_text(json.dumps(people))
    corners = np.zeros((2, 2, 5))
    corners[1] = np.outer((3, 4), 10.0 * np.arange(1, 6))
    scipy.io.savemat(here / "annot" / "gt_valid.mat", {"headboxes_src": corners})
    return prepare.prepare(mpii.Mpii, here, tmp_path / "data")


def moved(pixels: np.ndarray) -> Find:
    """The labels, so many pixels (5, 16) of the image to the right of where they are."""

    def find(fields: Mapping[str, jax.Array]) -> Predictions:
        shift = np.stack([np.pad(pixels, ((0, 3), (0, 0))), np.zeros((8, 16))], axis=-1)
        at = affine.apply(affine.invert(fields["crop"]), fields["keypoints"]) + jnp.asarray(shift, jnp.float32)
        return Predictions(points=affine.apply(fields["crop"], at))

    return find


def test_pckh_of_mpii_people_is_what_is_counted_by_hand(mpii_sample: Path) -> None:
    """Heads are 30, 60, 90, 120 and 150 pixels: half of that is 15 to 75 pixels."""
    pair = opened(f"tfds:{mpii_sample}", mpii_sample)
    pixels = np.zeros((5, 16))
    pixels[0] = 14  # less than 15
    pixels[1] = 31  # more than 30
    pixels[2, :6] = 46  # the legs
    pixels[3, 9] = 61  # the top of the head
    pixels[4, 6:8] = 1000  # pelvis and thorax, which do not count
    rows = measured(pair, moved(pixels), "pckh", "pckh_compat")
    # 16, 16, 14, 14, 16 joints are labelled; of the third and the fourth, those without are the ankles.
    counted = np.array([14, 14, 12, 12, 14])
    wrong = np.array([0, 14, 4, 1, 0])
    row = rows["pckh@0.5", "all"]
    assert row["count"] == counted.sum()
    assert row["value"] == pytest.approx(1 - wrong.sum() / counted.sum())
    assert rows["pckh@0.5", "joint:head_top"]["value"] == pytest.approx(3 / 5)
    assert ("pckh@0.5", "joint:pelvis") not in rows
    assert rows["pckh@0.5", "knee"]["value"] == pytest.approx(6 / 10)
    # At 0.11, 14 pixels of 30 are too far, and so is what was.
    assert rows["pckh@0.11_compat", "all"]["value"] == pytest.approx((14 + 11 + 8) / counted.sum())


def test_pckh_counts_joints_that_a_crop_has_cut_off(mpii_sample: Path) -> None:
    pair = opened(f"tfds:{mpii_sample}", mpii_sample, margin=0.4)
    rows = measured(pair, moved(np.zeros((5, 16))), "pckh", "pck")
    assert rows["pckh@0.5", "all"]["count"] == 66
    assert rows["pck@0.05", "all"]["count"] < 60


@pytest.mark.parametrize(("name", "metric", "epochs"), [("mpii_coco", "ap", 150), ("coco_mpii", "pckh@0.5", 135)])
def test_published_pairs_join_their_data_and_are_measured(
    name: str, metric: str, epochs: int, mpii_sample: Path, pack: Callable[[str], Path]
) -> None:
    root = mpii_sample.parents[1]
    unpacked(pack("coco_mini_and_munch.tar"), "coco_mini", root).rename(root / "coco")
    config = pairs.PAIRS[name]().config
    configs.validate(config)
    data = config.data
    pair = domains.open_pair(
        source=data.source,
        target=data.target,
        root=str(root),
        image_size=SIZE,
        margin=data.margin,
        memory=0,
        seed=0,
    )
    assert set(pair.skeleton.joints) == set(COMMON12.joints)
    rows = measured(pair, lambda fields: Predictions(points=fields["keypoints"]), metric.partition("@")[0])
    # Of two people only the face is labelled: boxes with nobody to find, whose points are nowhere.
    value, count = (0.98, 66) if metric == "ap" else (1.0, 12 * 3 + 10 * 2)  # people; labelled joints of the limbs
    assert value <= rows[metric, "all"]["value"] <= 1
    assert rows[metric, "all"]["count"] == count
    assert config.steps == dict.fromkeys(("pretrain", "adapt"), epochs * 695 // 2)
    assert config.metrics[0] == metric.partition("@")[0]
    assert config.flip_test
    rate = optimizers.inverse_schedule(optimizers.peak("adam", config.optim), config.steps["adapt"], config.optim)
    assert float(rate(jnp.int32(config.steps["adapt"] - 1))) == pytest.approx(1e-4)
