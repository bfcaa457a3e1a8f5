"""Named pairs of domains, with the data, network and schedule that suit them.

A config file names a pair and joins further words with commas: `configs/regda.py:ultrasound,quick`. The recipe's file
decides on the method; everything else comes from here, so that recipes are compared under the same conditions. The
pairs of `PUBLISHED` have the sizes and the schedule of the papers and are for a GPU; the others suit two CPU cores.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from jaxpose.config import Config, Data, Model
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes.optimizers import Optim


def bodies() -> Config:
    """The embedded bodies, sized for two CPU cores."""
    return _embedded("bodies", "bodies:studio", "bodies:street")


def hands() -> Config:
    """The embedded hands."""
    return _embedded("hands", "hands:studio", "hands:street")


def ultrasound() -> Config:
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
    return Config(
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
        model=Model(depth=18, width=16, head_width=32, sigma=1.5, **_SHORT),
        optim=_short_schedule(),
    )


def custom() -> Config:
    """Your own data: `--config.data.source` and `--config.data.target`; sized for two CPU cores."""
    base = ultrasound()
    data = dataclasses.replace(base.data, source="", target="")
    augmentation = Augmentation(rotation=30.0)
    return dataclasses.replace(
        base, pair="custom", steps={"pretrain": 1500, "adapt": 300}, data=data, augmentation=augmentation
    )


def lspet() -> Config:
    """Embedded bodies to photographs of sport; 14 shared joints. Data: an LSPet folder or tar in `data.root`."""
    base = bodies()
    data = dataclasses.replace(base.data, source="bodies:studio?train=8192", target="lsp:lspet_train_0001_2500.tar")
    # Athletes are upside down more often than figures are.
    augmentation = Augmentation(rotation=60.0, mirror=0.5)
    return dataclasses.replace(
        base,
        pair="lspet",
        steps={"pretrain": 2500, "adapt": 300},
        eval_every=250,
        data=data,
        augmentation=augmentation,
    )


def synth_body() -> Config:
    """Rendered people to photographs of sport. Data: `configs/synth.py:body`, and as `lspet`."""
    base = lspet()
    return dataclasses.replace(base, pair="synth_body", data=dataclasses.replace(base.data, source="tfds:synth_body"))


def synth_hand() -> Config:
    """Rendered hands to photographs of hands. Data: `configs/synth.py:hand` and a prepared `ge_hands`."""
    base = hands()
    target = "tfds:ge_hands?train=test[:75%]&test=test[75%:]"  # in the order of the recording
    data = dataclasses.replace(base.data, source="tfds:synth_hand", target=target)
    steps = {"pretrain": 6000, "adapt": 300}
    augmentation = Augmentation(rotation=30.0, mirror=0.5)
    return dataclasses.replace(
        base, pair="synth_hand", steps=steps, eval_every=500, data=data, augmentation=augmentation
    )


def sprites(source: str, target: str) -> Config:
    """The dSprites experiment between two of `color`, `noisy` and `scream`, sized for two CPU cores."""
    return Config(
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
        model=Model(depth=18, width=16, head_width=32, upsampling=4, sigma=1.0, **_SHORT),
        optim=_short_schedule(),
    )


def rhd_h3d() -> Config:
    """Rendered hands to Hand-3D-Studio, RegDA's Table 2. Data: prepared `rhd_tllib` and `h3d`; see `published`.

    PCK@0.05 of all 21 joints, percent: source-only 61.8, DAN 55.1, DANN 60.6, MCD 54.6, DD 65.2, RegDA 72.5 (a
    user of the released code: 72.1), oracle 95.8; in POST's Table 1 CC-SSL 75.1, UniFrame (mean teacher) 79.6, POST
    84.1.
    """
    return published("rhd_h3d", "tfds:rhd_tllib", "tfds:h3d?preset=tllib", rotation=180.0)


def freihand_rhd() -> Config:
    """FreiHAND to rendered hands. Data: prepared `freihand` and `rhd_tllib`; see `published`.

    The released code has a command for it but no number. Images of one pose are on both sides of FreiHAND's division.
    """
    return published("freihand_rhd", "tfds:freihand?preset=tllib", "tfds:rhd_tllib", rotation=180.0)


def rhd_mvhand() -> Config:
    """Rendered hands to MVHand, POST's Table 1. Data: prepared `rhd_tllib` and `mvhand`; see `published`.

    PCK@0.05 of all 21 joints, percent: source-only 52.7, CC-SSL 60.2, RegDA 60.1, UniFrame (mean teacher) 62.9, POST
    70.8; no oracle. POST ran the released codes and says no more. Its division of MVHand, 42,000 images for either
    side, is not known; here it is that of `datasets.mvhand`.
    """
    return published("rhd_mvhand", "tfds:rhd_tllib", "tfds:mvhand", rotation=180.0)


def surreal_human36m() -> Config:
    """SURREAL to Human3.6M. Data: prepared `surreal_tllib` and `human36m`; see `published`.

    PCK@0.05 of the twelve joints of the limbs, percent: source-only 67.3, DD 70.7, RegDA 75.6, oracle 92.9; in POST's
    Table 2 CC-SSL 51.7, UniFrame (mean teacher) 79.0; POST's 83.7 includes the head, its mean over limbs is 83.05.
    Adapts for 10 epochs, as the released command does (elsewhere: 30). The test draws 3,200 images with replacement.
    """
    target = "tfds:human36m?preset=tllib&joints=common12"
    return published("surreal_human36m", _SURREAL, target, rotation=30.0, adapt=10 * 500)


def surreal_lsp() -> Config:
    """SURREAL to Leeds Sports Pose. Data: prepared `surreal_tllib` and `lsp`; see `published`.

    PCK@0.05 of the twelve joints of the limbs, percent: source-only 63.9, DD 62.4, RegDA 74.6; the released table's
    oracle is Human3.6M's. All 2,000 images are adapted to and tested on, whole and not cropped. The released code does
    not augment them; here they are augmented like the source's.
    """
    return published("surreal_lsp", _SURREAL, "tfds:lsp?preset=tllib&joints=common12&boxes=whole", rotation=30.0)


def published(name: str, source: str, target: str, *, rotation: float, adapt: int = 30 * 500) -> Config:
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
      rotation: of the augmentation, degrees to either side.
      adapt: updates.

    Source: RegDA, Sec. 5.2.2, and Transfer-Learning-Library at c4aa59e. While adapting, regressors learn at
    0.1 (1 + i / 10,000)^-0.75 and the trunk at a tenth of that.
    """
    return Config(
        method=None,
        pair=name,
        steps={"pretrain": 70 * 500, "adapt": adapt},
        metrics=("pck", "tllib_pck"),
        eval_every=500,
        checkpoint_every=500,
        data=Data(source=source, target=target, image_size=256, batch_size=32, eval_batch_size=32, margin=1.5),
        augmentation=Augmentation(
            rotation=rotation,
            scale=(1.0, 0.6**-0.5),
            translation=0.076,
            brightness=0.25,
            contrast=0.25,
            saturation=0.25,
            blur=0.8,
        ),
        model=Model(depth=101, sigma=2.0, weights="resnet101-63fe2227.pth"),
        optim=Optim(learning_rate=0.1, weight_decay=1e-4, drops=(44 / 70, 59 / 70), adapt_decay=1e-4 * adapt),
    )


