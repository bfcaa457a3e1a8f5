"""Named pairs of domains, with the data, network and schedule that suit them.

A config file names a pair and joins further words with commas: `configs/regda.py:ultrasound,quick`. The recipe's file
decides on the method; everything else comes from here, so that recipes are compared under the same conditions.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from jaxpose.config import Config, Data, Model
from jaxpose.data.augment import Augmentation
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
        model=dataclasses.replace(config.model, depth=18, width=8, head_width=16, sigma=1.0),
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


def reject(words: set[str], *known: str) -> None:
    """Raises a ValueError that names a word no one knows."""
    if words - set(known):
        expected = ", ".join((*_PAIRS, "quick", *known))
        raise ValueError(f"found {sorted(words - set(known))[0]!r}, expected one of {expected}")


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


_PAIRS: dict[str, Callable[[], Config]] = {
    "bodies": bodies,
    "hands": hands,
    "ultrasound": ultrasound,
    "custom": custom,
    "lspet": lspet,
    "synth_body": synth_body,
    "synth_hand": synth_hand,
    **{
        f"{name}_{a[0]}2{b[0]}": functools.partial(make, a, b)
        for name, make in (("sprites", sprites), ("sprites_published", sprites_published))
        for a in _VARIANTS
        for b in _VARIANTS
        if a != b
    },
}
