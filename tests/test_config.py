import dataclasses
import json
import urllib.parse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose import config as configs
from jaxpose import pairs
from jaxpose.data import schemes
from jaxpose.data.joints import matching
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.datasets import catalogue
from jaxpose.losses import heatmap
from jaxpose.models import layers
from jaxpose.models.hrnet import HRNet
from jaxpose.models.simple_baseline import SimpleBaseline
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes import inputs, mcd, mean_teacher, optimizers, regda, supervised, views


def example(**changes: Any) -> configs.Config:
    return dataclasses.replace(pairs.bodies().config, method=regda.RegDA(), **changes)


@pytest.mark.parametrize("name", list(pairs.PAIRS))
@pytest.mark.parametrize("quick", ["", ",quick"])
def test_every_pair_is_valid_and_becomes_json(name: str, quick: str) -> None:
    config = pairs.adapted_by(regda.RegDA)(name + quick)
    if name == "custom":
        with pytest.raises(ValueError, match=r"config.data.source: found '', expected SCHEME:PATH"):
            configs.validate(config)
    else:
        configs.validate(config)
    plain = configs.to_json(config)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["method"]["adversary"] == "minimize_false"


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_config_file_says_how_to_run_it(path: Path) -> None:
    module: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), module)
    assert f"--config=configs/{path.name}" in module["__doc__"]
    for words in (None, "quick") if path.stem != "synth" else (None, "hand"):
        config = module["get_config"](words)
        if isinstance(config, configs.Comparison):
            config = config.base
        if isinstance(config, configs.Config):
            configs.validate(config)


