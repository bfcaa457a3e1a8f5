"""Recorded motions (BVH) that move bodies of any proportions: the directions of bones are kept."""

import functools
from collections.abc import Mapping

import numpy as np
from absl import logging

from jaxpose.data.formats.files import Files
from jaxpose.data.motion import bvh, rigs
from jaxpose.data.records import Motion
from jaxpose.synth import poses
from jaxpose.synth.body import SIDES, Body


def sample(
    rng: np.random.Generator, folder: str, body: Body, heads: np.ndarray, length: int, rate: float
) -> np.ndarray:
    """Orientations (T, B, 3, 3) of a piece of one of the recordings, turned to face the front in its middle.

    Recordings that are shorter are held at their end; ones that cannot be read are skipped, which is logged.

    Args:
      rng: what is random.
      folder: holds BVH files at any depth, or is an uncompressed tar of them.
      body: the mesh.
      heads: where the person's bones begin at rest, shape (B, 3).
      length: frames T.
      rate: frames per second.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it holds no BVH file, or twenty drawn ones cannot be read.
    """
    names = _names(folder)
    for _ in range(20):
        motion = _motion(folder, names[rng.integers(len(names))], rate)
        if motion is not None:
            break
    else:
        raise ValueError(f"{folder}: none of 20 motions drawn can be read")
    frames = np.minimum(
        rng.integers(max(len(motion.positions) - length, 0) + 1) + np.arange(length), len(motion.positions) - 1
    )
    places = dict(zip(motion.joints, np.moveaxis(motion.positions[frames].astype(float), 1, 0), strict=True))
    across = (places["left_hip"] - places["right_hip"])[length // 2]
    yaw = poses.rotation(np.array((0, 0, 1.0)), -np.arctan2(across[1], across[0]))
    places = {joint: place @ yaw.T for joint, place in places.items()}
    fingers = {side: poses.relaxed(rng, length) for side, _, _ in SIDES}
    return retarget(places, body, heads, fingers=fingers, twist=rng.normal(0.1, 0.35, 2))


def retarget(
    places: Mapping[str, np.ndarray],
    body: Body,
    heads: np.ndarray,
    *,
    fingers: Mapping[str, np.ndarray],
    twist: np.ndarray,
) -> np.ndarray:
    """Orientations (T, B, 3, 3) that give a body the directions of recorded bones.

    Elbows and knees bend in the recorded plane; where they are straight, limbs do not twist. Positions say nothing of
    what follows: forearms have the given twist, feet are half levelled, the head looks where the chest does.

    Args:
      places: joints of `rigs.CANONICAL` by name, the world's z up, each (T, 3). `neck` and `head_top` may be missing.
      body: the mesh.
      heads: where the person's bones begin at rest, shape (B, 3).
      fingers: angles by side, shape (T, 5, 4).
      twist: of the forearms in radians, left and right, shape (2,).
    """
    head = {label: heads[i] for i, label in enumerate(body.labels)}
    spine = places["thorax"] - places["pelvis"]
    rest_spine = head["neck01"] - (head["upperleg01_L"] + head["upperleg01_R"]) / 2
    pelvis = _aligned(
        head["upperleg01_L"] - head["upperleg01_R"], rest_spine, places["left_hip"] - places["right_hip"], spine
    )
    chest = _aligned(
        head["upperarm01_L"] - head["upperarm01_R"],
        rest_spine,
        places["left_shoulder"] - places["right_shoulder"],
        spine,
    )
    skull = chest
    if "neck" in places:
        top = places["head_top"] - places["neck"] if "head_top" in places else places["neck"] - places["thorax"]
        rest_top = np.array((0, 0, 1.0)) if "head_top" in places else head["head"] - head["neck01"]
        skull = poses.between(chest, poses.onto(chest @ rest_top, top) @ chest, 0.6)
    out = poses.trunk(pelvis, chest, poses.between(chest, skull, 0.4), skull)
    for (side, s, _), turn in zip(SIDES, twist, strict=True):
        upper, lower, free = _limb(
            *(head[f"{bone}_{s}"] for bone in ("upperarm01", "lowerarm01", "wrist")),
            *(places[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist")),
            parent=chest,
            hinge=None,
        )
        out[f"clavicle_{s}"] = out[f"shoulder01_{s}"] = poses.between(chest, free, 0.08)
        out[f"upperarm01_{s}"], out[f"upperarm02_{s}"] = poses.between(free, upper, 0.5), upper
        bone = head[f"wrist_{s}"] - head[f"lowerarm01_{s}"]
        bone = bone / np.linalg.norm(bone) * (1 if s == "L" else -1)
        for label, part in (("lowerarm01", 0.35), ("lowerarm02", 0.8), ("wrist", 1.0)):
            out[f"{label}_{s}"] = lower @ poses.rotation(bone, part * turn)
        thigh, shin, free = _limb(
            *(head[f"{bone}_{s}"] for bone in ("upperleg01", "lowerleg01", "foot")),
            *(places[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle")),
            parent=pelvis,
            hinge=np.array((1.0, 0, 0)),
        )
        out[f"upperleg01_{s}"], out[f"upperleg02_{s}"] = poses.between(free, thigh, 0.5), thigh
        out[f"lowerleg01_{s}"] = out[f"lowerleg02_{s}"] = shin
        sole = shin @ np.array((0, 0, 1.0))
        level = poses.onto(sole, np.broadcast_to((0, 0, 1.0), sole.shape)) @ shin
        out[f"foot_{s}"] = poses.between(shin, level, 0.5)
    return poses.complete(out, body, head, fingers)


def _limb(
    start: np.ndarray,
    middle: np.ndarray,
    end: np.ndarray,
    start_now: np.ndarray,
    middle_now: np.ndarray,
    end_now: np.ndarray,
    *,
    parent: np.ndarray,
    hinge: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Orientations (T, 3, 3) of an upper and a lower limb, and of the upper one without its twist.

    Args:
      start, middle, end: the limb's joints at rest, (3,).
      start_now, middle_now, end_now: the same in the recording, (T, 3).
      parent: orientation of what the limb hangs on, (T, 3, 3).
      hinge: the axis of the middle joint at rest; None: the normal of the limb's plane at rest.
    """
    upper, lower = middle - start, end - middle
    normal = np.cross(upper, lower) if hinge is None else hinge
    upper_now, lower_now = middle_now - start_now, end_now - middle_now
    free = poses.onto(parent @ upper, upper_now) @ parent
    observed = np.cross(upper_now, lower_now)
    size = np.linalg.norm(observed, axis=-1, keepdims=True)
    bend = np.arctan2(size, (upper_now * lower_now).sum(axis=-1, keepdims=True))
    weight = np.clip((bend - 0.2) / 0.4, 0, 1)
    expected = free @ (normal / np.linalg.norm(normal))
    normal_now = weight * observed / np.maximum(size, 1e-9) + (1 - weight) * expected
    turned = _aligned(upper, normal, upper_now, normal_now)
    return turned, poses.onto(turned @ lower, lower_now) @ turned, free


def _aligned(first: np.ndarray, second: np.ndarray, first_now: np.ndarray, second_now: np.ndarray) -> np.ndarray:
    """Rotations (T, 3, 3) that turn `first` into `first_now` and the plane of both into that of the others."""
    return _frame(first_now, second_now) @ np.swapaxes(_frame(first, second), -1, -2)


def _frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)
    z = np.cross(x, y)
    z = z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-9)
    return np.stack((x, np.cross(z, x), z), axis=-1)


@functools.lru_cache(maxsize=4)
def _files(folder: str) -> Files:
    return Files(folder)


@functools.lru_cache(maxsize=4)
def _names(folder: str) -> tuple[str, ...]:
    names = tuple(name for name in _files(folder).names if name.lower().endswith(".bvh"))
    if not names:
        raise ValueError(f"{folder}: holds no .bvh file, expected recorded motions")
    return names


@functools.lru_cache(maxsize=1024)
def _motion(folder: str, name: str, rate: float) -> Motion | None:
    """One recording with canonical joints; None if it cannot be read. Only directions matter, so its unit does not."""
    try:
        found = bvh.read(_files(folder).read(name), unit=0.01, drop_first=None, name=name)
        return rigs.resample(rigs.to_canonical(found), rate)
    except ValueError as error:
        logging.warning("%s: skipped a motion: %s", folder, error)
        return None
