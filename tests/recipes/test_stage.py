"""The contracts, by recipes of a few lines: windows, updates in turn, 3D predictions, what is carried."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small
import test_deeplabcut
from absl import flags
from tiny import make_networks

from jaxpose.config import Config, Data
from jaxpose.data.host.windows import Windows, consecutive, frame_pairs
from jaxpose.data.motion import rigs
from jaxpose.metrics import MPJPE, PCK
from jaxpose.metrics.metric import Measurement, Predictions, Scale
from jaxpose.models.simple_baseline import SimpleBaseline
from jaxpose.recipes.stage import (
    Batch,
    Evaluation,
    Metrics,
    Pictures,
    Read,
    Stage,
    State,
    Step,
    Task,
    Update,
    initial_state,
    next_state,
    reads,
)
from jaxpose.train import build, trainer

POSES = {"poses": Read(domain="source", fields=("keypoints3d", "intrinsics", "index"), rows=2, window=consecutive(3))}
SEEN = []  # shapes of what `Toy` was given to predict from
PAIRS = {"pairs": Read(domain="target", fields=("image",), window=frame_pairs(2, 4))}


def noting(update: str, word: str, field: str) -> Step:
    """Counts the updates of a kind, and keeps the mean of a field of what they read."""

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        value = jnp.mean(batch[word][field].astype(jnp.float32))
        own = {"count": state.params[update]["count"] + 1, "sum": state.params[update]["sum"] + value}
        return dataclasses.replace(state, params=state.params | {update: own}), {f"loss/{update}": value}

    return step


def picture(state: State, batch: Batch) -> dict[str, jax.Array]:
    """Images as they are, the mean of both frames, and what the state knows."""
    first, mean = (
        batch["pairs"]["image"][:, 0],
        jnp.mean(batch["pairs"]["image"].astype(jnp.float32), axis=1) / 255,
    )
    grey = 10 * state.params["poses"]["count"] + batch["source"]["index"]
    return {
        "source": batch["source"]["image"],
        "first frame": first,
        "mean of both": mean,
        "updates": jnp.broadcast_to(grey.astype(jnp.uint8)[:, None, None, None], first.shape),
    }


@dataclasses.dataclass(kw_only=True)
class Toy:
    """Two updates in turn, one on windows of 3D poses and one on pairs of frames; then a stage on single frames."""

    name: str = "toy"

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        def init(key: jax.Array, previous: State | None) -> State:
            zero = {"count": jnp.zeros((), jnp.int32), "sum": jnp.zeros(())}
            kept = {} if previous is None else previous.params
            return initial_state(params={"poses": zero, "pairs": zero} | kept, stats={}, optimizers={})

        def lift(state: State, fields: Mapping[str, jax.Array]) -> Predictions:
            """What is known, with the pose twice as large and turned: nothing of it is an error of PA-MPJPE."""
            SEEN.append({name: x.shape for name, x in fields.items()})
            turn = jnp.asarray([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
            return Predictions(points=fields["keypoints"], points3d=2 * fields["keypoints3d"] @ turn + 1)

        three = tuple(MPJPE(align=align) for align in ("root", "similarity"))
        first = Stage(
            name="first",
            steps=config.steps["first"],
            init=init,
            pictures=Pictures(reads=PAIRS | reads(source=("image", "index")), draw=picture),
            updates=(
                Update(reads=POSES, step=noting("poses", "poses", "keypoints3d")),
                Update(reads=PAIRS, step=noting("pairs", "pairs", "image")),
            ),
        )
        second = Stage(
            name="second",
            steps=config.steps["second"],
            init=init,
            updates=(Update(reads=reads(source=("keypoints",)), step=noting("poses", "source", "keypoints")),),
            evaluations=(
                Evaluation(
                    predict=lift,
                    domains=("target",),
                    fields=("keypoints", "keypoints3d"),
                    window=consecutive(3),
                    metrics=(*three, PCK(size=32, thresholds=(0.1,))),
                ),
            ),
        )
        return first, second


def make_config(method: Toy) -> Config:
    return Config(
        method=method,
        steps={"first": 5, "second": 2},
        eval_every=2,
        checkpoint_every=2,
        log_every=2,
        data=Data(
            source="bodies:studio?train=24&validation=8&test=8",
            target="bodies:street?train=24&validation=0&test=16",
            image_size=32,
            batch_size=4,
            eval_batch_size=4,
        ),
        model=SimpleBaseline(depth=18, width=4, head_width=4),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    workdir = tmp_path_factory.mktemp("toy")
    return workdir, trainer.train(make_config(Toy()), workdir, show=False)


def test_updates_in_turn_read_their_own_windows(trained: tuple[Path, dict]) -> None:
    workdir, _ = trained
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    first = [line for line in lines if line["stage"] == "first"]
    assert [(line["step"], "loss/poses" in line, "loss/pairs" in line) for line in first] == [
        (2, True, True),
        (4, True, True),
        (5, True, False),
    ]
    assert all(2.0 < line["loss/pairs"] < 255 for line in first if "loss/pairs" in line)


def test_frames_of_windows_are_evaluated_in_3d_and_2d(trained: tuple[Path, dict]) -> None:
    workdir, results = trained
    assert {(row["stage"], row["domain"], row["split"]) for row in results["evaluations"]} == {
        ("second", "target", "test")
    }
    rows = {(row["metric"], row["group"]): row for row in results["evaluations"]}
    windows = 2 * (8 - 2)  # of three frames in two clips of eight
    joints = len(results["joints"])
    assert rows["pa_mpjpe", "all"]["count"] == windows * 3 * joints
    assert rows["pa_mpjpe", "all"]["value"] < 0.1
    assert rows["mpjpe", "all"]["value"] > 100
    assert rows["pck@0.1", "all"]["value"] == 1.0
    assert all(shapes["keypoints3d"] == (4, 3, joints, 3) for shapes in SEEN)
    assert all("image" not in shapes for shapes in SEEN)  # no pixel was asked for
    assert np.load(workdir / "predictions" / "second_target_test_points3d_of_windows.npy").shape == (
        windows,
        3,
        joints,
        3,
    )


def test_a_stage_leaves_its_pictures(trained: tuple[Path, dict]) -> None:
    """Of validation images of the source, and of training images of the target, which has no others."""
    workdir, results = trained
    captions = ["source", "first frame", "mean of both", "updates"]
    assert results["pictures"] == {"first": captions}
    sheet = cv2.imread(str(workdir / "pictures" / "first.png"))[..., ::-1]
    source, first, mean, updates = np.split(sheet, 4, axis=1)
    run = build.build(make_config(Toy()), workdir)
    validation, train = (run.pair.domains[n].splits[s] for n, s in (("source", "validation"), ("target", "train")))
    np.testing.assert_array_equal(source, np.concatenate([validation[i]["image"] for i in (0, 2, 4, 7)]))
    windows = Windows(train.source, PAIRS["pairs"].window)
    cropped = run.shown(run.stages[0])["pairs"][2]  # both frames in one square
    assert cropped.windows is not None
    for row, i in enumerate(np.linspace(0, len(windows) - 1, 4).astype(int)):
        expected, place = cropped[int(i)]["image"], slice(32 * row, 32 * row + 32)
        np.testing.assert_array_equal(cropped.windows[int(i)], windows[int(i)])
        np.testing.assert_array_equal(first[place], expected[0])
        np.testing.assert_allclose(mean[place], expected.mean(axis=0), atol=0.51)
    assert np.unique(updates).tolist() == [30, 32, 34, 37]
    report = (workdir / "report.html").read_text()
    assert "Pictures of the stage first" in report
    assert all(f"<figcaption>{caption}</figcaption>" in report for caption in captions)


def test_a_stopped_run_goes_on_from_the_end_of_a_stage(trained: tuple[Path, dict], tmp_path: Path) -> None:
    whole, results = trained
    config = make_config(Toy())
    config.checkpoint_every = 3
    workdir = tmp_path / "run"
    trainer.train(config, workdir, show=False)
    shutil.rmtree(workdir / "checkpoints" / "7")  # what is left is of step 5, the last of the first stage
    for name in ("results.json", "report.html"):
        (workdir / name).unlink()
    again = trainer.train(config, workdir, show=False)
    assert again["fingerprint"] == results["fingerprint"]
    assert again["pictures"] == results["pictures"]
    drawn = [(folder / "pictures" / "first.png").read_bytes() for folder in (workdir, whole)]
    assert drawn[0] == drawn[1]


def test_what_is_missing_is_said_before_the_first_step(tmp_path: Path) -> None:
    class Wrong(Toy):
        def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
            first, second = super().stages(task, config)
            (update,) = second.updates
            labelled = dataclasses.replace(update, reads={"more": Read(domain="labelled", fields=("image",))})
            return first, dataclasses.replace(second, updates=(labelled,))

    class Shown(Toy):
        def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
            first, second = super().stages(task, config)
            shown = Pictures(reads={"more": Read(domain="labelled", fields=("image",))}, draw=picture)
            return first, dataclasses.replace(second, pictures=shown)

    for wrong in (Wrong(), Shown()):
        with pytest.raises(ValueError, match=r"config.data.labelled: found none, expected SCHEME:PATH or a number of"):
            trainer.train(make_config(wrong), tmp_path / "run", show=False)
        assert not (tmp_path / "run").exists()


def test_a_word_means_one_thing() -> None:
    updates = tuple(
        Update(reads={"a": read}, step=noting("poses", "a", "image")) for read in (*PAIRS.values(), *POSES.values())
    )
    with pytest.raises(ValueError, match="the stage twice: found several meanings of the word a"):
        Stage(name="twice", steps=1, init=lambda key, previous: previous, updates=updates)


def test_a_domain_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    config = make_config(Toy())
    config.data.labelled = "bodies:street?train=4"
    with pytest.raises(ValueError, match=r"config.data.labelled: found bodies.*, expected none: no stage of toy reads"):
        trainer.train(config, tmp_path / "run", show=False)


def test_three_domains_are_read_side_by_side(tmp_path: Path) -> None:
    class Three(Toy):
        def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
            first, stage = super().stages(task, config)
            few = {"few": Read(domain="labelled", fields=("keypoints",), rows=2)}
            own = reads(source=("keypoints",), target=("image",)) | few
            seen = noting("poses", "few", "keypoints")

            def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
                assert {word: set(fields) for word, fields in batch.items()} == {
                    "source": {"keypoints", "position"},
                    "target": {"image", "position"},
                    "few": {"keypoints", "position"},
                }
                assert batch["few"]["keypoints"].shape[0] == 2
                return seen(state, batch, key)

            return first, dataclasses.replace(stage, evaluations=(), updates=(Update(reads=own, step=step),))

    config = make_config(Three())
    config.data.labelled, config.steps["first"] = "bodies:street?train=4", 1
    results = trainer.train(config, tmp_path / "run", show=False)
    assert results["evaluations"] == []


def test_networks_are_carried_unless_they_are_named() -> None:
    networks = make_networks()
    names = ("backbone", "upsampling", "head")
    rule = optax.sgd(0.1)
    first = next_state(jax.random.key(0), None, networks, dict.fromkeys(names, rule), fresh=names)
    moved = dataclasses.replace(first, step=jnp.int32(7), params=jax.tree.map(lambda x: x + 1, first.params))
    after = next_state(
        jax.random.key(1),
        moved,
        networks,
        {"head": rule},
        fresh=("head",),
        renamed={"head_adv": "head"},
        dropped=("upsampling",),
    )
    assert int(after.step) == 0
    assert set(after.params) == set(after.stats) == {"backbone", "head", "head_adv"}
    jax.tree.map(np.testing.assert_array_equal, after.params["backbone"], moved.params["backbone"])
    jax.tree.map(np.testing.assert_array_equal, after.params["head_adv"], moved.params["head"])
    assert not np.array_equal(after.params["head"]["conv2"]["kernel"], moved.params["head"]["conv2"]["kernel"])
    assert set(after.optimizers) == {"head"}


JOINTS = tuple(joint for joint in rigs.CANONICAL if joint in rigs.CMU_BVH)
WALKS = Read(domain="motions", fields=("positions", "pelvis"), rows=4, window=consecutive(30, rate=30.0))


@dataclasses.dataclass(kw_only=True)
class Priors:
    """Motions without images: five updates in turn, each of which learns the mean positions of one frame in five."""

    name: str = "priors"

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        joints, rule = len(task.skeletons["motions"]), optax.sgd(0.5)

        def init(key: jax.Array, previous: State | None) -> State:
            params = {f"part{part}": jnp.zeros((6, joints, 3)) for part in range(5)}
            return initial_state(params=params, stats={}, optimizers={n: rule.init(p) for n, p in params.items()})

        def reconstruct(state: State, fields: Mapping[str, jax.Array]) -> Predictions:
            whole = jnp.stack([state.params[f"part{part}"] for part in range(5)], axis=1).reshape(1, 30, joints, 3)
            return Predictions(points3d=jnp.broadcast_to(whole, fields["positions"].shape))

        def learn(part: int) -> Step:
            name = f"part{part}"

            def error(mean: jax.Array, seen: jax.Array) -> jax.Array:
                return jnp.mean(jnp.sum((mean[None] - seen) ** 2, axis=(1, 2, 3)))

            def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
                assert set(batch["walks"]) == {"positions", "pelvis", "position"}
                seen = batch["walks"]["positions"][:, part::5]
                loss, grad = jax.value_and_grad(error)(state.params[name], seen)
                moved, optimizer = rule.update(grad, state.optimizers[name])
                params = state.params | {name: optax.apply_updates(state.params[name], moved)}
                optimizers = state.optimizers | {name: optimizer}
                return dataclasses.replace(state, params=params, optimizers=optimizers), {f"loss/{part}": loss}

            return step

        pelvis = task.skeletons["motions"].joints.index("pelvis")
        measured = Evaluation(
            predict=reconstruct,
            domains=("motions",),
            fields=("positions",),
            window=WALKS.window,
            metrics=tuple(MPJPE(align=align, root=pelvis) for align in ("root", "similarity")),
        )
        updates = tuple(Update(reads={"walks": WALKS}, step=learn(part)) for part in range(5))
        steps = config.steps["prior"]
        return (Stage(name="prior", steps=steps, init=init, updates=updates, evaluations=(measured,)),)


def write_walks(root: Path, count: int = 6) -> None:
    """Bodies that stand, each at another height over its hips, and one file that is none."""
    for number in range(count):
        places = [(t, 17 + number, 0) for t in range(60)]
        (root / f"walk{number}.bvh").write_text(small.bvh(places, seconds=1 / 60))
    (root / "broken.bvh").write_text("HIERARCHY")


def motions_config(root: Path, spec: str = "bvh:.", steps: int = 17, **data: object) -> Config:
    config = make_config(Toy())
    return dataclasses.replace(
        config,
        method=Priors(),
        steps={"prior": steps},
        eval_every=10,
        checkpoint_every=4,
        data=dataclasses.replace(config.data, motions=spec, root=str(root), **data),
    )


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict]:
    root, workdir = tmp_path_factory.mktemp("walks"), tmp_path_factory.mktemp("priors")
    write_walks(root)
    return root, workdir, trainer.train(motions_config(root), workdir, show=False)


def test_motions_are_learnt_in_windows_and_measured_by_motion(walked: tuple[Path, Path, dict]) -> None:
    _, workdir, results = walked
    rows = {(row["metric"], row["group"]): row for row in results["evaluations"]}
    assert {(row["stage"], row["domain"], row["split"]) for row in results["evaluations"]} == {
        ("prior", "motions", "test")
    }
    windows = (60 - 59) // 2 + 1  # of 30 frames at 30 per second in 60 at 60
    assert rows["mpjpe", "all"]["count"] == windows * 30 * len(JOINTS)
    assert rows["mpjpe", "all"]["value"] < 1.0  # all stand alike
    assert rows["pa_mpjpe", "all"]["value"] < 1.0
    assert ("mpjpe", "joint:left_collar") in rows
    assert results["references"]["mean pose"] == []
    points = np.load(workdir / "predictions" / "prior_motions_test_points3d_of_windows.npy")
    assert points.shape == (windows, 30, len(JOINTS), 3)
    notes = [note for note in results["data_notes"] if note["domain"] == "motions"]
    assert notes[0]["what"] == "left out motions that cannot be read"
    page = (workdir / "report.html").read_text()
    assert "left out motions that cannot be read: 1 (broken: " in page
    assert "Nothing is measured on the target: the numbers are of motions." in page


def test_motions_are_the_same_after_a_stop_and_with_reading_processes(
    walked: tuple[Path, Path, dict], tmp_path: Path
) -> None:
    root, _, results = walked
    flags.FLAGS(sys.argv[:1])  # Grain's reading processes ask absl for its flags
    workdir = tmp_path / "run"
    trainer.train(motions_config(root, workers=2), workdir, show=False)
    kept = sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))
    assert kept == [16, 17]  # 16 is in the middle of a turn
    shutil.rmtree(workdir / "checkpoints" / "17")
    for name in ("results.json", "report.html"):
        (workdir / name).unlink()
    again = trainer.train(motions_config(root), workdir, show=False)
    assert again["fingerprint"] == results["fingerprint"]
    assert again["evaluations"] == results["evaluations"]
    assert again["data_changes"] == []


def test_real_motions_are_learnt(pack: Callable[[str], Path], tmp_path: Path) -> None:
    spec = f"bvh:{pack('cmu_walk_bvh.tar.xz')}?train=02,08,10,12&test=07"
    results = trainer.train(motions_config(Path(), spec, steps=10), tmp_path / "run", show=False)
    rows = {(row["metric"], row["group"]): row["value"] for row in results["evaluations"]}
    assert 20 < rows["pa_mpjpe", "all"] < rows["mpjpe", "all"] < 600
    clips = {group for _, group in rows if group.startswith("clip:")}
    assert len(clips) > 5
    assert all("07_" in clip for clip in clips)
    assert all(("mpjpe", clip) in rows for clip in clips)


@dataclasses.dataclass(frozen=True)
class Spread:
    """How far apart generated points lie, and how far known ones."""

    scale = Scale(unit="pixels", lower_is_better=False)
    needs = "scalars"
    fields = ("keypoints",)

    def update(self, found: Predictions, fields: Mapping[str, jax.Array]) -> tuple[None, dict[str, jax.Array]]:
        return None, {"found": found.scalars["spread"], "known": jnp.std(fields["keypoints"], axis=(1, 2))}

    def rows(self, sums: None, per_row: dict, groups: object, clips: object) -> Iterator[Measurement]:
        for group in ("found", "known"):
            yield Measurement(
                metric="spread", group=group, value=float(per_row[group].mean()), count=len(per_row[group])
            )


@dataclasses.dataclass(kw_only=True)
class Generator:
    """Poses without images, and no detector."""

    name: str = "generator"

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        def init(key: jax.Array, previous: State | None) -> State:
            return initial_state(params={"pose": jnp.zeros((len(task.skeleton), 2))}, stats={}, optimizers={})

        def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
            assert set(batch["poses"]) == {"keypoints", "visible", "position"}
            pose = jnp.mean(batch["poses"]["keypoints"], axis=0)
            loss = jnp.mean((state.params["pose"] - pose) ** 2)
            return dataclasses.replace(state, params={"pose": pose}), {"loss": loss}

        def predict(state: State, fields: Mapping[str, jax.Array]) -> Predictions:
            rows = fields["visible"].shape[0]
            spread = jnp.broadcast_to(jnp.std(state.params["pose"]), (rows,))
            return Predictions(scalars={"spread": spread}, maps=jnp.zeros((rows, 8, 8, len(task.skeleton))))

        measured = Evaluation(predict=predict, domains=("poses",), fields=("visible",), metrics=(Spread(),))
        update = Update(reads=reads(poses=("keypoints", "visible")), step=step)
        return (Stage(name="generate", steps=2, init=init, updates=(update,), evaluations=(measured,)),)


def project(root: Path, frames: int) -> None:
    """Labels of three joints in numbered frames of one clip."""
    rng = np.random.default_rng(0)
    rows = {f"img{i:03d}.png": rng.uniform(5, 50, 6).tolist() for i in range(frames)}
    test_deeplabcut.write(root, test_deeplabcut.project(test_deeplabcut.table(rows), tuple(rows)))


def test_a_stage_that_generates_reads_poses_and_no_pixel(tmp_path: Path) -> None:
    project(tmp_path / "images", 6)
    project(tmp_path / "poses", 30)
    for path in (tmp_path / "poses").rglob("*.png"):
        path.write_bytes(b"no image")
    config = make_config(Toy())
    data = dataclasses.replace(
        config.data,
        source="deeplabcut:images",
        target="deeplabcut:images",
        poses="deeplabcut:poses?boxes=labels",
        root=str(tmp_path),
    )
    config = dataclasses.replace(config, method=Generator(), steps={"generate": 2}, data=data)
    results = trainer.train(config, tmp_path / "run", show=False)
    rows = {(row["domain"], row["split"], row["group"]): row for row in results["evaluations"]}
    assert set(rows) == {("poses", "test", "found"), ("poses", "test", "known")}
    assert rows["poses", "test", "found"]["count"] == 6
    assert 0 < rows["poses", "test", "found"]["value"] < 32
    assert results["skipped_records"] == []


def test_pairs_of_frames_are_found_by_time(tmp_path: Path) -> None:
    class Apart(Toy):
        def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
            first, second = super().stages(task, config)
            apart = {"pairs": Read(domain="target", fields=("image",), rows=4, window=frame_pairs(5, 15, rate=30.0))}
            only = (Update(reads=apart, step=noting("pairs", "pairs", "image")),)
            return dataclasses.replace(first, updates=only), dataclasses.replace(second, evaluations=())

    config = make_config(Apart())
    config.steps["first"] = 2
    trainer.train(config, tmp_path / "run", show=False)  # the embedded clips state their rate
    project(tmp_path / "clips", 20)
    config.data.source = config.data.target = "deeplabcut:clips"
    config.data.root = str(tmp_path)
    message = r"^data\.target=deeplabcut:clips: train: found clips whose frames per second are not known"
    with pytest.raises(ValueError, match=message):
        trainer.train(config, tmp_path / "other", show=False)
    assert not (tmp_path / "other").exists()


def test_fields_that_a_domain_lacks_are_said_before_the_first_step(tmp_path: Path) -> None:
    write_walks(tmp_path, 2)

    class Wrong(Priors):
        def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
            (first,) = super().stages(task, config)
            asked = tuple(
                dataclasses.replace(u, reads={"walks": dataclasses.replace(WALKS, fields=("image",))})
                for u in first.updates
            )
            return (dataclasses.replace(first, updates=asked),)

    config = dataclasses.replace(motions_config(tmp_path), method=Wrong())
    message = r"^data\.motions=bvh:\.: train: found no image, expected some of positions, pelvis, keypoints3d$"
    with pytest.raises(ValueError, match=message):
        trainer.train(config, tmp_path / "run", show=False)

    class Measured(Priors):
        def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
            (first,) = super().stages(task, config)
            (evaluation,) = first.evaluations
            return (dataclasses.replace(first, evaluations=(dataclasses.replace(evaluation, metrics=None),)),)

    config = dataclasses.replace(motions_config(tmp_path), method=Measured())
    with pytest.raises(ValueError, match=r"^data\.motions=bvh:\.: test: found no keypoints, expected some of pos"):
        trainer.train(config, tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()
