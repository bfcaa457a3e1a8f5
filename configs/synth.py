"""Renders a labelled source of people or hands, for `tfds:synth_body` and `tfds:synth_hand`.

    pip install -e '.[synth]'
    python -m jaxpose.main --mode=synthesize --config=configs/synth.py:body [--data_dir=DIR]
    python -m jaxpose.main --mode=synthesize --config=configs/synth.py:hand [--config.backgrounds=PHOTOS]

Words: `body` (the default) or `hand`; `cmu` and `bandai`, the two sides of `configs/relation.py:mocap_people`, people
who move as in a folder or tar of BVH files, which may not be compressed:

    python -m jaxpose.main --mode=synthesize --config=configs/synth.py:cmu --config.motions=FOLDER
    python -m jaxpose.main --mode=synthesize --config=configs/synth.py:bandai --config.motions=FOLDER \
      --config.backgrounds=PHOTOS

About 9,000 images of 256 pixels take minutes on two CPU cores.
"""

import dataclasses

from jaxpose.synth.write import Synthesis

_KINDS = {
    "body": Synthesis(name="synth_body", kind="body"),
    "hand": Synthesis(name="synth_hand", kind="hand"),
    "cmu": Synthesis(
        name="cmu_people",
        kind="body",
        train=4096,
        validation=128,
        clip_length=2,
        image_size=128,
        truncation=0.0,
        rate=30.0,
    ),
    "bandai": Synthesis(
        name="bandai_people",
        kind="body",
        train=6144,
        test=2048,
        clip_length=64,
        image_size=128,
        seed=1,
        truncation=0.0,
        rate=30.0,
    ),
}


def get_config(kind: str | None = None) -> Synthesis:
    kind = kind or "body"
    if kind not in _KINDS:
        raise ValueError(f"found {kind!r}, expected one of {', '.join(_KINDS)}")
    return dataclasses.replace(_KINDS[kind])
