import concurrent.futures
import itertools
import pickle

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxpose.data import records
from jaxpose.data.generators import embedded
from jaxpose.data.generators.embedded import EmbeddedSource, kinematics, motion, parts, render

KINDS, STYLES = ("body", "hand"), ("studio", "street")
DOMAINS = list(itertools.product(KINDS, STYLES))


def source(kind, style, split="train", size=4000, **options):
    return EmbeddedSource(kind=kind, style=style, split=split, size=size, **options)


def equal(a, b):
    assert a.keys() == b.keys()
    for field in a:
        np.testing.assert_array_equal(a[field], b[field], err_msg=field)


def clips(kind, style, count, **options):
    """The labels of `count` clips, each (8, K, 2 or 3)."""
    data = source(kind, style, **options)
    found = [[data[8 * c + t] for t in range(8)] for c in range(count)]
    return tuple(
        np.stack([[r[field] for r in clip] for clip in found]) for field in ("keypoints", "keypoints3d", "visible")
    )


@pytest.mark.parametrize(("kind", "style"), DOMAINS)
def test_records_follow_the_schema(kind, style):
    data = source(kind, style, size=20)
    assert len(data) == len(list(data)) == 20
    assert data.labelled
    count = len(data.skeleton)
    for i in (0, 13):
        record = data[i]
        assert record["image"].shape == (96, 96, 3)
        assert record["image"].dtype == np.uint8
        assert record["keypoints"].shape == (count, 2)
        assert record["keypoints3d"].shape == (count, 3)
        assert record["keypoints"].dtype == record["keypoints3d"].dtype == np.float32
        assert record["intrinsics"].dtype == np.float32
        assert record["visible"].dtype == np.uint8
        assert record["frame"] == i % 8
    assert data[7]["sequence"] == data[0]["sequence"] != data[8]["sequence"]
    assert data[7]["name"] != data[0]["name"]


@pytest.mark.parametrize(("kind", "style"), DOMAINS)
def test_a_record_depends_on_nothing_but_its_index(kind, style):
    indices = [5, 41, 6, 100, 0, 47]
    embedded._clip.cache_clear()
    first = {i: source(kind, style)[i] for i in indices}
    embedded._clip.cache_clear()
    shared = pickle.loads(pickle.dumps(source(kind, style)))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        again = dict(zip(indices[::-1], pool.map(shared.__getitem__, indices[::-1]), strict=True))
    for i in indices:
        equal(first[i], again[i])


def test_records_are_the_callers_to_change():
    data = source("body", "street")
    record, expected = data[3], data[3]
    for field in ("image", "keypoints", "keypoints3d", "intrinsics", "visible"):
        record[field][:] = 0
    equal(data[3], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_splits_seeds_and_styles_share_nothing(kind):
    options = [
        {"style": style, "split": split, "seed": seed}
        for style in STYLES
        for split in ("train", "validation", "test")
        for seed in (0, 1)
    ]
    found = [source(kind, **option)[2] for option in options]
    assert len({record["sequence"] for record in found}) == len(options)
    for a, b in itertools.combinations(found, 2):
        assert abs(a["keypoints"] - b["keypoints"]).max() > 1
        assert (a["image"] != b["image"]).mean() > 0.2


@pytest.mark.parametrize(("kind", "style"), DOMAINS)
def test_other_sizes_scale_the_labels(kind, style):
    small, large = source(kind, style)[9], source(kind, style, image_size=200)[9]
    assert large["image"].shape == (200, 200, 3)
    np.testing.assert_allclose((large["keypoints"] + 0.5) / 200, (small["keypoints"] + 0.5) / 96, atol=1e-5)
    assert source(kind, style, clip_length=1)[4]["frame"] == 0
    assert source(kind, style, clip_length=30)[29]["frame"] == 29


@pytest.mark.parametrize(("kind", "style"), DOMAINS)
def test_keypoints_are_projections(kind, style):
    data = source(kind, style)
    for i in range(0, 400, 9):
        record = data[i]
        projected = record["keypoints3d"] @ record["intrinsics"].T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], record["keypoints"], atol=0.01)
        assert (projected[:, 2] > 0.1).all()


