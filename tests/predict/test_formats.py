"""What is written is read back by the tools that own the formats, or as they document them."""

import io
import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from dots import JOINTS, dots_model, dotted, some_places, write_images, write_video
from pycocotools.coco import COCO

from jaxpose.data.readers import deeplabcut, lightning, sleap
from jaxpose.predict import collection, recordings
from jaxpose.predict.asked import formats_of
from jaxpose.predict.formats import WRITERS

SCORER = "DLC_jaxpose_dots_none_adapt7"


def predict(spec: str, output: Path, formats: str) -> np.ndarray:
    """Writes predictions; returns x, y and confidence as the model itself finds them, (N, A, K, 3)."""
    (one,) = recordings.find(spec, root=".", skeleton=JOINTS)
    collection.predict(
        dots_model(), [one], output, formats={name: WRITERS[name] for name in formats_of(formats)}, say=lambda _: None
    )
    recording = one.open()
    values = np.full((len(recording), recording.animals, 3, 3), np.nan, np.float32)
    for i in range(len(recording)):
        record = recording.source[i]
        for a, box in enumerate(recording.boxes_of(i, record)):
            found = dots_model().predict([record["image"]], boxes=[box])
            values[i, a] = np.concatenate([found.points[0], found.confidence[0][:, None]], axis=-1)
    return values


@pytest.fixture
def video(tmp_path: Path) -> str:
    write_video(tmp_path / "clip.avi", some_places(5))
    return str(tmp_path / "clip.avi")


@pytest.fixture
def two_animals(tmp_path: Path) -> str:
    """Images of one or two animals, each in its box, of which COCO's annotations tell."""
    images, annotations = [], []
    folder = tmp_path / "pairs"
    folder.mkdir()
    for i in range(3):
        left, right = (dotted(p - (10, 0) if side else p) for side, p in enumerate(some_places(2, seed=i)))
        name = f"img{i}.png"
        cv2.imwrite(str(folder / name), cv2.cvtColor(np.hstack([left, right]), cv2.COLOR_RGB2BGR))
        images.append({"id": 40 + i, "file_name": name})
        boxes = [[10, 0, 60, 60], [90, 0, 55, 60]][: 1 if i == 1 else 2]
        annotations += [{"id": len(annotations), "image_id": 40 + i, "bbox": box} for box in boxes]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return f"{folder}?boxes={tmp_path / 'boxes.json'}"


def test_deeplabcut_reads_the_table_and_its_h5(video: str, tmp_path: Path) -> None:
    expected = predict(video, tmp_path / "out", "dlc")
    path = tmp_path / "out" / f"clip{SCORER}.csv"
    table = pd.read_csv(path, header=[0, 1, 2], index_col=0)
    assert table.columns.names == ["scorer", "bodyparts", "coords"]
    assert list(table.columns) == [(SCORER, joint, c) for joint in JOINTS.joints for c in ("x", "y", "likelihood")]
    assert table.index.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(table.to_numpy().reshape(expected.shape), expected, atol=1e-4)
    # The text is what pandas writes of the same columns, which is how DeepLabCut makes it.
    columns = pd.MultiIndex.from_product(
        [[SCORER], JOINTS.joints, ["x", "y", "likelihood"]], names=["scorer", "bodyparts", "coords"]
    )
    text = io.StringIO()
    pd.DataFrame(expected.reshape(5, 9).astype(float), columns=columns).to_csv(text)
    assert path.read_text().splitlines()[:3] == text.getvalue().splitlines()[:3]
    stored = pd.read_hdf(path.with_suffix(".h5"), "df_with_missing")
    assert isinstance(stored, pd.DataFrame)
    assert stored.columns.equals(columns)
    np.testing.assert_allclose(stored.to_numpy().reshape(expected.shape), expected, atol=1e-4)
    assert stored.dtypes.eq("float64").all()


def test_predictions_are_labels_in_the_folder_of_a_project(tmp_path: Path) -> None:
    """With the images in `labeled-data`, DeepLabCut's and Lightning Pose's readers read the tables as they are."""
    root = tmp_path / "project"
    write_images(root / "labeled-data" / "one", some_places(4))
    expected = predict(f"images:{root}", tmp_path / "out", "dlc,lightning")
    written = tmp_path / "out" / f"project{SCORER}.csv"
    written.rename(root / "labeled-data" / "one" / "CollectedData_me.csv")
    (tmp_path / "out" / "project.csv").rename(root / "CollectedData.csv")
    for source in (deeplabcut.read(root), lightning.read(root)["train"]):
        assert source.skeleton.joints == JOINTS.joints
        assert [source.name(i) for i in range(4)] == [f"labeled-data/one/img{i:03d}.png" for i in range(4)]
        np.testing.assert_allclose(
            np.stack([source[i]["keypoints"] for i in range(4)]), expected[:, 0, :, :2], atol=1e-3
        )


def test_lightning_pose_reads_its_table(video: str, tmp_path: Path) -> None:
    expected = predict(video, tmp_path / "out", "lightning")
    table = pd.read_csv(tmp_path / "out" / "clip.csv", header=[0, 1, 2], index_col=0)
    assert table.columns.get_level_values("coords")[:3].tolist() == ["x", "y", "likelihood"]
    np.testing.assert_allclose(table.to_numpy().reshape(expected.shape), expected, atol=1e-4)


