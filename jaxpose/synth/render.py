"""Draws one person before a background: rasterised, lit by sun and sky, with soft shadows."""

# The extra is optional: type checks pass without it.
# pyright: reportMissingImports=false

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxpose.synth import body

MAP = 320  # side of the buffers that shadows are read from


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """What the camera sees.

    Attributes:
      colour: linear RGB, float32 (H, W, 3).
      parts: numbers of `body.PARTS` from 1, 0 for the background, uint8 (H, W).
      depth: metres along the optical axis, 0 for the background, float32 (H, W).
    """

    colour: np.ndarray
    parts: np.ndarray
    depth: np.ndarray


def skin(rest: np.ndarray, transforms: np.ndarray, device: str) -> Any:
    """The mesh in T poses, a warp array (T, V) of vectors on the device.

    Args:
      rest: vertices at rest, shape (V, 3).
      transforms: of the bones, shape (T, B, 3, 4).
      device: `cpu` or `cuda`.
    """
    wp, kernels = _warp()
    mesh = _mesh(device)
    moved = wp.empty((len(transforms), len(rest)), dtype=wp.vec3, device=device)
    points = wp.array(rest.astype(np.float32), dtype=wp.vec3, device=device)
    matrices = wp.array(transforms.astype(np.float32), dtype=wp.float32, device=device)
    inputs = [points, mesh["bones"], mesh["weights"], matrices]
    wp.launch(kernels.skin, dim=moved.shape, inputs=inputs, outputs=[moved], device=device)
    return moved


def draw(
    vertices: Any,
    *,
    drawn: np.ndarray,
    look: Mapping[str, Any],
    scene: Mapping[str, Any],
    background: np.ndarray,
    device: str,
) -> Image:
    """Draws one frame.

    Args:
      vertices: in the world, a warp array (V,) of vectors.
      drawn: which faces exist, uint8 (F,).
      look: fields of the kernels' `Look`.
      scene: fields of the kernels' `Scene`.
      background: linear RGB, float32 (H, W, 3).
      device: `cpu` or `cuda`.
    """
    wp, kernels = _warp()
    mesh = _mesh(device)
    height, width, _ = background.shape
    samples = 2
    count = len(vertices)
    normals = wp.zeros(count, dtype=wp.vec3, device=device)
    faces = len(mesh["faces"])
    wp.launch(kernels.add_normals, dim=faces, inputs=[vertices, mesh["faces"]], outputs=[normals], device=device)
    camera, sun, above = (wp.empty(count, dtype=wp.vec3, device=device) for _ in range(3))
    view = _filled(kernels.Scene(), scene)
    wp.launch(
        kernels.project, dim=count, inputs=[vertices, view, float(MAP)], outputs=[camera, sun, above], device=device
    )
    shown = wp.array(drawn.astype(np.uint8), dtype=wp.uint8, device=device)
    keys = wp.zeros((height * samples, width * samples), dtype=wp.int64, device=device)
    sun_map, above_map = (wp.zeros((MAP, MAP), dtype=wp.int64, device=device) for _ in range(2))
    for points, cull, buffer in ((camera, 1, keys), (sun, 0, sun_map), (above, 0, above_map)):
        inputs = [points, mesh["faces"], shown, cull]
        wp.launch(kernels.rasterise, dim=faces, inputs=inputs, outputs=[buffer], device=device)
    colours = wp.empty((height, width), dtype=wp.vec3, device=device)
    segments = wp.empty((height, width), dtype=wp.uint8, device=device)
    depths = wp.empty((height, width), dtype=wp.float32, device=device)
    behind = wp.array(np.ascontiguousarray(background, dtype=np.float32), dtype=wp.vec3, device=device)
    inputs = [
        *(keys, sun_map, above_map, camera, vertices, normals, mesh["template"], mesh["fields"], mesh["paint"]),
        *(mesh["faces"], mesh["parts"], view, _filled(kernels.Look(), look), behind),
    ]
    outputs = [colours, segments, depths]
    wp.launch(kernels.shade, dim=(height, width), inputs=inputs, outputs=outputs, device=device)
    return Image(colour=colours.numpy(), parts=segments.numpy(), depth=depths.numpy())


@functools.cache
def _warp() -> tuple[Any, Any]:
    body.load()  # raises if the extra is absent
    import warp

    from jaxpose.synth import _kernels

    return warp, _kernels


@functools.cache
def _mesh(device: str) -> dict[str, Any]:
    """The constant arrays of the mesh on a device."""
    wp, _ = _warp()
    known = body.load()
    kinds = {
        "faces": (known.faces, wp.int32),
        "bones": (known.bones, wp.int32),
        "weights": (known.weights, wp.float32),
        "parts": (known.parts, wp.uint8),
        "template": (known.template, wp.vec3),
        "fields": (known.fields, wp.vec4),
        "paint": (known.paint, wp.vec4),
    }
    return {name: wp.array(value, dtype=kind, device=device) for name, (value, kind) in kinds.items()}


def _filled(struct: Any, values: Mapping[str, Any]) -> Any:
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value = value.astype(np.float32).ravel().tolist()
            kind = {2: "vec2", 3: "vec3", 9: "mat33"}[len(value)]
            value = getattr(_warp()[0], kind)(*value)
        setattr(struct, name, value)
    return struct
