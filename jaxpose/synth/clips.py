"""One clip: who, how they move, from where they are seen, and what the camera makes of it."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from jaxpose.data.records import MISSING, OCCLUDED, VISIBLE, Record
from jaxpose.synth import backgrounds, body, looks, poses, recorded, render

if TYPE_CHECKING:
    from jaxpose.synth import SynthConfig


def render_clip(config: "SynthConfig", index: int, joints: tuple[str, ...]) -> list[Record]:
    """The records of one clip; see `jaxpose.synth.render_clip`."""
    rng = np.random.default_rng((config.seed, ("body", "hand").index(config.kind), index))
    actor = _actor(rng, config)
    camera = _body_camera(rng, config, actor) if config.kind == "body" else _hand_camera(rng, config, actor)
    look = looks.outfit(rng, config.kind, actor.female)
    drawn = looks.pieces(rng, body.load(), look, actor.female) * camera.drawn
    rest = looks.dressed(rng, body.load(), actor.rest, look)
    vertices = render.skin(rest, actor.transforms, config.device)
    behind, scene = _surroundings(rng, config, actor, camera)
    faults = _faults(rng, config.image_size)
    cover = backgrounds.occluder(rng, config.image_size) if rng.random() < 0.12 else None
    name = f"synth-{config.kind}-{config.seed}-{index:07d}"
    records = []
    for frame in range(config.clip_length):
        seen = scene | {
            "rotation": camera.rotation[frame],
            "eye": camera.eye[frame],
            "focal": camera.focal,
            "centre": camera.centre,
        }
        image = render.draw(
            vertices[frame], drawn=drawn, look=look, scene=seen, background=behind, device=config.device
        )
        colour, parts, depth = image.colour, image.parts, image.depth
        if cover is not None:
            colour = np.where(cover[1][..., None], cover[0], colour)
            parts = np.where(cover[1], 0, parts).astype(np.uint8)
            depth = np.where(cover[1], 0.05, depth)
        places = _joints(joints, actor, frame, config.kind)
        local = (places - camera.eye[frame]) @ camera.rotation[frame].T
        keypoints = local[:, :2] / np.maximum(local[:, 2:], 1e-3) * camera.focal + camera.centre
        inside = (
            (local[:, 2] > 0.03) & (keypoints > -0.5).all(axis=1) & (keypoints < config.image_size - 0.5).all(axis=1)
        )
        clear = _in_sight(joints, keypoints, local[:, 2], image.parts, depth, actor.girth)
        mask = parts > 0
        if config.kind == "hand":
            mask = parts == body.PARTS.index(f"{actor.side}_hand") + 1
        record = Record(
            image=_photograph(rng, colour, faults),
            keypoints=keypoints.astype(np.float32),
            visible=np.where(inside, np.where(clear, VISIBLE, OCCLUDED), MISSING).astype(np.uint8),
            name=f"{name}-{frame:02d}",
            bbox=_box(mask, keypoints, config.image_size),
            area=float(mask.sum()),
            keypoints3d=local.astype(np.float32),
            intrinsics=np.array(
                ((camera.focal, 0, camera.centre[0]), (0, camera.focal, camera.centre[1]), (0, 0, 1)), np.float32
            ),
            sequence=name,
            frame=frame,
            segmentation=cv2.imencode(".png", parts)[1].tobytes(),
        )
        if config.kind == "hand":
            record["hand"] = actor.side
        records.append(record)
    return records


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Actor:
    """A person over T frames, standing on the plane z = 0."""

    rest: np.ndarray  # (V, 3)
    heads: np.ndarray  # (T, B, 3)
    transforms: np.ndarray  # (T, B, 3, 4)
    side: str  # the hand before the camera
    girth: float  # thickness relative to the template
    female: bool


def _actor(rng: np.random.Generator, config: "SynthConfig") -> _Actor:
    known = body.load()
    rest, heads, female = looks.person(rng)
    side = "left" if rng.random() < 0.5 else "right"
    if config.kind == "hand":
        turned = poses.orientations(known, heads, poses.sample_hand(rng, side, config.clip_length))
    elif config.motions is not None:
        turned = recorded.sample(rng, config.motions, known, heads, config.clip_length, config.rate)
    else:
        turned = poses.orientations(known, heads, poses.sample_body(rng, config.clip_length))
    places, transforms = poses.forward(known, heads, turned)
    # The lowest of some points all over the mesh touches the floor.
    spots = np.arange(0, len(rest), 23)
    own = transforms[:, known.owner[spots]]
    height = (own[..., 2, :3] * rest[spots]).sum(axis=-1) + own[..., 2, 3]
    lift = np.array((0, 0, 1.0)) * -height.min(axis=1)[:, None]
    transforms[..., 3] += lift[:, None]
    girth = np.sqrt(np.prod(rest.std(axis=0)[1:]) / np.prod(known.template.std(axis=0)[1:]))
    return _Actor(
        rest=rest, heads=places + lift[:, None], transforms=transforms, side=side, girth=float(girth), female=female
    )


def _joints(names: tuple[str, ...], actor: _Actor, frame: int, kind: str) -> np.ndarray:
    """Where the joints are in the world, (K, 3)."""
    known = body.load()
    heads, transforms = actor.heads[frame], actor.transforms[frame]

    def bone(label: str) -> np.ndarray:
        return heads[known.index(label)]

    def surface(vertices: np.ndarray) -> np.ndarray:
        weights, moved = known.weights[vertices], transforms[known.bones[vertices]]
        points = np.einsum("vkij,vj->vki", moved[..., :3], actor.rest[vertices]) + moved[..., 3]
        return (weights[..., None] * points).sum(axis=1).mean(axis=0)

    found = {}
    if kind == "hand":
        s = "L" if actor.side == "left" else "R"
        found["wrist"] = bone(f"wrist_{s}")
        for k, finger in enumerate(body.FINGERS):
            first, second, third = (bone(f"finger{k + 1}-{j}_{s}") for j in (1, 2, 3))
            tip = surface(known.tips[actor.side][k])
            tip = tip + 0.12 * (third - tip)  # the bone ends below the skin
            if finger == "thumb":
                chain = zip(("cmc", "mcp", "ip", "tip"), (first, second, third, tip), strict=True)
            else:
                # The mesh bends fingers near their webs, the knuckle lies before them.
                knuckle = first + 0.15 * (bone(f"metacarpal{k}_{s}") - first)
                chain = zip(("mcp", "pip", "dip", "tip"), (knuckle, second, third, tip), strict=True)
            found |= {f"{finger}_{name}": place for name, place in chain}
    else:
        for side, s, _ in body.SIDES:
            for name, label in _BONES.items():
                found[f"{side}_{name}"] = bone(f"{label}_{s}")
        found |= {name: surface(vertices) for name, vertices in known.landmarks.items()}
        found["pelvis"] = (found["left_hip"] + found["right_hip"]) / 2
        shoulders = (found["left_shoulder"] + found["right_shoulder"]) / 2
        clavicles = (bone("clavicle_L") + bone("clavicle_R")) / 2
        found["thorax"] = (shoulders + clavicles) / 2
        found["neck"] = clavicles + 0.65 * (bone("neck01") - clavicles)
        down = (found["pelvis"] - found["thorax"]) * 0.06
        for side, _, _ in body.SIDES:
            found[f"{side}_collar"] = (found["thorax"] + found[f"{side}_shoulder"]) / 2 + down
    return np.stack([found[name] for name in names])


_BONES = {
    "shoulder": "upperarm01",
    "elbow": "lowerarm01",
    "wrist": "wrist",
    "hip": "upperleg01",
    "knee": "lowerleg01",
    "ankle": "foot",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Camera:
    rotation: np.ndarray  # (T, 3, 3) world to camera
    eye: np.ndarray  # (T, 3)
    focal: float
    centre: np.ndarray  # (2,)
    drawn: np.ndarray  # faces that exist, uint8 (F,)
    plain: bool  # whether only a limb is drawn, before a background without floor


def _body_camera(rng: np.random.Generator, config: "SynthConfig", actor: _Actor) -> _Camera:
    names = _joint_names("body")
    places = np.stack([_joints(names, actor, t, "body") for t in range(config.clip_length)])
    target = places.mean(axis=(0, 1))
    azimuth = rng.normal(0, 0.75) if rng.random() < 0.6 else rng.uniform(-np.pi, np.pi)
    elevation = np.radians(np.clip(rng.normal(8, 13), -18, 60))
    distance = np.exp(rng.uniform(np.log(1.9), np.log(7.5))) * np.ptp(actor.rest[:, 2]) / 1.75
    away = _direction(azimuth, elevation)
    eye = target + distance * away
    eye[2] = max(eye[2], 0.15)
    rotation = _facing(target - eye, rng.normal(0, 0.09))
    if rng.random() < config.truncation:  # only the upper body, or what is around some joint
        around = places[:, [rng.integers(len(names)), names.index("thorax"), names.index("head_top")]]
    else:
        around = places
    local = (around - eye) @ rotation.T
    return _framed(rng, config, local, rotation, eye, np.ones(len(body.load().faces), np.uint8))


def _hand_camera(rng: np.random.Generator, config: "SynthConfig", actor: _Actor) -> _Camera:
    known = body.load()
    s = "L" if actor.side == "left" else "R"
    places = np.stack([_joints(_joint_names("hand"), actor, t, "hand") for t in range(config.clip_length)])
    target = places.mean(axis=(0, 1))
    drawn = np.ones(len(known.faces), np.uint8)
    style = rng.random()
    plain = style > 0.65
    if style < 0.35:  # the person's own view, from the eyes or a camera on the chest
        start = actor.heads[:, known.index("head")].mean(axis=0)
        if rng.random() < 0.3:
            start = actor.heads[:, known.index("spine01")].mean(axis=0) + np.array((0, -0.12, 0))
        eye = start + np.array((rng.normal(0, 0.06), -0.1, rng.normal(0, 0.05)))
        drawn[known.parts == body.PARTS.index("head") + 1] = 0
        roll = rng.normal(0, 0.25)
    else:
        away = _direction(rng.normal(0, 0.9), rng.normal(0.1, 0.5))
        if plain:  # from all around but along the arm, whose end would show
            wrist, elbow = (actor.heads[:, known.index(f"{bone}_{s}")].mean(axis=0) for bone in ("wrist", "lowerarm01"))
            along = (elbow - wrist) / np.linalg.norm(elbow - wrist)
            away = along
            while away @ along > 0.35:
                away = rng.standard_normal(3)
                away /= np.linalg.norm(away)
        eye = target + away * rng.uniform(0.3, 0.9)
        roll = rng.normal(0, 0.35) if not plain else rng.uniform(-np.pi, np.pi)
    if plain:
        arm = [body.PARTS.index(f"{actor.side}_{part}") + 1 for part in ("hand", "forearm", "upper_arm")]
        drawn[~np.isin(known.parts, arm[: 2 + int(rng.random() < 0.5)])] = 0
    rotation = _facing(target - eye, roll)
    return _framed(rng, config, (places - eye) @ rotation.T, rotation, eye, drawn, plain)


def _framed(
    rng: np.random.Generator,
    config: "SynthConfig",
    local: np.ndarray,
    rotation: np.ndarray,
    eye: np.ndarray,
    drawn: np.ndarray,
    plain: bool = False,
) -> _Camera:
    """The camera whose image the points (T, K, 3) of its frame fill up to some jitter."""
    size = config.image_size
    flat = (local[..., :2] / np.maximum(local[..., 2:], 0.05)).reshape(-1, 2)
    low, high = flat.min(axis=0), flat.max(axis=0)
    focal = size * rng.uniform(*config.crop) / (high - low).max()
    centre = (size - 1) / 2 + size * rng.uniform(-0.06, 0.06, 2) - focal * (low + high) / 2
    # Hand-held: the camera turns a little over the clip.
    time = np.linspace(-0.5, 0.5, config.clip_length)
    sway = np.outer(time, rng.normal(0, 0.012, 3))
    turned = np.stack([cv2.Rodrigues(step)[0] @ rotation for step in sway])
    return _Camera(
        rotation=turned,
        eye=np.repeat(eye[None], config.clip_length, axis=0),
        focal=float(focal),
        centre=centre,
        drawn=drawn,
        plain=plain,
    )


def _direction(azimuth: float, elevation: float) -> np.ndarray:
    """From the body to the camera: azimuth 0 is before it, positive to its left."""
    cos = np.cos(elevation)
    return np.array((np.sin(azimuth) * cos, -np.cos(azimuth) * cos, np.sin(elevation)))


def _facing(forward: np.ndarray, roll: float) -> np.ndarray:
    """World to the frame of a camera that looks along `forward`, its image upright but for the roll in radians."""
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1.0))
    if np.linalg.norm(right) < 1e-3:
        right = np.array((1.0, 0, 0))
    right /= np.linalg.norm(right)
    upright = np.stack((right, np.cross(forward, right), forward))
    return poses.rotation(np.array((0, 0, 1.0)), roll) @ upright


def _surroundings(
    rng: np.random.Generator, config: "SynthConfig", actor: _Actor, camera: _Camera
) -> tuple[np.ndarray, dict[str, Any]]:
    behind = backgrounds.sample(rng, config.image_size, config.backgrounds)
    away = -camera.rotation[0, 2] * (1, 1, 0)
    away = away / (np.linalg.norm(away) + 1e-9)
    scene = looks.lights(rng, away)
    pitch = -camera.rotation[0, 2, 2]  # how far the camera looks down
    floor = 0
    if not camera.plain and pitch > 0.03:
        odds = (0.5, 0.5, 0) if config.backgrounds is not None else (0.35, 0.15, 0.5)
        floor = int(rng.choice(3, p=odds))
    places = actor.heads.reshape(-1, 3)
    if config.kind == "hand":
        wrist = actor.heads[:, body.load().index(f"wrist_{'L' if actor.side == 'left' else 'R'}")]
        middle, reach = wrist.mean(axis=0), 0.5
    else:
        low, high = places.min(axis=0), places.max(axis=0)
        middle, reach = (low + high) / 2, 0.5 * float(np.linalg.norm(high - low)) + 0.25
    cloth = [backgrounds.linear(backgrounds.colour(rng, 0.6)) for _ in range(4)]
    turn = rng.normal(0, 0.4)
    normal = poses.rotation(np.array((0, 0, 1.0)), turn) @ away
    scene |= {
        "middle": middle,
        "reach": reach,
        "floor": floor,
        "floor_height": 0.0,
        "floor_colour": cloth[0],
        "floor_dye": cloth[0] + rng.uniform(0.1, 0.9) * (cloth[1] - cloth[0]),
        "floor_pattern": int(rng.choice((0, 3, 4, 6, 7, 1))),
        "floor_scale": float(np.exp(rng.uniform(np.log(0.15), np.log(1.2)))),
        "wall": float(rng.uniform(0.7, 4.0)) if floor == 2 and rng.random() < 0.7 else 0.0,
        "wall_normal": normal,
        "wall_colour": cloth[2],
        "wall_dye": cloth[2] + rng.uniform(0.1, 0.9) * (cloth[3] - cloth[2]),
        "wall_pattern": int(rng.choice((0, 0, 1, 2, 4, 6, 7))),
        "wall_scale": float(np.exp(rng.uniform(np.log(0.1), np.log(1.0)))),
        "seed": int(rng.integers(1 << 30)),
    }
    return behind, scene


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Faults:
    """What the camera does to an image."""

    blur: float
    kernel: np.ndarray | None  # of the camera's motion
    gain: np.ndarray  # (3,)
    contrast: float
    vignette: float
    noise: float  # grey levels
    quality: int


def _faults(rng: np.random.Generator, size: int) -> _Faults:
    kernel = None
    if rng.random() < 0.25:
        length = rng.uniform(1.0, 5.0) * size / 256
        angle = rng.uniform(0, np.pi)
        half = np.array((np.cos(angle), np.sin(angle))) * length / 2
        side = 2 * int(np.ceil(length / 2)) + 1
        kernel = np.zeros((side, side), np.float32)
        middle = np.array((side // 2, side // 2))
        ends = [np.rint((middle + sign * half) * 16).astype(int).tolist() for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
        kernel /= kernel.sum()
    return _Faults(
        blur=float(rng.choice((0.0, rng.uniform(0.3, 1.1)), p=(0.5, 0.5))) * size / 256,
        kernel=kernel,
        gain=rng.normal(1, 0.03, 3),
        contrast=float(rng.uniform(0.85, 1.12)),
        vignette=float(rng.choice((0.0, rng.uniform(0.05, 0.3)))),
        noise=float(rng.uniform(0.5, 7.0)),
        quality=int(rng.integers(70, 96)),
    )


def _photograph(rng: np.random.Generator, linear: np.ndarray, faults: _Faults) -> bytes:
    """A JPEG of linear RGB."""
    size = len(linear)
    image = linear * faults.gain.astype(np.float32)
    if faults.kernel is not None:
        image = cv2.filter2D(image, -1, faults.kernel)
    if faults.blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), faults.blur)
    if faults.vignette > 0:
        y = np.linspace(-1, 1, size, dtype=np.float32) ** 2
        image = image * (1 - np.float32(faults.vignette) * 0.5 * (y[:, None, None] + y[None, :, None]))
    # Highlights roll off as in a camera rather than clip.
    image = np.maximum(image, 0)
    image = np.where(image > 0.7, 0.7 + 0.3 * np.tanh((image - 0.7) / 0.3), image)
    image = cv2.pow(image, 1 / 2.2) * 255
    image = (image - 110) * np.float32(faults.contrast) + 110
    image += faults.noise * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    done, data = cv2.imencode(".jpg", pixels[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, faults.quality))
    assert done
    return data.tobytes()


def _in_sight(
    joints: tuple[str, ...], keypoints: np.ndarray, z: np.ndarray, parts: np.ndarray, depth: np.ndarray, girth: float
) -> np.ndarray:
    """Whether three of the nine pixels around each joint show what is around the joint or behind it, bool (K,).

    Most joints lie below the surface: a part that meets in a joint may be nearer than it by twice the usual depth of
    such joints, anything else by that depth.
    """
    height, width = depth.shape
    steps = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), axis=-1).reshape(-1, 2)
    around = np.rint(np.clip(keypoints, -9, 1e4)).astype(int)[:, None] + steps
    x, y = np.clip(around[..., 0], 0, width - 1), np.clip(around[..., 1], 0, height - 1)
    below, own = _anatomy(joints)
    margin = np.where(np.take_along_axis(own, parts[y, x].astype(int), axis=1), 2, 1) * (girth * below)[:, None]
    found = depth[y, x]
    return ((found == 0) | (found > z[:, None] - margin)).sum(axis=1) >= 3


def _box(mask: np.ndarray, keypoints: np.ndarray, size: int) -> np.ndarray:
    """The box of a mask, x, y, width, height in pixels; of the joints in the image if the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows):
        x0, y0, x1, y1 = columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5
    else:
        inside = np.clip(keypoints, -0.5, size - 0.5)
        (x0, y0), (x1, y1) = inside.min(axis=0), inside.max(axis=0)
    return np.array((x0, y0, x1 - x0, y1 - y0), np.float32)


