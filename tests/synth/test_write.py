"""Rendered data on disk, without rendering any."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxpose import synth
from jaxpose.data import schemes
from jaxpose.data.host.windows import Window, Windows
from jaxpose.data.records import Record
from jaxpose.data.wrappers import rates_of
from jaxpose.synth.write import Synthesis, synthesize

CONFIG = Synthesis(name="made", kind="body", train=16, validation=0, test=8, image_size=32, clip_length=8)
BYTES = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
PARTS = cv2.imencode(".png", np.zeros((32, 32), np.uint8))[1].tobytes()


def drawn(config: synth.SynthConfig, index: int) -> list[Record]:
    """A clip of black images, whose joints tell the rate that motions would be sampled at."""
    joints = len(synth.skeleton(config.kind))
    return [
        Record(
            image=BYTES,
            keypoints=np.full((joints, 2), config.rate, np.float32),
            visible=np.full(joints, 2, np.uint8),
            name=f"{index}_{frame}",
            bbox=np.array([0, 0, 32, 32], np.float32),
            area=np.float32(9),
            keypoints3d=np.ones((joints, 3), np.float32),
            intrinsics=np.eye(3, dtype=np.float32),
            sequence=f"clip{index}",
            frame=frame,
            segmentation=PARTS,
        )
        for frame in range(config.clip_length)
    ]


def test_recorded_motions_are_read_in_windows_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "render_clip", drawn)
    folder = synthesize(dataclasses.replace(CONFIG, motions="walks", rate=20.0), tmp_path)
    train = schemes.open_data(f"tfds:{folder}", root=".").splits["train"]
    assert train[3]["keypoints"][0, 0] == 20.0
    np.testing.assert_array_equal(rates_of(train), np.full(16, 20.0))
    # Of 8 frames at 20 per second, the 0th, 2nd, ... are a tenth of a second apart.
    found = Windows(train, Window(((0, 1, 2),), rate=10.0))
    np.testing.assert_array_equal(found[1], [1, 3, 5])
    assert len(found) == 2 * 4
    given = schemes.open_data(f"tfds:{folder}?fps=40", root=".").splits["train"]
    np.testing.assert_array_equal(Windows(given, Window(((0, 1),), rate=10.0))[0], [0, 4])


def test_poses_that_nobody_recorded_have_no_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "render_clip", drawn)
    train = schemes.open_data(f"tfds:{synthesize(CONFIG, tmp_path)}", root=".").splits["train"]
    assert rates_of(train) is None
    with pytest.raises(ValueError, match=r"frames per second are not known, expected \?fps=NUMBER"):
        Windows(train, Window(((0, 1),), rate=10.0))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_wrong_rate_is_told_before_anything_is_written(tmp_path: Path, rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate is .*, expected 0.01 to 10000 frames per second"):
        synthesize(dataclasses.replace(CONFIG, motions="walks", rate=rate), tmp_path)
    assert not list(tmp_path.iterdir())
