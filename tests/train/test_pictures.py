"""Pictures of stages: on several devices, of wrong shapes, and where their files were damaged since."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from test_trainer import make_run

from jaxpose.recipes.stage import Batch, Pictures, Read, State
from jaxpose.train import pictures
from jaxpose.train.run import Run


def draw(state: State, batch: Batch) -> dict[str, jax.Array]:
    images = batch["source"]["image"]
    return {"as it is": images, "inverted": 255 - images}


def with_pictures(run: Run, *, rows: int | None = 3, function: object = draw) -> Run:
    """The first stage shows images of the source."""
    source = {"source": Read(domain="source", fields=("image",), rows=rows)}
    first, *others = run.stages
    return dataclasses.replace(
        run, stages=(dataclasses.replace(first, pictures=Pictures(reads=source, draw=function)), *others)
    )


def written(run: Run) -> bytes:
    run.workdir.mkdir(exist_ok=True)
    assert pictures.draw(run, run.stages[0], run.initial_state(0, None)) == ["as it is", "inverted"]
    return (run.workdir / "pictures" / "first.png").read_bytes()


def test_two_devices_draw_as_one(tmp_path: Path) -> None:
    one, two = (with_pictures(make_run(tmp_path / str(n), devices=n)) for n in (1, 2))
    assert written(one) == written(two)


def test_of_few_images_some_come_twice(tmp_path: Path) -> None:
    run = with_pictures(make_run(tmp_path), rows=6)
    assert len(run.shown(run.stages[0])["source"][2]) == 4
    written(run)
    (sheet,) = pictures.sheets(run, {"pictures": {"first": ["as it is", "inverted"]}})
    assert sheet.stage == "first"
    assert {caption: column.shape for caption, column in sheet.columns.items()} == {
        "as it is": (6 * 32, 32, 3),
        "inverted": (6 * 32, 32, 3),
    }
    assert (sheet.columns["as it is"] + sheet.columns["inverted"] == 255).all()


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ({}, "found none"),
        ({"a": (2, 8, 8, 3), "b": (2, 8, 9, 3)}, r"found a \(2, 8, 8, 3\), b \(2, 8, 9, 3\)"),
        ({"a": (2, 8, 8)}, r"found a \(2, 8, 8\)"),
        ({"a": (2, 8, 8, 1)}, r"found a \(2, 8, 8, 1\)"),
    ],
)
def test_other_shapes_are_named(tmp_path: Path, shapes: dict[str, tuple[int, ...]], found: str) -> None:
    def wrong(state: State, batch: Batch) -> dict[str, jax.Array]:
        return {caption: jnp.zeros(shape) for caption, shape in shapes.items()}

    run = with_pictures(make_run(tmp_path), function=wrong)
    with pytest.raises(ValueError, match=f"the pictures of stage first: {found}, expected one shape"):
        pictures.draw(run, run.stages[0], run.initial_state(0, None))


@pytest.mark.parametrize("damage", ["cut", "gone", "other columns"])
def test_damaged_pictures_are_left_out_of_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    run = with_pictures(make_run(tmp_path))
    whole, path, captions = written(run), tmp_path / "pictures" / "first.png", ["as it is", "inverted"]
    if damage == "cut":
        path.write_bytes(whole[:-40])
    elif damage == "gone":
        path.unlink()
    else:
        captions.append("another")
    assert pictures.sheets(run, {"pictures": {"first": captions}}) == []
    assert f"{path}: " in capsys.readouterr().out
