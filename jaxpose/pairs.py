"""Named pairs of domains, with the data, network and schedule that suit them.

A config file is a function of a pair and flags, which are the words after the colon, joined with commas:
`configs/regda.py:ultrasound,quick`. It decides on the method; everything else comes from here, so that recipes are
compared under the same conditions. `hrnet_w32` or `hrnet_w48` puts that network in the place of the pair's own. The
pairs of `published` have the sizes and the schedule of the papers and are for a GPU; the others suit two CPU cores.
"""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from jaxpose.config import Config, Data
from jaxpose.models.simple_baseline import SimpleBaseline
from jaxpose.ops.augment import Augmentation
from jaxpose.pair import Pair
from jaxpose.people_pairs import coco_mpii, mpii_coco
from jaxpose.pose_pairs import human36m_3dhp, surreal_human36m_3d, surreal_video
from jaxpose.recipes.optimizers import Optim
from jaxpose.spelling import did_you_mean

_Made = TypeVar("_Made")


def from_words(*names: str) -> Callable[[Callable[..., _Made]], Callable[..., _Made]]:
    """Makes `get_config` of a function of a pair, whose keyword arguments are flags: its words are what can be said.

    A word is a pair (none: `bodies`), a network (none: the pair's), `quick`, a flag, or one of `names`; of those the
    function gets what was said after the pair, in alphabetical order. What is said otherwise is a ValueError.
    """

    def decorate(make: Callable[..., _Made]) -> Callable[..., _Made]:
        flags = inspect.getfullargspec(make).kwonlyargs

        def get_config(words: str | None = None) -> _Made:
            said = [word for word in (words or "").split(",") if word]
            pairs, networks = ([word for word in said if word in of] for of in (PAIRS, NETWORKS))
            for what, chosen in (("pairs", pairs), ("networks", networks)):
                if len(chosen) > 1:
                    raise ValueError(f"found {what} {' and '.join(chosen)}, expected one")
            known = (*PAIRS, *NETWORKS, "quick", *flags, *names)
            if unknown := sorted(set(said) - set(known)):
                hint = did_you_mean(unknown[0], known)
                raise ValueError(f"found {unknown[0]!r}, expected one of {', '.join(known)}{hint}")
            pair = PAIRS[pairs[0]]() if pairs else bodies()
            pair = NETWORKS[networks[0]](pair) if networks else pair
            return make(
                pair.quick() if "quick" in said else pair,
                *sorted(set(said) & set(names)),
                **{flag: flag in said for flag in flags},
            )

        return get_config

    return decorate


def adapted_by(method: Callable[[], Any]) -> Callable[..., Config]:
    """`get_config` of a method that has no flags and whose settings are the same for all pairs."""
    return from_words()(lambda pair: dataclasses.replace(pair.config, method=method()))


def bodies() -> Pair:
    """The embedded bodies, sized for two CPU cores."""
    return _embedded("bodies", "bodies:studio", "bodies:street")


def hands() -> Pair:
    """The embedded hands."""
    return _embedded("hands", "hands:studio", "hands:street")


def ultrasound() -> Pair:
    """Tongue contours in ultrasound: one recording system is labelled, the others are not.

    Data: a DeepLabCut project with folders `TaL_*`, `Ultrax_*`, `ArticulateAnonymized_*`, `05TD1M001`, `video10`, or a
    tar of it, in `data.root`.
    """
    path = "deeplabcut:ultrasound_tongue_train.tar"
    target = {
        "train": "Ultrax_TD_001,Ultrax_TD_002,video10,"
        + ",".join(f"ArticulateAnonymized_{i:02d}" for i in (1, 3, 5, 7, 9, 11)),
        "test": "Ultrax_TD_003,Ultrax_TD_004,05TD1M001,"
        + ",".join(f"ArticulateAnonymized_{i:02d}" for i in (2, 4, 6, 8, 10)),
    }
    config = Config(
        method=None,
        pair="ultrasound",
        steps={"pretrain": 900, "adapt": 200},
        eval_every=100,
        checkpoint_every=100,
        data=Data(
            source=f"{path}?train=TaL_1to800*,TaL_1to8010,TaL_1to8011&validation=TaL_1to8012",
            target=f"{path}?" + "&".join(f"{split}={folders}" for split, folders in target.items()),
            image_size=128,
            batch_size=16,
        ),
        augmentation=Augmentation(rotation=15.0, scale=(0.75, 1.35), translation=0.1, brightness=0.4, contrast=0.4),
        model=SimpleBaseline(depth=18, width=16, head_width=32, sigma=1.5, **_SHORT),
        optim=_short_schedule(),
    )
    return Pair(config=config)


