from pathlib import Path

import av
import cv2
import numpy as np
from dots import JOINTS, dots_model, dotted, some_places, write_images, write_video

from jaxpose.predict import collection, pictures, recordings
from jaxpose.predict.formats import WRITERS
from jaxpose.report.draw import LEFT


def predict(spec: Path, output: Path) -> None:
    inputs = recordings.find(str(spec), root=".", skeleton=JOINTS)
    collection.predict(
        dots_model(), inputs, output, formats={"coco": WRITERS["coco"]}, pictures=True, say=lambda _: None
    )


def test_the_video_has_every_frame_and_its_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", some_places(21))
    predict(tmp_path / "clip.avi", tmp_path / "out")
    with av.open(str(tmp_path / "out" / "clip.overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 10
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 21
    assert frames[0].shape == (256, 340, 3)  # of 60 x 80
    sheet = cv2.imread(str(tmp_path / "out" / "clip.sheet.jpg"))
    assert sheet is not None
    assert sheet.shape == (1280, 1280, 3)
    assert all(sheet[y : y + 320, x : x + 320].max() > 100 for y in range(0, 1280, 320) for x in range(0, 1280, 320))


def test_images_are_drawn_one_by_one(tmp_path: Path) -> None:
    write_images(tmp_path / "images", some_places(3))
    predict(tmp_path / "images", tmp_path / "out")
    written = sorted(path.name for path in (tmp_path / "out" / "images.overlay").iterdir())
    assert written == ["0_img000.jpg", "1_img001.jpg", "2_img002.jpg"]


def test_joints_are_drawn_where_they_are_and_unsure_ones_as_rings() -> None:
    """An image of 60 x 80 is enlarged by 256 / 60."""
    places = np.array([[20, 20], [60, 20], [40, 45]], np.float64)
    skeleton = JOINTS.__class__(name="a", joints=JOINTS.joints, flips=(("left_red", "right_green"),))
    image = np.full_like(dotted(places), 120)

    def centre(confidence: float) -> np.ndarray:
        values = np.concatenate([places, np.full((3, 1), confidence)], axis=-1)[None].astype(np.float32)
        canvas = pictures.drawn(image, values, skeleton)
        x, y = np.round((places[0] + 0.5) * (np.array(canvas.shape[1::-1]) / (80, 60)) - 0.5).astype(int)
        return canvas[y, x]

    assert centre(0.9).tolist() == list(LEFT)
    assert centre(0.1).tolist() != list(LEFT)
    missing = np.full((1, 3, 3), np.nan, np.float32)
    assert (pictures.drawn(image, missing, skeleton) == 120).all()