def flagged(value: Any, **changes: Any) -> Any:
    """With fields set as flags set them, after construction."""
    for field, changed in changes.items():
        setattr(value, field, changed)
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": configs.Data(batch_size=0)}, r"config.data.batch_size: found 0, expected at least 1"),
        (
            {"data": configs.Data(image_size=100)},
            r"config.data.image_size: found 100, expected a positive multiple of 32",
        ),
        ({"data": configs.Data(cache="")}, r"config.data.cache: found '', expected a folder, or None"),
        ({"model": SimpleBaseline(depth=20)}, r"config.model.depth: found 20, expected 18, 34, 50, 101 or 152"),
        ({"seed": 1.5}, r"config.seed: found 1.5, expected int"),
        ({"seed": True}, r"config.seed: found True, expected int"),
        ({"dtype": "half"}, r"config.dtype: found 'half', expected one of auto, float32, bfloat16"),
        ({"metrics": ("iou",)}, r"config.metrics: found \('iou',\), expected of pck"),
        ({"steps": {"pretrain": -1}}, r"config.steps.pretrain: found -1, expected at least 0"),
        ({"steps": {}}, r"config.steps: found \{\}, expected the updates of at least one stage"),
        ({"steps": {"pretrain": 1.5}}, r"config.steps: found \{'pretrain': 1.5\}, expected dict\[str, int\]"),
        ({"seed": -1}, r"config.seed: found -1, expected 0 to 4294967295"),
        ({"seed": 2**32}, r"config.seed: found 4294967296, expected 0 to 4294967295"),
        ({"metrics": ()}, r"config.metrics: found \(\), expected of pck"),
        ({"pckh_thresholds": (0.0,)}, r"config.pckh_thresholds: found \(0.0,\), expected fractions of more than 0"),
        ({"nme_joints": ("nose",)}, r"config.nme_joints: found \('nose',\), expected two joints, or none"),
        ({"nme_joints": ("nose", "nose")}, r"config.nme_joints: found \('nose', 'nose'\), expected two joints"),
        ({"actions": "act_("}, r"config.actions: found 'act_\(', expected a regular expression"),
        (
            {"pck_thresholds": (0.1, 0.0)},
            r"config.pck_thresholds: found \(0.1, 0.0\), expected fractions of more than 0",
        ),
        ({"data": configs.Data(memory=-1)}, r"config.data.memory: found -1, expected at least 0"),
        ({"data": configs.Data(margin=float("inf"))}, r"config.data.margin: found inf, expected a finite number"),
        ({"model": SimpleBaseline(head_width=-8)}, r"config.model.head_width: found -8, expected at least 1"),
        (
            {"model": flagged(SimpleBaseline(), target_statistics="false")},
            r"config.model.target_statistics: found 'false', expected bool",
        ),
        (
            {"model": HRNet(modules=(1, 0, 1))},
            r"config.model.modules: found \(1, 0, 1\), expected three counts of at l",
        ),
        ({"model": SimpleBaseline(weights="")}, r"config.model.weights: found '', expected a file, or None"),
        ({"augmentation": flagged(Augmentation(), mirror=7)}, r"config.augmentation.mirror: found 7, expected 0 to 1"),
        ({"augmentation": Augmentation(area=0.0)}, r"config.augmentation.area: found 0.0, expected a fraction of more"),
        ({"augmentation": Augmentation(shear=90.0)}, r"config.augmentation.shear: found 90.0, expected 0 to less than"),
        (
            {"augmentation": flagged(Augmentation(), scale=(0, 1))},
            r"config.augmentation.scale: found \(0, 1\), expected two magni",
        ),
        (
            {"augmentation": Augmentation(scale=(2.0, 1.0))},
            r"config.augmentation.scale: found \(2.0, 1.0\), expected two",
        ),
        (
            {"augmentation": flagged(Augmentation(), scale=(1.0,))},
            r"config.augmentation.scale: found \(1.0,\), expected tuple\[float, float\]",
        ),
        ({"augmentation": Augmentation(blur=-1.0)}, r"config.augmentation.blur: found -1.0, expected at least 0"),
        (
            {"optim": optimizers.Optim(learning_rate=float("inf"))},
            r"config.optim.learning_rate: found inf, expected a finite number",
        ),
        ({"optim": optimizers.Optim(momentum=1.0)}, r"config.optim.momentum: found 1.0, expected 0 to less than 1"),
        (
            {"optim": optimizers.Optim(drops=(2.0,))},
            r"config.optim.drops: found \(2.0,\), expected fractions of 0 to 1",
        ),
        (
            {"optim": optimizers.Optim(learning_rate=0.01, pretrain_rule="adam", adapt_rule="adam")},
            r"config.optim.learning_rate: found 0.01, expected 0.1 as it is by default: both rules are adam",
        ),
        (
            {"optim": optimizers.Optim(adam_learning_rate=0.01)},
            r"config.optim.adam_learning_rate: found 0.01, expected 0.001 as it is by default: both rules are sgd",
        ),
        ({"method": regda.RegDA(margin=float("nan"))}, r"config.method.margin: found nan, expected a finite number"),
        (
            {"method": mcd.MCD(trunk_updates=0)},
            r"config.method.trunk_updates: found 0, expected at least 1",
        ),
        ({"method": flagged(regda.RegDA(), update=3)}, r"config.method.update: found 3, expected collections.abc.Call"),
        (
            {"method": flagged(regda.RegDA(), coding=None)},
            r"config.method.coding: found None, expected Coding",
        ),
        (
            {"method": flagged(regda.RegDA(), clip_false="no")},
            r"config.method.clip_false: found 'no', expected bool",
        ),
        (
            {"method": mean_teacher.MeanTeacher(student_view=flagged(Augmentation(), mirror=-1))},
            r"config.method.student_view.mirror: found -1, expected 0 to 1",
        ),
    ],
)
def test_wrong_values_are_named(change: dict[str, Any], message: str) -> None:
    config = example()
    for field, value in change.items():
        setattr(config, field, value)  # as flags do, after construction
    with pytest.raises(ValueError, match=message):
        configs.validate(config)


def test_a_stage_without_steps_is_named() -> None:
    with pytest.raises(ValueError, match=r"config.steps: found pretrain, expected steps of 'adapt', too"):
        example(steps={"pretrain": 1}).steps_of("adapt")


def test_what_a_resumed_run_may_change() -> None:
    base = configs.fixed_part(configs.to_json(example()))
    free = example(
        data=dataclasses.replace(example().data, workers=3, cache="kept"), log_every=7, mesh=configs.Mesh(data=1)
    )
    assert configs.fixed_part(configs.to_json(free)) == base
    other = configs.fixed_part(configs.to_json(example(seed=1)))
    assert {k for k in base if base[k] != other[k]} == {"seed"}


