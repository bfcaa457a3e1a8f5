"""POST's steps: which gradients go where, what is trusted, and what is read of the target."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BATCH, GRID, NONE, OPTIM, SIZE, Backbone, Eye, K, make_config

from jaxpose import limits
from jaxpose.data.host.windows import frame_pairs
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.losses import heatmap
from jaxpose.models import functional
from jaxpose.recipes import depths, post, reconstruction, trusted, views
from jaxpose.recipes.detector import WHOLE
from jaxpose.recipes.stage import Batch, Stage, State, Task

CHAIN = Skeleton(name="chain", joints=("a", "b", "c"), bones=(("a", "b"), ("b", "c")))
TASK = Task(skeleton=CHAIN, image_size=SIZE, augmentation=NONE)
KEY = jax.random.key(5)
SMALL = reconstruction.Reconstruction(width=2, depth=2, most=4, generator_width=2, blocks=1, vgg_width=2)
SETTINGS = post.POST(
    networks=SMALL, teacher=post.itself, evaluated=views.student, style_probability=0.0, pairs=frame_pairs(1, 1)
)


def method_of(settings: post.POST) -> post.Method:
    """The method with networks that compile in a second."""
    config = make_config(settings)
    config.steps = {"pretrain": 1, "align": 4, "warm": 4, "adapt": 8}
    config.optim = dataclasses.replace(OPTIM, momentum=0.0, weight_decay=0.0, adapt_decay=0.0, adapt_trunk_scale=1.0)
    made = post.Method.of(TASK, dataclasses.replace(config, model=_Model()), settings)
    reconstructor = made.reconstructor
    if reconstructor is not None:
        networks = {**reconstructor.networks, "perceptual": functional.network(Eye)}
        reconstructor = dataclasses.replace(reconstructor, networks=networks)
    return dataclasses.replace(made, config=config, reconstructor=reconstructor)


@dataclasses.dataclass(kw_only=True)
class _Model:
    """Two convolutions, as `tiny.make_networks` has them."""

    source_head: functional.Head = functional.keypoint_head
    target_statistics: bool = False
    weights: str | None = None

    def grid(self, image_size: int) -> Any:
        return GRID

    def trunk(self, dtype: Any) -> functional.Trunk:
        networks = {
            "backbone": functional.network(Backbone),
            "upsampling": functional.upsampling(6, 5, jnp.float32, layers=1),
        }
        return functional.Trunk(networks=networks, channels=(4, 4, 4, 6), width=5)


def batch() -> dict[str, dict[str, jax.Array]]:
    rng = np.random.default_rng(0)
    pose = rng.normal(size=(BATCH, K, 3)) * 0.15 + (0, 0, 1)
    camera = np.array([[40.0, 0, 15.5], [0, 40, 15.5], [0, 0, 1]])
    seen = pose @ camera.T
    images = rng.integers(0, 256, (BATCH + BATCH, SIZE, SIZE, 3), np.uint8)
    cameras = jnp.broadcast_to(jnp.asarray(camera, jnp.float32)[None], (BATCH, 3, 3))
    return {
        "source": {
            "image": jnp.asarray(images[:BATCH]),
            "position": jnp.arange(BATCH),
            "keypoints": jnp.asarray(seen[..., :2] / seen[..., 2:], jnp.float32),
            "visible": jnp.full((BATCH, K), 2, jnp.uint8),
            "keypoints3d": jnp.asarray(pose, jnp.float32),
            "intrinsics": cameras,
        },
        "target": {
            "image": jnp.asarray(images[BATCH:]).reshape(BATCH // 2, 2, SIZE, SIZE, 3),
            "position": jnp.arange(BATCH // 2),
            "intrinsics": cameras.reshape(BATCH // 2, 2, 3, 3),
        },
    }


def single_target(of: Batch) -> dict[str, Any]:
    """As the stage that aligns reads it."""
    frames = of["target"]["image"]
    flat = {"image": frames.reshape(-1, *frames.shape[2:]), "position": jnp.arange(BATCH)}
    return {**of, "target": flat}


@functools.cache
def aligned() -> State:
    """After one update of the stage that aligns, from weights large enough that heatmaps have peaks."""
    method = method_of(SETTINGS)
    stage = post.align(method)

    @jax.jit
    def made() -> State:
        params, stats = method.networks.init(jax.random.key(0), WHOLE)
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        leaves = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
        first = State(step=jnp.int32(0), params=jax.tree.unflatten(tree, leaves), stats=stats, optimizers={}, extra={})
        return stage.step(stage.init(jax.random.key(2), first), single_target(batch()), KEY)[0]

    return made()


@functools.cache
def started(name: str) -> tuple[post.Method, Stage, State]:
    """A stage of training on the target, and its first state."""
    method = method_of(VARIANTS[name])
    warm = name == "warm"
    stage = post.fine_tune(method, "warm" if warm else "adapt", through=STOPPED if warm else post.all_of_it)
    return method, stage, jax.jit(stage.init)(jax.random.key(3), aligned())


STOPPED = jax.lax.stop_gradient
VARIANTS = {
    "adapt": SETTINGS,
    "warm": SETTINGS,
    "averaged": dataclasses.replace(SETTINGS, teacher=post.averaged, evaluated=views.teacher),
    "flat": dataclasses.replace(SETTINGS, depth=0.0, reconstruction=0.0),
}


def stepped(stage: Stage, state: State) -> tuple[State, dict[str, jax.Array]]:
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam raises numbers to the power of its counter
        return jax.jit(stage.step)(state, batch(), KEY)


def objective(method: post.Method, params: Any, state: State, of: Batch, *, detached: jax.Array) -> jax.Array:
    """Eq. 11 in one piece, on images that are not augmented."""
    settings, networks = method.settings, method.networks
    source = method.detector.labelled(KEY, of["source"])
    student = post.frame_by_frame(views.view(KEY, of["target"], NONE))

    def found(images: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        features, _ = networks.trunk(params, state.stats, images, train=True)
        maps = networks.head("head", params["head"], state.stats, features, train=True)[0]
        return maps, networks.head("depth", params["depth"], state.stats, features, train=True)[0]

    maps, by_pixel = found(source.labels.images, params)
    expected = depths.read(maps, by_pixel, GRID, views.softmax_maps)
    total = heatmap.masked_mean(heatmap.spatial_kl(source.labels.maps, maps), source.labels.mask)
    total += heatmap.masked_mean(jnp.square(expected.depths - source.depths), source.mask)

    maps, by_pixel = found(student.images, params)
    expected = depths.read(maps, by_pixel, GRID, views.softmax_maps)
    taught = jax.lax.stop_gradient(trusted.Taught(view=student, maps=maps, depths=by_pixel))
    cameras = of["target"]["intrinsics"].reshape(-1, 3, 3)
    learned, _ = method.trust.labels(taught, student, cameras, state.extra["anatomy"], together=jnp.asarray(True))
    learned = jax.lax.stop_gradient(learned)
    total += heatmap.masked_mean(heatmap.spatial_kl(learned.maps, maps), learned.mask)
    apart = (expected.points - learned.found.points) / learned.pixels[:, None, None]
    error = jnp.sum(jnp.square(apart), axis=-1) + jnp.square(expected.depths - learned.found.depths)
    total += 0.1 * heatmap.masked_mean(error, learned.found_mask)

    points = jnp.where(detached, jax.lax.stop_gradient(expected.points), expected.points)
    frames = student.images.reshape(-1, 2, SIZE, SIZE, 3)
    reconstructor = method.reconstructor
    assert reconstructor is not None
    made, _ = reconstructor(params, state.stats, frames, points.reshape(-1, 2, K, 2), train=True)
    return total + settings.reconstruction * jnp.mean(reconstructor.loss(params, made))


@functools.cache
def gradients() -> Any:
    """Of the whole, by parameters, state, and whether the reconstruction is detached; compiled once."""
    method, _, _ = started("adapt")
    return jax.jit(jax.grad(lambda p, state, detached: objective(method, p, state, batch(), detached=detached)))


@pytest.mark.parametrize("name", ["adapt", "warm"])
def test_an_update_is_the_gradient_of_the_whole(name: str) -> None:
    """Terms that meet at the features add up to what one gradient of their sum is; none reaches what it should not."""
    _, stage, state = started(name)
    state = dataclasses.replace(state, step=jnp.int32(6))  # of 12, or 6 of 4: both trusts together
    after, metrics = stepped(stage, state)
    grads = gradients()(state.params, state, name == "warm")
    for network in (*WHOLE, "depth"):
        scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads[network]))
        jax.tree.map(
            lambda p, q, g, scale=scale: np.testing.assert_allclose(
                (p - q) / OPTIM.learning_rate, g, atol=2e-3 * scale
            ),
            state.params[network],
            after.params[network],
            grads[network],
        )
    for network in reconstruction.TRAINED:
        moved = jax.tree.map(lambda p, q: float(jnp.abs(p - q).max()), state.params[network], after.params[network])
        assert max(jax.tree.leaves(moved)) == pytest.approx(2e-3, rel=0.05)  # Adam's first step
    jax.tree.map(np.testing.assert_array_equal, state.params["perceptual"], after.params["perceptual"])
    reached = float(metrics["gradient/reconstruction"])
    assert (reached == 0) == (name == "warm")
    assert float(metrics["gradient/supervision"]) > 0
    assert float(metrics["gradient/pseudo_labels"]) > 0
    assert all(bool(jnp.isfinite(value)) for value in metrics.values())


def test_the_teacher_is_the_average_and_labels_in_its_own_view() -> None:
    _, stage, state = started("averaged")
    after, metrics = stepped(stage, state)
    assert float(metrics["pseudo_labels"]) > 0
    teacher = after.extra["teacher"]["params"]
    # At the first step of training on the target, here the fifth, the teacher keeps 1 - 1 / 5 of itself.
    before = state.extra["teacher"]["params"]["head"]
    expected = jax.tree.map(lambda a, b: 0.8 * a + 0.2 * b, before, after.params["head"])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), teacher["head"], expected)


def test_without_depths_nothing_is_read_or_found_in_space() -> None:
    method, stage, state = started("flat")
    assert method.reconstructor is method.detector.body is None
    assert stage.reads["source"].fields == ("image", "keypoints", "visible")
    assert stage.reads["target"].fields == ("image",)
    assert stage.reads["target"].window is None
    with jax.numpy_dtype_promotion("standard"):
        _, metrics = jax.eval_shape(stage.step, state, single_target(batch()), KEY)
    assert not {"loss/depth", "loss/target_depth", "loss/reconstruction"} & set(metrics)


def test_labels_of_the_target_are_not_read() -> None:
    _, stage, _ = started("adapt")
    assert stage.reads["target"].fields == ("image", "intrinsics")
    assert stage.reads["target"].rows == BATCH // 2


def test_stages_and_steps() -> None:
    settings = dataclasses.replace(SETTINGS)
    steps = settings.share_out({"pretrain": 9, "adapt": 30})
    assert steps == {"pretrain": 9, "align": 30, "warm": 10, "adapt": 20}
    assert dataclasses.replace(settings, reconstruction=0.0).share_out({"pretrain": 9, "adapt": 30})["adapt"] == 30
    limits.check(settings, "config.method")
    limits.check(post.published_settings(None), "config.method")


def test_batches_are_of_pairs() -> None:
    method = method_of(SETTINGS)
    method.config.data.batch_size = 3
    with pytest.raises(ValueError, match=r"config.data.batch_size: found 3, expected a multiple of 2: half as many"):
        post.fine_tune(method, "adapt", through=post.all_of_it)