def _joint_names(kind: str) -> tuple[str, ...]:
    from jaxpose import synth

    return synth.skeleton(kind).joints


@functools.cache
def _anatomy(joints: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """How far joints lie below the skin in metres (K,), and whether each part meets in them, bool (K, parts + 1)."""
    below = np.zeros(len(joints))
    own = np.zeros((len(joints), len(body.PARTS) + 1), bool)
    for i, joint in enumerate(joints):
        side, _, name = joint.partition("_")
        if side not in ("left", "right"):
            side, name = "", joint
        if name.startswith(body.FINGERS):
            below[i] = 0.013
            continue
        below[i], around = _AROUND[name]
        for part in around:
            full = part if part in body.PARTS else f"{side}_{part}"
            for k, known in enumerate(body.PARTS):
                own[i, k + 1] |= known == full or (not side and known.endswith(f"_{part}"))
    return below, own


_AROUND = {
    "nose": (0.02, ("head",)),
    "eye": (0.02, ("head",)),
    "ear": (0.03, ("head",)),
    "head_top": (0.09, ("head",)),
    "neck": (0.09, ("head", "torso")),
    "thorax": (0.1, ("torso",)),
    "collar": (0.09, ("torso",)),
    "shoulder": (0.08, ("torso", "upper_arm")),
    "elbow": (0.06, ("upper_arm", "forearm")),
    "wrist": (0.04, ("forearm", "hand")),
    "pelvis": (0.14, ("torso", "thigh")),
    "hip": (0.12, ("torso", "thigh")),
    "knee": (0.08, ("thigh", "shin")),
    "ankle": (0.07, ("shin", "foot")),
}
