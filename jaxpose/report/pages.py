"""What the HTML pages share: self-contained, with one style, nothing fetched."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.report import draw, figures

_DARK_INK, _DARK_GRID = "#b4b8c2", "#2d3138"
PANEL = 256  # pixels of the shorter side of a drawn picture


def render(template: str, **values: Any) -> str:
    """A page from a template beside this file; what UTF-8 cannot take, of file names, is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template(template).render(**values)
    return page.encode("utf-8", "backslashreplace").decode()


def picture_uri(image: np.ndarray, keypoints: np.ndarray, visible: np.ndarray, skeleton: Skeleton) -> str:
    """A picture with its skeleton (`draw.draw_skeleton`) for an `img` tag."""
    small = _shrunk(image)
    keypoints = (keypoints + 0.5) * (np.divide(small.shape[1::-1], image.shape[1::-1])) - 0.5
    return image_uri(draw.draw_skeleton(small, keypoints, visible, skeleton, size=PANEL))


def small_uri(image: np.ndarray) -> str:
    """A picture alone, no larger than one with a skeleton, for an `img` tag."""
    return image_uri(_shrunk(image))


def _shrunk(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    factor = PANEL / min(height, width)
    if factor >= 1:
        return image
    return cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)


def image_uri(image: np.ndarray) -> str:
    """RGB pixels for an `img` tag."""
    _, encoded = cv2.imencode(".webp", image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 80])
    return data_uri("image/webp", encoded.tobytes())


def data_uri(kind: str, content: bytes) -> str:
    """Content as a link that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def svg_uri(path: Path) -> str:
    """The figure with the page's font, and light greys in the dark."""
    svg = path.read_text(encoding="utf-8")
    svg = svg.replace(figures.INK, "var(--ink)").replace(figures.GRID, "var(--grid)")
    style = (
        f"<style>:root{{--ink:{figures.INK};--grid:{figures.GRID}}}"
        f"@media(prefers-color-scheme:dark){{:root{{--ink:{_DARK_INK};--grid:{_DARK_GRID}}}}}"
        "text{font-family:system-ui,sans-serif!important}</style>"
    )
    start = svg.index(">", svg.index("<svg")) + 1
    return data_uri("image/svg+xml", (svg[:start] + style + svg[start:]).encode())


def css_colour(colour: Iterable[int]) -> str:
    """RGB as in `#40c4ff`."""
    return "#" + bytes(colour).hex()