def test_words_are_checked() -> None:
    @pairs.from_words("sgd", "adam")
    def said(pair: pairs.Pair, *names: str, released: bool = False, dd: bool = False) -> tuple[Any, ...]:
        return pair.config.pair, pair.config.steps["adapt"], names, released, dd

    assert said() == said("") == ("bodies", 300, (), False, False)
    assert said("dd,hands,quick,sgd,adam") == ("hands", 40, ("adam", "sgd"), False, True)
    with pytest.raises(ValueError, match="found pairs bodies and hands, expected one"):
        said("bodies,hands")
    with pytest.raises(ValueError, match=r"found 'fast', expected one of bodies, .*, quick, released, dd, sgd, adam"):
        said("dd,fast,hands")
    with pytest.raises(ValueError, match="found networks hrnet_w32 and hrnet_w48, expected one"):
        said("hrnet_w32,hrnet_w48")


def test_a_word_puts_another_network_in_the_place_of_the_pairs() -> None:
    published = get_config("cafa", "rhd_h3d,hrnet_w48").model
    assert published == HRNet(width=48, weights="hrnet_w48-8ef0771d.pth")
    assert get_config("dan", "hrnet_w32").model == HRNet(sigma=1.5, head="regressor", target_statistics=True)
    for recipe in ("regda", "cafa", "mean_teacher", "oracle", "source_only", "cc_ssl", "temporal"):
        quick = get_config(recipe, "quick,rhd_h3d,hrnet_w32")
        assert (quick.model.width, quick.model.modules, quick.model.weights) == (8, (1, 1, 1), None)


def test_presets_differ_where_they_should() -> None:
    paper, released = regda.RegDA(), regda.released_settings()
    assert (paper.margin, released.margin) == (1.0, 4.0)
    assert (paper.clip_false, released.clip_false) == (False, True)
    assert released.update is regda.released
    assert supervised.Supervised().name == "source_only"


# Written out from the papers and released codes: source, target, joints, rotation, adaptation steps, decay.
_PUBLISHED = {
    "rhd_h3d": ("rhd_tllib", "h3d", 21, 180, 15_000, 1.5),
    "freihand_rhd": ("freihand", "rhd_tllib", 21, 180, 15_000, 1.5),
    "rhd_mvhand": ("rhd_tllib", "mvhand", 21, 180, 15_000, 1.5),
    "surreal_human36m": ("surreal_tllib", "human36m", 12, 30, 5_000, 0.5),
    "surreal_lsp": ("surreal_tllib", "lsp", 12, 30, 15_000, 1.5),
}


@pytest.mark.parametrize("name", list(_PUBLISHED))
def test_published_pairs_have_the_published_settings(name: str) -> None:
    _, _, _, rotation, adapt, decay = _PUBLISHED[name]
    config = get_config("regda", name)
    configs.validate(config)
    assert config.steps == {"pretrain": 35_000, "adapt": adapt}
    assert (config.data.image_size, config.data.batch_size, config.data.margin) == (256, 32, 1.5)
    assert (config.model.depth, config.model.width, config.model.head_width, config.model.upsampling) == (
        101,
        64,
        256,
        3,
    )
    assert (config.model.sigma, config.model.head, config.model.target_statistics) == (2.0, "linear", False)
    optim = config.optim
    assert (optim.pretrain_rule, optim.adapt_rule, optim.momentum, optim.weight_decay) == ("sgd", "sgd", 0.9, 1e-4)
    # 0.1 for heads and 0.01 for the trunk, in both stages.
    assert (optim.learning_rate, optim.pretrain_trunk_scale, optim.adapt_trunk_scale) == (0.1, 0.1, 0.1)
    pretrain = optimizers.step_schedule(optimizers.peak("sgd", optim), 35_000, optim)
    found = [float(pretrain(jnp.int32(step))) for step in (0, 21_999, 22_000, 29_499, 29_500, 34_999)]
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)
    rates = optimizers.inverse_schedule(optimizers.peak("sgd", optim), adapt, optim)
    found = [float(rates(jnp.int32(step))) for step in (0, 1000, adapt)]
    np.testing.assert_allclose(found, [0.1, 0.1 * 1.1**-0.75, 0.1 * (1 + adapt / 10_000) ** -0.75], rtol=1e-5)
    assert optim.adapt_decay == pytest.approx(decay)
    seen = config.augmentation
    assert (seen.rotation, seen.brightness, seen.contrast, seen.saturation) == (rotation, 0.25, 0.25, 0.25)
    assert (seen.blur, seen.mirror, seen.noise) == (0.8, 0.0, 0.0)
    # Crops of 60 to 100 % of the area.
    np.testing.assert_allclose(np.asarray(seen.scale) ** -2, [1.0, 0.6])
    side = np.sqrt(np.linspace(0.6, 1.0, 10_001))
    assert seen.translation == pytest.approx(np.sqrt(np.mean(((1 - side) / side / 2) ** 2)), abs=1e-3)
    assert config.method == regda.RegDA()


