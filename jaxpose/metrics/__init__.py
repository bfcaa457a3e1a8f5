"""Metrics, and which one a row of `results.json` is of."""

from jaxpose.metrics.ap import OKSAP
from jaxpose.metrics.error import EPE, NME, PixelError
from jaxpose.metrics.mae import MAE
from jaxpose.metrics.metric import Scale
from jaxpose.metrics.mpjpe import MPJPE, PCK3D, ReleasedPAMPJPE
from jaxpose.metrics.pck import PCK, PCKh, SurePCK, TllibPCK

_SCALES = {
    "pck": PCK.scale,
    "sure_pck": SurePCK.scale,
    **dict.fromkeys(("pckh", "pckh_compat"), PCKh.scale),
    "tllib_pck": TllibPCK.scale,
    **dict.fromkeys(("ap", "ar"), OKSAP.scale),
    "mae": MAE.scale,
    "error_px": PixelError.scale,
    "epe": EPE.scale,
    "nme": NME.scale,
    **dict.fromkeys(("mpjpe", "n_mpjpe", "pa_mpjpe"), MPJPE.scale),
    "reconstruction": Scale(unit="mm", lower_is_better=True),
    **dict.fromkeys(("non_localness", "relation_error"), Scale(unit="random pairs", lower_is_better=True, digits=2)),
    "released_pa_mpjpe": ReleasedPAMPJPE.scale,
    **{f"{align}{name}": PCK3D.scale for align in ("", "n_", "pa_") for name in ("3dpck", "3dauc")},
}


def scale_of(metric: str) -> Scale:
    """How values of rows of `pck@0.05` or `error_px` are to be read; plain numbers where no metric here wrote them."""
    return _SCALES.get(metric.partition("@")[0], Scale(unit="", lower_is_better=False))