def test_several_animals_are_individuals(two_animals: str, tmp_path: Path) -> None:
    expected = predict(two_animals, tmp_path / "out", "dlc,coco,slp,parquet")
    assert expected.shape == (3, 2, 3, 3)
    path = tmp_path / "out" / f"pairs{SCORER}.csv"
    table = pd.read_csv(path, header=[0, 1, 2, 3], index_col=0)
    assert table.columns.names == ["scorer", "individuals", "bodyparts", "coords"]
    np.testing.assert_allclose(table.to_numpy().reshape(expected.shape), expected, atol=1e-4)
    stored = pd.read_hdf(path.with_suffix(".h5"))
    assert isinstance(stored, pd.DataFrame)
    assert stored.index.tolist() == ["img0.png", "img1.png", "img2.png"]
    np.testing.assert_allclose(stored.to_numpy().reshape(expected.shape), expected, atol=1e-4)
    assert np.isnan(expected[1, 1]).all()
    assert len(json.loads((tmp_path / "out" / "pairs.coco.json").read_text())) == 5
    with h5py.File(tmp_path / "out" / "pairs.slp") as file:
        assert file["frames"]["instance_id_end"].tolist() == [2, 3, 5]
    with pytest.raises(ValueError, match=r"--formats=lightning: found 2 boxes in a frame, expected one"):
        predict(two_animals, tmp_path / "other", "lightning")


def test_cocos_own_api_takes_the_results(video: str, tmp_path: Path) -> None:
    expected = predict(video, tmp_path / "out", "coco")
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i} for i in range(5)],
        "annotations": [],
        "categories": [{"id": 1, "name": "dots", "keypoints": list(JOINTS.joints)}],
    }
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / "out" / "clip.coco.json"))
    for i in range(5):
        (found,) = loaded.loadAnns(loaded.getAnnIds(imgIds=[i]))
        np.testing.assert_allclose(np.reshape(found["keypoints"], (3, 3)), expected[i, 0], atol=1e-4)
        assert found["score"] == pytest.approx(expected[i, 0, :, 2].mean(), abs=1e-4)


def test_sleap_projects_hold_predicted_instances(video: str, tmp_path: Path) -> None:
    expected = predict(video, tmp_path / "out", "slp")
    path = tmp_path / "out" / "clip.slp"
    with h5py.File(path) as file:
        assert file["metadata"].attrs["format_id"] == pytest.approx(1.2)
        frames, instances, points = (file[name][()] for name in ("frames", "instances", "pred_points"))
        assert len(file["points"]) == 0
        backend = json.loads(file["videos_json"][0])["backend"]
    assert backend["filename"] == video
    assert frames["frame_idx"].tolist() == [0, 1, 2, 3, 4]
    assert instances["instance_type"].tolist() == [1] * 5
    assert instances["track"].tolist() == [-1] * 5
    assert instances["frame_id"].tolist() == frames["frame_id"].tolist()
    for frame in frames:
        (instance,) = instances[frame["instance_id_start"] : frame["instance_id_end"]]
        found = points[instance["point_id_start"] : instance["point_id_end"]]
        values = np.stack([found["x"], found["y"], found["score"]], axis=-1)
        np.testing.assert_allclose(values, expected[frame["frame_idx"], 0], atol=1e-4)
    with pytest.raises(ValueError, match="found 5 instances, none of a user"):
        sleap.read(path)
    # Made labels of a user, as correcting them in SLEAP does, they are read as such, with skeleton and images.
    with h5py.File(path, "r+") as file:
        corrected = file["instances"][()]
        corrected["instance_type"] = 0
        file["instances"][...] = corrected
        del file["points"]
        file["points"] = points[["x", "y", "visible", "complete"]]
    source = sleap.read(path)
    assert source.skeleton.joints == JOINTS.joints
    assert source.skeleton.bones == JOINTS.bones
    np.testing.assert_allclose(source[3]["keypoints"], expected[3, 0, :, :2], atol=1e-3)
    assert source[3]["image"].shape == (60, 80, 3)


def test_parquet_is_tidy(video: str, tmp_path: Path) -> None:
    expected = predict(video, tmp_path / "out", "parquet")
    table = pyarrow.parquet.read_table(tmp_path / "out" / "clip.parquet").to_pandas()
    assert list(table.columns) == ["frame", "image", "animal", "joint", "x", "y", "confidence"]
    assert table["joint"].tolist() == list(JOINTS.joints) * 5
    assert table["frame"].tolist() == np.repeat(np.arange(5), 3).tolist()
    np.testing.assert_allclose(table[["x", "y", "confidence"]].to_numpy().reshape(expected.shape), expected, atol=1e-5)


def test_frames_that_were_chosen_keep_their_numbers(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", some_places(9))
    predict(f"video:{tmp_path / 'clip.avi'}?frames=3", tmp_path / "out", "dlc,coco")
    table = pd.read_csv(tmp_path / "out" / f"clip{SCORER}.csv", header=[0, 1, 2], index_col=0)
    assert table.index.tolist() == [1, 4, 7]
    assert [entry["image_id"] for entry in json.loads((tmp_path / "out" / "clip.coco.json").read_text())] == [1, 4, 7]


@pytest.mark.parametrize(("name", "package"), [("slp", "h5py"), ("parquet", "pyarrow")])
def test_what_is_not_installed_is_named(
    name: str, package: str, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=rf"--formats={name}: .*pip install"):
        predict(video, tmp_path / "out", name)