def quick(config: Config) -> Config:
    """The same pair in under a minute on two cores, to see that everything works; its numbers mean nothing."""
    embedded = config.data.source.startswith(("bodies", "hands"))
    source, target = config.data.source, config.data.target
    if embedded:
        source = f"{source.partition('?')[0]}?train=256&validation=64&test=64"
    if target.startswith(("bodies", "hands")):
        target = f"{target.partition('?')[0]}?train=256&validation=64&test=64"
    if source.startswith("sprites"):
        source, target = (f"{spec.partition('?')[0]}?train=1000&validation=64&test=64" for spec in (source, target))
    return dataclasses.replace(
        config,
        steps=dict.fromkeys(config.steps, 40),
        eval_every=20,
        checkpoint_every=10,
        log_every=10,
        data=dataclasses.replace(config.data, source=source, target=target, image_size=64, batch_size=8),
        model=dataclasses.replace(config.model, depth=18, width=8, head_width=16, sigma=1.0, weights=None),
    )


def choose(words: str | None, default: str = "bodies") -> tuple[Config, set[str]]:
    """Resolves a config file's argument: one pair at most, and the other words.

    Returns the pair's configuration, with `quick` applied if it was asked for, and the words that are left for the
    recipe's file.
    """
    chosen = [word for word in (words or "").split(",") if word]
    pairs = [word for word in chosen if word in _PAIRS]
    if len(pairs) > 1:
        raise ValueError(f"found pairs {' and '.join(pairs)}, expected one")
    config = _PAIRS[pairs[0] if pairs else default]()
    if "quick" in chosen:
        config = quick(config)
    return config, set(chosen) - set(pairs) - {"quick"}