@pytest.mark.parametrize(("kind", "style"), DOMAINS)
def test_bones_keep_their_length_within_a_clip_and_differ_between_people(kind, style):
    _, joints, _ = clips(kind, style, 12)
    first, last = source(kind, style).skeleton.bone_indices.T
    length = np.linalg.norm(joints[:, :, first] - joints[:, :, last], axis=-1)
    np.testing.assert_allclose(length, length[:, :1].repeat(8, axis=1), rtol=1e-4)
    assert (length[:, 0].std(axis=0) / length[:, 0].mean(axis=0) > 0.02).all()


def bend(joints, skeleton, a, b, c):
    """Degrees between the directions a to b and b to c."""
    i, j, k = skeleton.indices((a, b, c))
    u, v = joints[..., j, :] - joints[..., i, :], joints[..., k, :] - joints[..., j, :]
    cos = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
    return np.degrees(np.arccos(np.clip(cos, -1, 1)))


@pytest.mark.parametrize("style", STYLES)
def test_labels_respect_the_limits_of_hinges(style):
    _, joints, _ = clips("body", style, 60)
    skeleton = source("body", style).skeleton
    for side in ("left", "right"):
        for chain in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")):
            angle = bend(joints, skeleton, *(f"{side}_{joint}" for joint in chain))
            assert angle.max() < 145.5
            assert angle.max() - angle.min() > 40
    _, joints, _ = clips("hand", style, 60)
    skeleton = source("hand", style).skeleton
    for finger in ("index", "middle", "ring", "little"):
        pip = bend(joints, skeleton, f"{finger}_mcp", f"{finger}_pip", f"{finger}_dip")
        dip = bend(joints, skeleton, f"{finger}_pip", f"{finger}_dip", f"{finger}_tip")
        assert pip.max() < 105.5
        np.testing.assert_allclose(dip, 0.65 * pip, atol=0.3)


@pytest.mark.parametrize(("kind", "style"), DOMAINS)
def test_hinges_bend_one_way(kind, style):
    rig = kinematics.RIGS[kind]
    angles = np.concatenate([motion.sample(np.random.default_rng(i), kind, style, 8) for i in range(50)])
    root = np.broadcast_to(np.eye(3), (len(angles), 3, 3))
    positions, orientations = kinematics.forward(rig, angles, rig.offsets, root)
    if kind == "body":
        hinges = [
            (f"{s}_{a}", f"{s}_{b}", f"{s}_{c}", d)
            for s in ("left", "right")
            for a, b, c, d in (("shoulder", "elbow", "wrist", 1), ("hip", "knee", "ankle", -1))
        ]
    else:
        hinges = [
            (f"{f}_{a}", f"{f}_{b}", f"{f}_{c}", 1)
            for f in ("index", "middle", "ring", "little")
            for a, b, c in (("mcp", "pip", "dip"), ("pip", "dip", "tip"))
        ]
    for upper, joint, end, front in hinges:
        bone = positions[:, rig.index(end)] - positions[:, rig.index(joint)]
        forwards = (bone * orientations[:, rig.index(upper), :, 2]).sum(-1)
        sideways = (bone * orientations[:, rig.index(upper), :, 0]).sum(-1)
        assert (front * forwards > -1e-9).all()
        np.testing.assert_allclose(sideways, 0, atol=1e-9)