def custom() -> Pair:
    """Your own data: `--config.data.source` and `--config.data.target`; sized for two CPU cores."""
    base = ultrasound().config
    data = dataclasses.replace(base.data, source="", target="")
    augmentation = Augmentation(rotation=30.0)
    steps = {"pretrain": 1500, "adapt": 300}
    return Pair(config=dataclasses.replace(base, pair="custom", steps=steps, data=data, augmentation=augmentation))


def lspet() -> Pair:
    """Embedded bodies to photographs of sport; 14 shared joints. Data: an LSPet folder or tar in `data.root`."""
    base = bodies()
    config = dataclasses.replace(
        base.config,
        pair="lspet",
        steps={"pretrain": 2500, "adapt": 300},
        eval_every=250,
        data=dataclasses.replace(
            base.config.data, source="bodies:studio?train=8192", target="lsp:lspet_train_0001_2500.tar"
        ),
        # Athletes are upside down more often than figures are.
        augmentation=Augmentation(rotation=60.0, mirror=0.5),
    )
    return Pair(config=config, few={"source": base.few["source"]})


def synth_body() -> Pair:
    """Rendered people to photographs of sport. Data: `configs/synth.py:body`, and as `lspet`."""
    base = lspet().config
    data = dataclasses.replace(base.data, source="tfds:synth_body")
    return Pair(config=dataclasses.replace(base, pair="synth_body", data=data))


def synth_coco() -> Pair:
    """Rendered people to photographs of everyday scenes. Data: `configs/synth.py:body` and 60 images of COCO, a tar."""
    base = synth_body().config
    target = "coco:coco_mini_and_munch.tar?annotations=person_keypoints_train2017"
    data = dataclasses.replace(base.data, target=f"{target}&test_annotations=person_keypoints_val2017")
    return Pair(config=dataclasses.replace(base, pair="synth_coco", metrics=("pck", "ap"), data=data))


def synth_hand() -> Pair:
    """Rendered hands to photographs of hands. Data: `configs/synth.py:hand` and a prepared `ge_hands`."""
    base = hands().config
    target = "tfds:ge_hands?train=test[:75%]&test=test[75%:]"  # in the order of the recording
    data = dataclasses.replace(base.data, source="tfds:synth_hand", target=target)
    steps = {"pretrain": 6000, "adapt": 300}
    augmentation = Augmentation(rotation=30.0, mirror=0.5)
    config = dataclasses.replace(
        base, pair="synth_hand", steps=steps, eval_every=500, data=data, augmentation=augmentation
    )
    return Pair(config=config, posed=True, clips=True)


def mocap_people() -> Pair:
    """Rendered people who move as CMU's walkers do to people who move as Bandai-Namco's actors, before photographs.

    Data: `configs/synth.py:cmu` and `configs/synth.py:bandai`, and both recordings, tars of BVH files, in `data.root`.
    """
    base = bodies().config
    data = dataclasses.replace(
        base.data,
        source="tfds:cmu_people?joints=mpii16",
        target="tfds:bandai_people?joints=mpii16",
        motions="bvh:cmu_walk_bvh.tar.xz",
        poses="bvh:bandai1_bvh.tar.xz",
    )
    steps = {"poses": 4000, "motions": 1500, "relations": 1500, "pretrain": 1500, "adapt": 300}
    augmentation = Augmentation(rotation=10.0, mirror=0.5, translation=0.05)
    config = dataclasses.replace(
        base, pair="mocap_people", steps=steps, eval_every=250, data=data, augmentation=augmentation
    )
    return Pair(config=config, posed=True, clips=True)