def with_adam(config: Config, rate: float, **optim: Any) -> Config:
    """Adam at one rate for all networks, as the released code of many methods has it; `optim` changes more of it."""
    changed: dict[str, Any] = {
        "pretrain_rule": "adam",
        "adapt_rule": "adam",
        "adam_learning_rate": rate,
        "pretrain_trunk_scale": 1.0,
        "adapt_trunk_scale": 1.0,
        "warmup": 0.0,
        "drops": (),
    }
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, **changed | optim))


def of_a_paper(pair: str) -> bool:
    """Whether a pair is a paper's experiment, which suits the paper's own settings."""
    return pair.startswith("sprites") or pair in PUBLISHED


def reject(words: set[str], *known: str) -> None:
    """Raises a ValueError that names a word no one knows."""
    if words - set(known):
        expected = ", ".join((*_PAIRS, "quick", *known))
        raise ValueError(f"found {sorted(words - set(known))[0]!r}, expected one of {expected}")


_SURREAL = "tfds:surreal_tllib?preset=tllib&shoulder=collar&joints=common12"

_NONE = Augmentation(
    rotation=0.0, scale=(1.0, 1.0), translation=0.0, brightness=0.0, contrast=0.0, saturation=0.0, blur=0.0
)

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


def _embedded(name: str, source: str, target: str) -> Config:
    return Config(
        method=None,
        pair=name,
        steps={"pretrain": 1500, "adapt": 300},
        eval_every=100,
        checkpoint_every=300,
        data=Data(source=source, target=target, image_size=64, batch_size=32),
        augmentation=Augmentation(rotation=20.0),
        model=Model(depth=18, width=16, head_width=32, upsampling=4, sigma=1.5, **_SHORT),
        optim=_short_schedule(),
    )


def sprites_published(source: str, target: str) -> Config:
    """The paper's own sizes for the dSprites experiment: ResNet-18, 20,000 iterations, 256 px; for a GPU."""
    small = sprites(source, target)
    return dataclasses.replace(
        small,
        pair=small.pair.replace("sprites", "sprites_published"),
        steps={"pretrain": 20_000, "adapt": 20_000},
        eval_every=1000,
        checkpoint_every=1000,
        data=dataclasses.replace(
            small.data,
            source=f"sprites:{source}?train=700000&test=7000&validation=1000",
            target=f"sprites:{target}?train=700000&test=7000&validation=1000",
            image_size=256,
        ),
        model=Model(depth=18),
        optim=Optim(weight_decay=5e-4, drops=()),
    )


PUBLISHED: dict[str, Callable[[], Config]] = {
    "rhd_h3d": rhd_h3d,
    "freihand_rhd": freihand_rhd,
    "rhd_mvhand": rhd_mvhand,
    "surreal_human36m": surreal_human36m,
    "surreal_lsp": surreal_lsp,
}

_PAIRS: dict[str, Callable[[], Config]] = {
    "bodies": bodies,
    "hands": hands,
    "ultrasound": ultrasound,
    "custom": custom,
    "lspet": lspet,
    "synth_body": synth_body,
    "synth_hand": synth_hand,
    **PUBLISHED,
    **{
        f"{name}_{a[0]}2{b[0]}": functools.partial(make, a, b)
        for name, make in (("sprites", sprites), ("sprites_published", sprites_published))
        for a in _VARIANTS
        for b in _VARIANTS
        if a != b
    },
}
