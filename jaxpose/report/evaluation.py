"""One evaluation as tables, with what the numbers are fractions of."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxpose.config import Config
from jaxpose.report import text


def table(found: Mapping[str, Any]) -> str:
    """All tables of an evaluation as plain text, and below them what their metrics mean."""
    meanings = [f"{metric}: {meaning}" for metric, meaning in found["meaning"].items()]
    return "\n".join([text.summary_table(found), "", *map(text.plain, meanings)])


def meanings(config: Config, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What the values of each metric that was measured are: in which unit, or a fraction of what."""
    size, margin = config.data.image_size, config.data.margin
    crop = f"the crop's side ({size} px of the input; {margin:g} times the longer side of the box, or the whole image)"
    whats = {
        "pck": f"share of labels nearer than that fraction of {crop}, all labels together",
        "sure_pck": f"the same, of the surer half of the points, as a fraction of {crop}",
        "tllib_pck": "as the released code of RegDA counts, as a fraction of the heatmap's side",
        "pckh": "share of labels nearer than that fraction of the size of the head",
        "pckh_compat": "share of labels nearer than that fraction of the size of the head",
        "error_px": "distance from the label in pixels of the stored image, over all labels",
        "epe": "mean distance from the label in pixels of the stored image",
        "nme": "mean distance relative to " + (" - ".join(config.nme_joints) or "the longer side of the box"),
    }
    by_kind: dict[str, dict[str, None]] = {}
    for row in rows:
        by_kind.setdefault(row["metric"].partition("@")[0], {})[text.metric_title(row["metric"])] = None
    return {", ".join(titles): whats[kind] for kind, titles in by_kind.items() if kind in whats}
