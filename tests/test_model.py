import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dots import SIZE, dots_model, dotted, middles, some_places

import jaxpose
from jaxpose.metrics.metric import Predictions
from jaxpose.predict import collection
from jaxpose.recipes.stage import Evaluation


def test_points_are_pixels_of_the_images_as_they_were_given() -> None:
    places = some_places(3)
    images = [dotted(places[0]), dotted(places[1], height=90, width=120), dotted(places[2])]
    found = dots_model().predict(images)
    np.testing.assert_allclose(found.points, places, atol=0.3)
    assert found.confidence.shape == (3, 3)
    assert (found.confidence <= 1).all()
    assert found.points3d is None


def test_what_lies_outside_of_a_box_is_not_seen() -> None:
    """The square about the box, 1.5 times its longer side, is all there is."""
    places = np.array([[[30, 30], [34, 26], [26, 34]]], np.float64)
    image = dotted(places[0])
    image[:, 60:] = 255
    far = np.abs(dots_model().predict([image]).points - places).max()
    near = np.abs(dots_model().predict([image], boxes=[(20, 20, 20, 20)]).points - places).max()
    assert far > 5
    assert near < 0.1


@pytest.mark.parametrize("count", [1, 2, 5, 70])
def test_an_image_has_the_same_points_in_every_batch(count: int) -> None:
    model, places = dots_model(), some_places(70)
    images = [dotted(those) for those in places]
    alone = model.predict(images[count - 1 : count])
    among = model.predict(images[:count])
    assert among.points.shape == (count, 3, 2)
    np.testing.assert_allclose(among.points[-1], alone.points[0], atol=1e-5)


def test_nothing_is_found_in_nothing() -> None:
    found = dots_model().predict([])
    assert found.points.shape == (0, 3, 2)
    assert found.confidence.shape == (0, 3)


def test_apply_is_pure_and_maps_back_by_the_given_matrices() -> None:
    model, places = dots_model(), some_places(2)
    cuts = [model.crop(dotted(those), (10, 5, 60, 50)) for those in places]
    images, matrices = (np.stack(parts) for parts in zip(*cuts, strict=True))
    found = model.apply(model.state, jnp.asarray(images), jnp.asarray(matrices), None)
    inside = middles(model.state, {"image": jnp.asarray(images)}).points
    back = np.stack(
        [(p - m[:, 2]) @ np.linalg.inv(m[:, :2]).T for p, m in zip(np.asarray(inside), matrices, strict=True)]
    )
    np.testing.assert_allclose(found.points, back, atol=1e-4)


def test_depth_needs_the_intrinsics_of_the_image_composed_with_the_crop() -> None:
    def predict(state, fields):
        found = middles(state, fields)
        return dataclasses.replace(
            found, points3d=jnp.broadcast_to(fields["intrinsics"][:, None, 0], (*found.points.shape[:2], 3))
        )

    model = dataclasses.replace(dots_model(), evaluation=Evaluation(predict=predict, fields=("image", "intrinsics")))
    images, camera = [dotted(some_places(1)[0])], np.array([[[500, 0, 40], [0, 500, 30], [0, 0, 1]]], np.float32)
    assert model.predict(images).points3d is None
    _, matrix = model.crop(images[0])
    expected = (np.vstack([matrix, [0, 0, 1]]) @ camera[0])[0]
    np.testing.assert_allclose(model.predict(images, intrinsics=camera).points3d[0, 0], expected, rtol=1e-5)


def test_poses_in_space_need_no_points(tmp_path: Path) -> None:
    """Nor intrinsics, if the stage reads none; but there is nothing to write as keypoints of images."""

    def predict(state, fields):
        return Predictions(points3d=jnp.ones((len(fields["image"]), 3, 3)) * state.params["little"])

    model = dataclasses.replace(dots_model(little=2.0), evaluation=Evaluation(predict=predict))
    found = model.predict([dotted(those) for those in some_places(3)])
    assert found.points is None
    assert found.confidence is None
    np.testing.assert_array_equal(found.points3d, np.full((3, 3, 3), 2))
    with pytest.raises(ValueError, match="dots on none, adapt step 7: found poses in space alone, expected points"):
        collection.predict(model, [], tmp_path, formats={})


@pytest.mark.parametrize("box", [(1, 2, 3), (0, 0, 0, 5), (0, 0, np.nan, 5)])
def test_wrong_boxes_are_named(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"boxes: found .* expected x, y, width, height"):
        dots_model().predict([dotted(some_places(1)[0])], boxes=[box])


def test_as_many_boxes_as_images() -> None:
    with pytest.raises(ValueError, match="boxes: found 2, expected 1"):
        dots_model().predict([dotted(some_places(1)[0])], boxes=[None, None])


def test_a_run_is_loaded_from_the_package() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: found no run there"):
        jaxpose.load("nowhere")
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = jaxpose.lod


def test_without_scores_everything_is_sure() -> None:
    def predict(state, fields):
        return Predictions(points=middles(state, fields).points)

    model = dataclasses.replace(dots_model(), evaluation=Evaluation(predict=predict))
    assert (model.predict(np.zeros((2, SIZE, SIZE, 3), np.uint8)).confidence == 1).all()
    assert len(jax.devices()) == model.mesh.size
