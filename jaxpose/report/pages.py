"""What the HTML pages share: self-contained, with one style, nothing fetched, nothing run."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from jaxpose.data.skeletons import Skeleton
from jaxpose.report import draw

PANEL = 256  # pixels of the shorter side of a drawn picture


def render(template: str, **values: Any) -> str:
    """A page from a template beside this file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def picture_uri(image: np.ndarray, keypoints: np.ndarray, visible: np.ndarray, skeleton: Skeleton) -> str:
    """A picture with its skeleton (`draw.draw_skeleton`) for an `img` tag."""
    height, width = image.shape[:2]
    factor = PANEL / min(height, width)
    if factor < 1:
        size = (round(width * factor), round(height * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        keypoints = (keypoints + 0.5) * (np.array(size) / (width, height)) - 0.5
    return image_uri(draw.draw_skeleton(image, keypoints, visible, skeleton, size=PANEL))


def image_uri(image: np.ndarray) -> str:
    """RGB pixels for an `img` tag."""
    _, encoded = cv2.imencode(".webp", image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 80])
    return data_uri("image/webp", encoded.tobytes())


def data_uri(kind: str, content: bytes) -> str:
    """Content as a link that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def css_colour(colour: Iterable[int]) -> str:
    """RGB as in `#40c4ff`."""
    return "#" + bytes(colour).hex()
