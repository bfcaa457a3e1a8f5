"""Renders a labelled source of people or hands, for `tfds:synth_body` and `tfds:synth_hand`.

    pip install -e '.[synth]'
    python -m jaxpose.main --mode=synthesize --config=configs/synth.py:body [--data_dir=DIR]
    python -m jaxpose.main --mode=synthesize --config=configs/synth.py:hand [--config.backgrounds=PHOTOS]

Words: `body` (the default) or `hand`. About 9,000 images of 256 pixels take minutes on two CPU cores.
"""

from jaxpose.synth.write import Synthesis


def get_config(kind: str | None = None) -> Synthesis:
    kind = kind or "body"
    if kind not in ("body", "hand"):
        raise ValueError(f"found {kind!r}, expected body or hand")
    return Synthesis(name=f"synth_{kind}", kind=kind)
