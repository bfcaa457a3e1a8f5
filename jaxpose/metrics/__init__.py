"""Metrics, and which one a row of `results.json` is of."""

from jaxpose.metrics.error import PixelError
from jaxpose.metrics.mae import MAE
from jaxpose.metrics.metric import Scale
from jaxpose.metrics.mpjpe import MPJPE
from jaxpose.metrics.pck import PCK, TllibPCK

_SCALES = {
    "pck": PCK.scale,
    "tllib_pck": TllibPCK.scale,
    "mae": MAE.scale,
    "error_px": PixelError.scale,
    **dict.fromkeys(("mpjpe", "n_mpjpe", "pa_mpjpe"), MPJPE.scale),
}


def scale_of(metric: str) -> Scale:
    """How values of rows of `pck@0.05` or `error_px` are to be read; plain numbers where no metric here wrote them."""
    return _SCALES.get(metric.partition("@")[0], Scale(unit="", lower_is_better=False))