@pytest.mark.parametrize("name", list(_PUBLISHED))
def test_published_pairs_name_data_sets_that_share_their_joints(name: str) -> None:
    """The specifications are opened on empty stand-ins with the builders' own joints."""
    *sets, joints, _, _, _ = _PUBLISHED[name]
    config = pairs.PAIRS[name]().config
    skeletons = []
    for spec, data_set in zip((config.data.source, config.data.target), sets, strict=True):
        scheme, _, rest = spec.partition(":")
        path, _, query = rest.partition("?")
        assert (scheme, path) == ("tfds", data_set)
        builder, options = catalogue.find(path), schemes.Options(dict(urllib.parse.parse_qsl(query)))
        released = options.take("preset")
        assert released == ("tllib" if builder.PRESETS else None)
        source = Standin(skeleton=builder.SKELETON)
        place = schemes._Place(root=Path(), path=path, image_size=256, seed=0, skeleton=None)
        viewed = schemes._seen(source, place, options, options.skeleton_file(Path()))
        options.reject_rest()
        skeletons.append(viewed.skeleton)
        if path == "surreal_tllib":  # the released code takes the collars, 13 and 14 of SMPL, for shoulders
            at = {
                joint: viewed[0]["keypoints"][viewed.skeleton.joints.index(joint), 0]
                for joint in ("left_shoulder", "right_shoulder")
            }
            assert at == {"left_shoulder": 14.0, "right_shoulder": 13.0}
    assert len(matching.match(*skeletons).pairs) == joints


@dataclasses.dataclass(frozen=True)
class Standin:
    """One record, joint i of which is at x = i."""

    skeleton: Skeleton
    labelled: bool = True

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = np.arange(len(self.skeleton), dtype=np.float32)
        return {
            "image": b"",
            "name": "one",
            "keypoints": np.stack([x, x], axis=1),
            "visible": np.full(len(x), 2, np.uint8),
        }


