"""The published pairs of 3D poses in images, which relation distillation adapts between; see `pairs`."""

from jaxpose.config import Config, Data
from jaxpose.models import layers
from jaxpose.models.simple_baseline import SimpleBaseline
from jaxpose.ops.augment import Augmentation
from jaxpose.pair import Pair, with_adam

_SURREAL, _HUMAN36M, _3DHP = (f"tfds:{name}?joints=mpii16" for name in ("surreal", "human36m", "mpi_inf_3dhp"))


def surreal_human36m_3d() -> Pair:
    """SURREAL to Human3.6M ("S to H"). Data: prepared `surreal`, `human36m` and `cmu`; see `from_clips`.

    MPJPE and PA-MPJPE in millimetres: 97.8 and 86.2 without labels of the target (the submission: 99.5 and 86.8), 57.6
    and 48.2 with those of one person. By terms (PA-MPJPE, though the table says MPJPE): source-only 209.6, contrastive
    172.1, flip 141.2, flip-backward 95.6, slow-backward 86.8.

    The released evaluation, `released_pa_mpjpe` here, gives predictions the labels' lengths first. It reads 2,181
    frames of one camera of S9 and S11; here, all that the builder has.
    """
    return from_clips("surreal_human36m_3d", _SURREAL, f"{_HUMAN36M}&fps=50")


def human36m_3dhp() -> Pair:
    """Human3.6M to MPI-INF-3DHP ("H to M"). Data: prepared `human36m`, `mpi_inf_3dhp` and `cmu`; see `from_clips`.

    3DPCK@150 89.2 %, AUC 58.1 %, PA-MPJPE 80.4 mm.
    """
    return from_clips("human36m_3dhp", _HUMAN36M, f"{_3DHP}&fps=25")


def surreal_video() -> Pair:
    """SURREAL to people in your own videos ("S to W"), a folder `videos` in `data.root`; see `from_clips`.

    The paper adapts to crops of people in Sports-1M, which is no data set to be had, and is measured on MPI-INF-3DHP:
    3DPCK@150 78.8 %, AUC 43.1 %, PA-MPJPE 116.1 mm; from SURREAL and Human3.6M 84.9 %, 60.1 % and 95.2 mm.
    """
    return from_clips("surreal_video", _SURREAL, "video:videos")


def from_clips(name: str, source: str, target: str) -> Pair:
    """The paper's settings: a ResNet-50 without batch normalisation at 224 pixels, read at 1/16, Adam at 1e-5.

    `model.weights` is torchvision's first ImageNet file, whose normalisations go into the convolutions; looked for
    where the run starts. Clips are read at 30 frames per second; `&fps=` says how many those of the target have.

    What differs from the paper, or what it does not say:
      - Poses, motions and relations have 100,000 updates each; the released code trains poses for 1.5 million at a rate
        of 2e-6, which here begins at 1e-4 and falls to 0.
      - Motions are CMU's; the released code combines CMU's with those of MPI-INF-3DHP and of videos.
      - Images vary as the project's augmentation has it, by 10 degrees and mirrored half of the time; there, colours
        in 30 % and turns in 20 % of the images.
      - The paper gives no number of updates on source or target: 200,000 and 20,000.

    Args:
      name: of the pair.
      source, target: see `data.schemes`.
    """
    steps = {"poses": 100_000, "motions": 100_000, "relations": 100_000, "pretrain": 200_000, "adapt": 20_000}
    config = Config(
        method=None,
        pair=name,
        steps=steps,
        metrics=("pa_mpjpe", "mpjpe", "pa_3dpck", "3dpck"),
        data=Data(source=source, target=target, motions="tfds:cmu", image_size=224, batch_size=128, workers=8),
        augmentation=Augmentation(rotation=10.0, mirror=0.5),
        model=SimpleBaseline(depth=50, norm=layers.Bias, weights="resnet50-19c8e357.pth"),
    )
    small = {"depth": 18, "width": 8, "head_width": 16}
    return Pair(config=with_adam(config, 1e-5), small=small, of_a_paper=True, posed=True, clips=True)