def sprites(source: str, target: str) -> Pair:
    """The dSprites experiment between two of `color`, `noisy` and `scream`, sized for two CPU cores."""
    config = Config(
        method=None,
        pair=f"sprites_{source[0]}2{target[0]}",
        steps={"pretrain": 300, "adapt": 300},
        metrics=("mae",),
        eval_every=300,
        checkpoint_every=300,
        data=Data(
            source=f"sprites:{source}?train=20000&test=512&validation=256",
            target=f"sprites:{target}?train=20000&test=1024&validation=256",
            image_size=64,
            batch_size=36,
            margin=1.0,
        ),
        augmentation=_NONE,
        model=SimpleBaseline(depth=18, width=16, head_width=32, upsampling=4, sigma=1.0, **_SHORT),
        optim=_short_schedule(),
    )
    few = {"source": f"sprites:{source}?{_FEW_SPRITES}", "target": f"sprites:{target}?{_FEW_SPRITES}"}
    return Pair(config=config, few=few, of_a_paper=True)


def rhd_h3d() -> Pair:
    """Rendered hands to Hand-3D-Studio, RegDA's Table 2. Data: prepared `rhd_tllib` and `h3d`; see `published`.

    PCK@0.05 of all 21 joints, percent: source-only 61.8, DAN 55.1, DANN 60.6, MCD 54.6, DD 65.2, RegDA 72.5 (a
    user of the released code: 72.1), oracle 95.8; in POST's Table 1 CC-SSL 75.1, UniFrame (mean teacher) 79.6, POST
    84.1.
    """
    return published("rhd_h3d", "tfds:rhd_tllib", "tfds:h3d?preset=tllib", upright=False, posed=True)


def freihand_rhd() -> Pair:
    """FreiHAND to rendered hands. Data: prepared `freihand` and `rhd_tllib`; see `published`.

    The released code has a command for it but no number. Images of one pose are on both sides of FreiHAND's division.
    """
    return published("freihand_rhd", "tfds:freihand?preset=tllib", "tfds:rhd_tllib", upright=False, posed=True)


def rhd_mvhand() -> Pair:
    """Rendered hands to MVHand, POST's Table 1. Data: prepared `rhd_tllib` and `mvhand`; see `published`.

    PCK@0.05 of all 21 joints, percent: source-only 52.7, CC-SSL 60.2, RegDA 60.1, UniFrame (mean teacher) 62.9, POST
    70.8; no oracle. POST ran the released codes and says no more. Its division of MVHand, 42,000 images for either
    side, is not known; here it is that of `datasets.mvhand`.
    """
    return published("rhd_mvhand", "tfds:rhd_tllib", "tfds:mvhand", upright=False, posed=True, clips=True)


def surreal_human36m() -> Pair:
    """SURREAL to Human3.6M. Data: prepared `surreal_tllib` and `human36m`; see `published`.

    PCK@0.05 of the twelve joints of the limbs, percent: source-only 67.3, DD 70.7, RegDA 75.6, oracle 92.9; in POST's
    Table 2 CC-SSL 51.7, UniFrame (mean teacher) 79.0; POST's 83.7 includes the head, its mean over limbs is 83.05.
    Adapts for 10 epochs, as the released command does (elsewhere: 30). The test draws 3,200 images with replacement.
    """
    target = "tfds:human36m?preset=tllib&joints=common12"
    return published("surreal_human36m", _SURREAL, target, adapt=10 * 500, posed=True, clips=True)