def test_released_words_are_the_released_settings() -> None:
    source_only = get_config("source_only", "rhd_h3d,released")
    assert source_only.method.loss is heatmap.l2
    assert source_only.method.maps is views.plain_maps
    assert source_only.method.coding is inputs.RELEASED
    assert source_only.method.mean is heatmap.mean_with_zeros
    assert source_only.steps == {"pretrain": 35_000}
    optim = source_only.optim
    assert (optim.pretrain_rule, optim.adam_learning_rate, optim.pretrain_trunk_scale) == ("adam", 1e-3, 1.0)
    np.testing.assert_allclose(np.asarray(optim.drops) * 70, [44, 59])
    oracle = get_config("oracle", "surreal_human36m,released")
    assert (oracle.method.domain, oracle.method.loss) == ("target", heatmap.l2)
    assert dataclasses.replace(oracle.optim, adapt_decay=optim.adapt_decay) == optim
    adapted = get_config("regda", "surreal_lsp,released")
    assert (adapted.method.margin, adapted.method.trunk_warmup, adapted.model.head) == (4.0, 1000.0, "linear")
    for pair, rotation in (("rhd_h3d", 180), ("surreal_human36m", 60), ("bodies", 60)):
        teacher = get_config("mean_teacher", f"{pair},released")
        view = teacher.method.student_view
        assert (view.rotation, view.scale, view.translation, view.blur) == (rotation, (0.6, 1.3), 0.05, 0.0)
        assert (view.shear, view.area) == (30.0, 0.6)
        method = teacher.method
        assert (method.coding, method.mean, method.weight) == (inputs.RELEASED, heatmap.mean_with_zeros, 2.0)
        optim = teacher.optim
        assert (optim.pretrain_rule, optim.adapt_rule, optim.adam_learning_rate) == ("adam", "adam", 1e-4)
        assert (optim.pretrain_trunk_scale, optim.adapt_trunk_scale, optim.drops) == (1.0, 1.0, ())
        if pair != "bodies":
            assert teacher.steps == {"pretrain": 20_000, "adapt": 15_000}
            assert teacher.augmentation == view
    tracked = get_config("cc_ssl", "bodies,released,temporal")
    assert (tracked.method.temporal_ratio, tracked.method.rounds, tracked.model.sigma) == (0.9, 6, 1.0)
    assert (tracked.method.mean, tracked.method.weight) == (heatmap.mean_with_zeros, 10.0)
    assert (tracked.optim.adam_learning_rate, tracked.optim.adapt_decay) == (2.5e-4, 0.0)
    assert get_config("cc_ssl", "bodies").method.temporal_ratio is None


def test_what_an_earlier_version_did_not_know_has_its_default() -> None:
    config = get_config("regda", "rhd_h3d")
    whole = configs.to_json(config)
    earlier = json.loads(json.dumps(whole))
    del earlier["data"]["cache"], earlier["mesh"], earlier["method"]["clip_false"], earlier["start"]
    assert configs.completed(earlier, config) == whole
    assert "cache" not in earlier["data"]
    assert configs.completed({**whole, "seed": 7, "of_later": 1}, config) == {**whole, "seed": 7, "of_later": 1}
    del earlier["steps"]["adapt"], earlier["data"]["margin"]  # a stage is no field, and this run's margin may be any
    margin = dataclasses.replace(config, data=dataclasses.replace(config.data, margin=2.0))
    found = configs.completed(earlier, margin)
    assert (found["steps"], found["data"]["margin"]) == ({"pretrain": whole["steps"]["pretrain"]}, 1.25)


def get_config(recipe: str, words: str) -> configs.Config:
    path = Path(__file__).parents[1] / "configs" / f"{recipe}.py"
    module: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), module)
    config = module["get_config"](words)
    configs.validate(config)
    return config


def test_a_configuration_without_motions_and_poses_is_still_read() -> None:
    config = configs.Config(method=None)
    old = configs.to_json(config)
    del old["data"]["motions"], old["data"]["poses"]
    assert configs.completed(old, config) == configs.to_json(config)
    config.data.motions = ""
    with pytest.raises(ValueError, match=r"config\.data\.motions: found '', expected SCHEME:PATH, or None"):
        configs.validate(config)


def test_a_backbone_without_normalisation_is_a_setting_and_the_other_one_the_default() -> None:
    config = configs.Config(method=None, model=SimpleBaseline(depth=18, width=2, norm=layers.Bias))
    configs.validate(config)
    plain = configs.to_json(config)
    assert plain["model"]["norm"] == "Bias"
    del plain["model"]["norm"]  # as before there was a choice
    assert configs.completed(plain, config)["model"]["norm"] == "BatchNorm"
    trunk = config.model.trunk(jnp.float32).networks["backbone"]
    params, stats = jax.eval_shape(trunk.init, jax.random.key(0))
    assert stats == {}
    assert set(params["layer3"]["0"]["downsample"]["1"]) == {"bias"}
    config.model.norm = "Bias"
    with pytest.raises(ValueError, match=r"config\.model\.norm: found 'Bias', expected"):
        configs.validate(config)


def test_configurations_choose_a_coding_by_its_word() -> None:
    for config in ("source_only", "oracle", "cafa"):
        for word, coding in inputs.CODINGS.items():
            assert get_config(config, f"quick,{word}").method.coding == coding
        with pytest.raises(ValueError, match="found dark and msra, expected one way"):
            get_config(config, "msra,dark")