def test_forward_kinematics_against_composed_rotations():
    rng = np.random.default_rng(0)
    for rig in kinematics.RIGS.values():
        angles = kinematics.clamp(rig, rng.normal(0, 1, (2, len(rig.nodes), 3)))
        root = Rotation.random(2, rng=rng)
        positions, orientations = kinematics.forward(rig, angles, rig.offsets, root.as_matrix())
        for t in range(2):
            frames, places = [], []
            for i, parent in enumerate(rig.parents):
                x, z, twist = angles[t, i] * (1, rig.sides[i], rig.sides[i])
                local = Rotation.from_rotvec((x, 0, z)) * Rotation.from_rotvec((0, twist, 0))
                local = Rotation.from_matrix(rig.rest[i]) * local
                base = root[t] if parent < 0 else frames[parent]
                frames.append(base * local)
                places.append(np.zeros(3) if parent < 0 else places[parent] + base.apply(rig.offsets[i]))
            np.testing.assert_allclose(positions[t], places, atol=1e-9)
            np.testing.assert_allclose(orientations[t], [f.as_matrix() for f in frames], atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_clamp_keeps_limits_and_leaves_valid_poses_alone(kind):
    rig = kinematics.RIGS[kind]
    angles = np.random.default_rng(1).normal(0, 3, (200, len(rig.nodes), 3))
    clamped = kinematics.clamp(rig, angles)
    assert (clamped >= rig.lower - 1e-12).all()
    assert (clamped <= rig.upper + 1e-12).all()
    assert (np.hypot(clamped[..., 0], clamped[..., 1]) <= rig.cone + 1e-12).all()
    for style in STYLES:
        valid = motion.sample(np.random.default_rng(2), kind, style, 8)
        again = kinematics.clamp(rig, valid)
        free = np.ones(valid.shape[1:], dtype=bool)
        free[rig.coupled[:, 0], rig.coupled[:, 1]] = False
        np.testing.assert_allclose(again[:, free], valid[:, free], atol=1e-12)


def test_equal_angles_on_both_sides_are_a_symmetric_pose():
    rig = kinematics.RIGS["body"]
    angles = np.zeros((1, len(rig.nodes), 3))
    rng = np.random.default_rng(0)
    for i, node in enumerate(rig.nodes):
        if node.startswith("left_"):
            angles[0, [i, rig.index(node.replace("left", "right"))]] = rng.normal(0, 0.5, 3)
    positions, _ = kinematics.forward(rig, angles, rig.offsets, np.eye(3)[None])
    for i, node in enumerate(rig.nodes):
        if node.startswith("left_"):
            mirrored = positions[0, rig.index(node.replace("left", "right"))] * (-1, 1, 1)
            np.testing.assert_allclose(positions[0, i], mirrored, atol=1e-12)


@pytest.mark.parametrize(("kind", "style"), DOMAINS)
def test_visibility_and_framing(kind, style):
    points, _, visible = clips(kind, style, 60)
    outside = ((points < -0.5) | (points >= 95.5)).any(axis=-1)
    np.testing.assert_array_equal(visible == records.MISSING, outside)
    assert outside.mean() < 0.03
    assert 0.03 < (visible == records.OCCLUDED).mean() < 0.4
    extent = (points.max(axis=(1, 2)) - points.min(axis=(1, 2))).max(axis=-1) / 96
    assert (extent > 0.7).all()
    assert (extent < 0.95).all()


def test_some_joints_leave_the_image():
    assert any((clips(kind, "street", 60)[2] == records.MISSING).any() for kind in KINDS)


@pytest.mark.parametrize(("kind", "style"), DOMAINS)
def test_motion_is_visible_and_continuous(kind, style):
    points, _, _ = clips(kind, style, 60)
    step = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    other = np.linalg.norm(np.diff(points[:, 0], axis=0), axis=-1)
    assert 0.8 < step.mean() < 0.3 * other.mean()
    assert step.max() < 0.55 * 96
    assert (step.max(axis=(1, 2)) > 0.8).all()
    # A smooth path: of independent steps the change would be 1.4 times as large as the steps.
    jerk = np.linalg.norm(np.diff(points, n=2, axis=1), axis=-1)
    assert jerk.mean() < 1.1 * step.mean()


def test_styles_differ_in_appearance():
    for kind in KINDS:
        rough = {}
        for style in STYLES:
            corners = [source(kind, style)[i]["image"][:16, :16].mean(-1) for i in range(0, 320, 8)]
            rough[style] = np.mean([corner.std() for corner in corners])
        assert rough["street"] > 2 * rough["studio"]


def test_styles_differ_in_pose():
    knees, elbows, curled = {}, {}, {}
    for style in STYLES:
        _, joints, _ = clips("body", style, 80)
        skeleton = source("body", style).skeleton
        knees[style] = (bend(joints, skeleton, "left_hip", "left_knee", "left_ankle") > 45).mean()
        elbows[style] = (bend(joints, skeleton, "left_shoulder", "left_elbow", "left_wrist") > 60).mean()
        _, joints, _ = clips("hand", style, 80)
        skeleton = source("hand", style).skeleton
        curled[style] = bend(joints, skeleton, "ring_mcp", "ring_pip", "ring_dip").mean()
    assert knees["street"] > 1.5 * knees["studio"]
    assert elbows["street"] > 1.5 * elbows["studio"]
    assert curled["street"] > curled["studio"] + 15


@pytest.mark.parametrize("style", STYLES)
def test_who_faces_the_camera_shows_a_face_and_has_the_left_at_larger_x(style):
    data = source("body", style)
    rig, skeleton = kinematics.RIGS["body"], data.skeleton
    names = parts.MATERIALS["body"]
    faces = []
    for i in range(0, len(data), 8):
        record = data[i]
        clip = embedded._clip("body", style, "train", 0, i // 8, 96, 8)
        towards = -clip.orientations[0, rig.index("pelvis"), 2, 2]
        gaze = -clip.orientations[0, rig.index("neck"), 2, 2]
        upright = clip.orientations[0, rig.index("pelvis"), 1, 1] < -0.8
        if upright and towards > 0.8:
            left, right = record["keypoints"][skeleton.indices(("left_hip", "right_hip")), 0]
            assert left > right
        level = -clip.orientations[0, rig.index("neck"), 1, 1] > 0.97
        if style == "studio" and gaze > 0.85 and level:
            neck, top = record["keypoints"][skeleton.indices(("neck", "head_top"))]
            x, y = np.rint(neck + 0.3 * (top - neck)).astype(int)
            colour = record["image"][y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1))
            skin, hair = (clip.look.albedo[names.index(n)] for n in ("skin", "hair"))
            if np.linalg.norm(skin - hair) > 120:
                faces.append(np.linalg.norm(colour - 0.8 * skin) < np.linalg.norm(colour - 0.8 * hair))
    if style == "studio":
        assert len(faces) > 8
        assert np.mean(faces) > 0.75


@pytest.mark.parametrize("style", STYLES)
def test_hands_are_right_hands(style):
    _, joints, _ = clips("hand", style, 60)
    skeleton = source("hand", style).skeleton
    wrist, index, little, thumb = (
        joints[:, :, i] for i in skeleton.indices(("wrist", "index_mcp", "little_mcp", "thumb_mcp"))
    )
    palm = np.cross(index - wrist, little - wrist)
    knuckle, pip = (joints[:, :, i] for i in skeleton.indices(("ring_mcp", "ring_pip")))
    curled = bend(joints, skeleton, "ring_mcp", "ring_pip", "ring_dip") > 40
    # Of a right hand seen from its palm with the fingers up, the thumb is on the right, and fingers close to the palm.
    towards = ((pip - knuckle) * palm).sum(-1)[curled]
    assert (towards > 0).mean() > 0.95
    assert (((thumb - wrist) * (index - little)).sum(-1) > 0).mean() > 0.98


@pytest.mark.parametrize(("kind", "style"), DOMAINS)
def test_occlusion_against_marching_along_rays(kind, style):
    figure, nodes = parts.PARTS[kind], embedded._JOINT_NODES[kind]
    agree, hidden = [], []
    for i in range(0, 200, 8):
        clip = embedded._clip(kind, style, "test", 0, i // 8, 96, 8)
        centres, radii = render.spheres(figure, clip.positions[0], clip.orientations[0], clip.scale, clip.look.girth)
        joints = clip.positions[0, nodes]
        fast = render.occluded(figure, centres, radii, joints, figure.margins[nodes])
        # Source: march along the ray to each joint; inside a capsule is nearer to its axis than its radius there.
        near, far = centres[..., 2].min() - 0.2, joints[:, 2] - figure.margins[nodes]
        march = near + np.linspace(0, 1, 250)[:, None] * np.maximum(far - near, 0)
        points = (march / joints[:, 2])[..., None, None] * joints[:, None]
        a, b = np.moveaxis(centres.reshape(-1, 3)[figure.capsules], 1, 0)
        r, s = radii.reshape(-1)[figure.capsules].T
        t = np.clip(((points - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1), 0, 1)
        gap = np.linalg.norm(points - a - t[..., None] * (b - a), axis=-1) - (r + t * (s - r))
        slow = (gap < 0).any(axis=(0, 2))
        agree.append(fast == slow)
        hidden.append(slow)
    assert np.mean(agree) > 0.96
    assert np.mean(hidden) > 0.03


def test_occlusion_of_a_joint_before_and_behind_a_limb():
    figure = parts.PARTS["body"]
    centres = np.tile((5.0, 5.0, 4.0), (*figure.radii.shape, 1))
    limb = figure.capsules[-1, 0] // 4
    centres[limb, :2], centres[limb, 2:] = (-0.2, 0, 4), (0.2, 0, 4)
    joints = np.array(((0, 0, 4.3), (0, 0, 3.7), (0, 0.2, 4.3), (0, 0, 4.01)))
    hidden = render.occluded(figure, centres, figure.radii, joints, np.full(4, 0.1))
    np.testing.assert_array_equal(hidden, (True, False, False, False))


@pytest.mark.parametrize(("kind", "style"), DOMAINS)
def test_the_figure_is_drawn_where_the_labels_are(kind, style):
    data, drawn, beside = source(kind, style), [], []
    for i in range(0, 400, 8):
        record = data[i]
        clip = embedded._clip(kind, style, "train", 0, i // 8, 96, 8)
        away = np.full((*parts.PARTS[kind].radii.shape, 3), (1000.0, 0.0, 4.0))
        empty = render.draw(
            *(parts.PARTS[kind], clip.look, away, np.zeros(away.shape[:2])),
            *(clip.intrinsics, 96, clip.pan[0], clip.grain[0]),
        )
        change = abs(record["image"].astype(int) - empty).sum(-1) > 6  # the noise is the same
        x, y = np.rint(record["keypoints"][record["visible"] > 0]).astype(int).clip(0, 95).T
        drawn.append(change[y, x].mean())
        beside.append(change[:6, :6].mean())
    assert np.mean(drawn) > 0.9
    assert np.mean(beside) < 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "foot"), ("style", "lab"), ("split", "dev"), ("size", 0), ("image_size", 8), ("clip_length", 0)],
)
def test_bad_fields_are_named(field, value):
    good = {"kind": "body", "style": "studio", "split": "train", "size": 8}
    with pytest.raises(ValueError, match=f"{field} is {value!r}, expected"):
        EmbeddedSource(**(good | {field: value}))


def test_indices_outside_are_errors():
    data = source("hand", "studio", size=3)
    for index in (-1, 3):
        with pytest.raises(IndexError):
            data[index]


def test_motions_are_of_bodies_that_stand_on_the_ground():
    """z is up, bones keep their lengths, nobody is in two splits, and a motion depends on nothing but its number."""
    train, test = (embedded.motions("studio", split, 6) for split in ("train", "test"))
    joints = train[0].joints
    assert joints == source("body", "studio").skeleton.joints
    places = np.stack([motion.positions for motion in train])
    assert places.shape == (6, 50, 16, 3)
    np.testing.assert_array_equal(places[:, :, joints.index("pelvis")], 0)
    up = places[..., 2].mean(axis=(0, 1))
    assert up[joints.index("head_top")] > 0.5
    assert up[joints.index("left_ankle")] < -0.5
    shins = np.linalg.norm(places[:, :, joints.index("left_ankle")] - places[:, :, joints.index("left_knee")], axis=-1)
    np.testing.assert_allclose(shins, shins[:, :1] * np.ones((1, 50)), rtol=1e-4)
    assert (
        len({motion.positions.tobytes() for motion in (*train, *test, *embedded.motions("street", "train", 6))}) == 18
    )
    np.testing.assert_array_equal(embedded.motions("studio", "train", 2)[1].positions, train[1].positions)
    assert not np.allclose(embedded.motions("studio", "train", 1, seed=1)[0].positions, train[0].positions)
    assert np.abs(np.diff(places, axis=1)).max() < 0.5