def surreal_lsp() -> Pair:
    """SURREAL to Leeds Sports Pose. Data: prepared `surreal_tllib` and `lsp`; see `published`.

    PCK@0.05 of the twelve joints of the limbs, percent: source-only 63.9, DD 62.4, RegDA 74.6; the released table's
    oracle is Human3.6M's. All 2,000 images are adapted to and tested on, whole and not cropped. The released code does
    not augment them; here they are augmented like the source's.
    """
    return published("surreal_lsp", _SURREAL, "tfds:lsp?preset=tllib&joints=common12&boxes=whole")


def surreal_threedpw() -> Pair:
    """SURREAL to 3D Poses in the Wild, POST's Table 2. Data: prepared `surreal_tllib` and `threedpw`; see `published`.

    PCK@0.05 in percent, as printed (it is the mean of no groups of the same row): source-only 57.9, CC-SSL 62.5, RegDA
    64.8, UniFrame (mean teacher) 70.5, POST 76.7. The mapping of joints is not published; here, by name.
    """
    target = "tfds:threedpw?joints=common12"
    return published("surreal_threedpw", _SURREAL, target, posed=True, clips=True)


def published(
    name: str,
    source: str,
    target: str,
    *,
    upright: bool = True,
    adapt: int = 30 * 500,
    posed: bool = False,
    clips: bool = False,
) -> Pair:
    """RegDA's published settings: a ResNet-101 at 256 pixels, 70 + 30 epochs of 500 steps.

    `model.weights` is torchvision's first ImageNet file, looked for where the run starts.

    What differs from the released code, whatever the method:
      - The upsampling is pretrained at the backbone's rate of 0.01; there, at the head's 0.1.
      - One warp from the crop stands for a rotation (nearest neighbour) and a random crop of 60 to 100 % of the area.
        The magnification is as there, 1 to 0.6^-0.5, but uniform in its logarithm; the crop's place there depends on
        its size, here it is a translation that is as large in the mean square.
      - Crops are 1.5 times the joints' box, as there, but may leave the image; there they are moved into it.
      - Hands are as they were recorded; there, they are mirrored to one side.
      - Bodies are the twelve joints of the limbs, whose mean is published; there, the network also finds pelvis,
        thorax, neck and head. Shoulders of SURREAL are its collars, as there.
      - The last source model goes on; there, that with the best PCK on the source's test split.

    Args:
      name: of the pair.
      source, target: see `data.schemes`.
      upright: figures are turned by 30 degrees to either side; else by any angle.
      adapt: updates.
      posed, clips: see `Pair`.

    Source: RegDA, Sec. 5.2.2, and Transfer-Learning-Library at c4aa59e. While adapting, regressors learn at
    0.1 (1 + i / 10,000)^-0.75 and the trunk at a tenth of that.
    """
    epochs = 70
    config = Config(
        method=None,
        pair=name,
        steps={"pretrain": epochs * 500, "adapt": adapt},
        metrics=("pck", "tllib_pck"),
        eval_every=500,
        checkpoint_every=500,
        data=Data(source=source, target=target, image_size=256, batch_size=32, eval_batch_size=32, margin=1.5),
        augmentation=Augmentation(
            rotation=30.0 if upright else 180.0,
            scale=(1.0, 0.6**-0.5),
            translation=0.076,
            brightness=0.25,
            contrast=0.25,
            saturation=0.25,
            blur=0.8,
        ),
        model=SimpleBaseline(depth=101, sigma=2.0, weights="resnet101-63fe2227.pth"),
        optim=Optim(learning_rate=0.1, weight_decay=1e-4, drops=(44 / epochs, 59 / epochs), adapt_decay=1e-4 * adapt),
    )
    return Pair(config=config, of_a_paper=True, epochs=epochs, upright=upright, posed=posed, clips=clips)


