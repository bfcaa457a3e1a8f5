"""What is found wrong before the first update."""

import dataclasses
from pathlib import Path

import pytest

from jaxpose import pairs
from jaxpose.recipes import mean_teacher, regda, style
from jaxpose.train import trainer


def test_images_of_which_none_can_be_decoded_are_found_out_before_training(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (photos / name).write_bytes(b"no picture")
    config = dataclasses.replace(pairs.bodies().quick().config, method=regda.RegDA())
    config.data = dataclasses.replace(
        config.data,
        source="bodies:studio?train=4&validation=0&test=4",
        target=f"images:{photos}",
    )
    workdir = tmp_path / "run"
    message = r"^data\.target=images:.*photos: train: .*none of 2 images can be decoded; .*a\.jpg: 10 bytes"
    with pytest.raises(ValueError, match=message):
        trainer.train(config, workdir, show=False)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            "pckh",
            r"^PCKh cannot be measured on data\.target=bodies:street.*: test: found no head_size, expected",
        ),
        ("ap", r"^OKSAP cannot be measured on data\.target=bodies:street.*: test: found no area, expected"),
        ("mpjpe", r"^config\.metrics: found MPJPE, expected metrics of what regda finds: points, peaks, scores$"),
    ],
)
def test_a_metric_that_cannot_be_measured_is_named_before_training(metric: str, message: str, tmp_path: Path) -> None:
    config = dataclasses.replace(pairs.bodies().quick().config, method=regda.RegDA(), metrics=("pck", metric))
    config.data = dataclasses.replace(
        config.data,
        source="bodies:studio?train=4&validation=0&test=4",
        target="bodies:street?train=4&validation=0&test=4",
    )
    workdir = tmp_path / "run"
    with pytest.raises(ValueError, match=message):
        trainer.train(config, workdir, show=False)
    assert not workdir.exists()


def test_a_file_that_a_later_stage_reads_is_missed_before_the_first(tmp_path: Path) -> None:
    method = mean_teacher.MeanTeacher(style_network=style.Style(vgg=str(tmp_path / "vgg.pth")))
    config = dataclasses.replace(pairs.bodies().quick().config, method=method)
    config.data = dataclasses.replace(config.data, source="bodies:studio?train=8", target="bodies:street?train=8")
    config.steps = {**config.steps, "style": 1}
    with pytest.raises(FileNotFoundError, match=r"vgg.pth: no such file, expected the weights that the stage style"):
        trainer.train(config, tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()