def with_new_head(config: Config, **model: Any) -> Config:
    """A head that starts anew and statistics of both domains, as released codes have them; `model` changes more."""
    changed = dataclasses.replace(config.model, head="linear", target_statistics=False, **model)
    return dataclasses.replace(config, model=changed)


_SURREAL = "tfds:surreal_tllib?preset=tllib&shoulder=collar&joints=common12"

_NONE = Augmentation(
    rotation=0.0, scale=(1.0, 1.0), translation=0.0, brightness=0.0, contrast=0.0, saturation=0.0, blur=0.0
)

_FEW = "train=256&validation=64&test=64"
_FEW_SPRITES = "train=1000&validation=64&test=64"

_VARIANTS = ("color", "noisy", "scream")

# There is no time to learn regressors anew, nor for the statistics of the domains to meet.
_SHORT: dict[str, Any] = {"head": "regressor", "target_statistics": True}


def _short_schedule() -> Optim:
    """From random weights in hundreds of steps: Adam, and a rate that falls to a tenth while adapting."""
    return Optim(
        pretrain_trunk_scale=1.0,
        adapt_trunk_scale=0.3,
        pretrain_rule="adam",
        adapt_rule="adam",
        warmup=0.02,
        adapt_decay=20.0,
    )


def _embedded(name: str, source: str, target: str) -> Pair:
    config = Config(
        method=None,
        pair=name,
        steps={"pretrain": 1500, "adapt": 300},
        eval_every=100,
        checkpoint_every=300,
        data=Data(source=source, target=target, image_size=64, batch_size=32),
        augmentation=Augmentation(rotation=20.0),
        model=SimpleBaseline(depth=18, width=16, head_width=32, upsampling=4, sigma=1.5, **_SHORT),
        optim=_short_schedule(),
    )
    return Pair(config=config, few={"source": f"{source}?{_FEW}", "target": f"{target}?{_FEW}"}, posed=True, clips=True)


def sprites_published(source: str, target: str) -> Pair:
    """The paper's own sizes for the dSprites experiment: ResNet-18, 20,000 iterations, 256 px; for a GPU."""
    pair = sprites(source, target)
    many = "train=700000&test=7000&validation=1000"
    config = dataclasses.replace(
        pair.config,
        pair=f"sprites_published_{source[0]}2{target[0]}",
        steps={"pretrain": 20_000, "adapt": 20_000},
        eval_every=1000,
        checkpoint_every=1000,
        data=dataclasses.replace(
            pair.config.data, source=f"sprites:{source}?{many}", target=f"sprites:{target}?{many}", image_size=256
        ),
        model=SimpleBaseline(depth=18),
        optim=Optim(weight_decay=5e-4, drops=()),
    )
    return dataclasses.replace(pair, config=config)


_SMALL = (bodies, hands, ultrasound, custom, lspet, synth_body, synth_coco, synth_hand, mocap_people)
_PUBLISHED = (
    *(rhd_h3d, freihand_rhd, rhd_mvhand, surreal_human36m, surreal_threedpw, surreal_lsp),
    *(mpii_coco, coco_mpii),
    *(surreal_human36m_3d, human36m_3dhp, surreal_video),
)

PAIRS: dict[str, Callable[[], Pair]] = {
    **{make.__name__: make for make in _SMALL + _PUBLISHED},
    **{
        f"{make.__name__}_{a[0]}2{b[0]}": functools.partial(make, a, b)
        for make in (sprites, sprites_published)
        for a, b in itertools.permutations(_VARIANTS, 2)
    },
}

NETWORKS: dict[str, Callable[[Pair], Pair]] = {
    "hrnet_w32": lambda pair: pair.with_hrnet(32, "hrnet_w32-36af842e.pth"),
    "hrnet_w48": lambda pair: pair.with_hrnet(48, "hrnet_w48-8ef0771d.pth"),
}
