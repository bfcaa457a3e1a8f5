import sys

import cv2
import numpy as np
import pytest

from jaxpose import synth
from jaxpose.data.joints import skeletons

pytest.importorskip("anny", reason="the synthetic source needs jaxpose[synth]")
pytest.importorskip("warp", reason="the synthetic source needs jaxpose[synth]")

from jaxpose.synth import backgrounds, body, clips, poses, recorded, render


def decoded(record):
    return cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def parts(record):
    return cv2.imdecode(np.frombuffer(record["segmentation"], np.uint8), cv2.IMREAD_GRAYSCALE)


def dictionary(record, kind):
    return dict(zip(synth.skeleton(kind).joints, range(len(record["keypoints"])), strict=True))


@pytest.fixture(scope="module")
def bodies():
    return [synth.render_clip(synth.SynthConfig(kind="body", image_size=128, clip_length=2), i) for i in range(8)]


@pytest.fixture(scope="module")
def hands():
    return [synth.render_clip(synth.SynthConfig(kind="hand", image_size=128, clip_length=2), i) for i in range(8)]


@pytest.mark.parametrize("kind", ["body", "hand"])
def test_records_hold_every_field(kind, request):
    records = request.getfixturevalue({"body": "bodies", "hand": "hands"}[kind])[3]
    joints = len(synth.skeleton(kind))
    for frame, record in enumerate(records):
        assert decoded(record).shape == (128, 128, 3)
        assert parts(record).shape == (128, 128)
        assert record["keypoints"].shape == (joints, 2)
        assert record["keypoints"].dtype == np.float32
        assert record["keypoints3d"].shape == (joints, 3)
        assert record["keypoints3d"].dtype == np.float32
        assert record["visible"].shape == (joints,)
        assert record["visible"].dtype == np.uint8
        assert record["frame"] == frame
        assert record["sequence"] == records[0]["sequence"]
        assert record["bbox"].shape == (4,)
        assert record["bbox"].dtype == np.float32
        assert record.get("hand") in ({None} if kind == "body" else {"left", "right"})
    assert records[0]["image"] != records[1]["image"]


def test_skeletons_join_with_those_of_data_sets_by_name():
    known = synth.skeleton("body")
    for other in (skeletons.COCO17, skeletons.MPII16, skeletons.LSP14):
        assert set(other.joints) <= set(known.joints)
    assert {"left_collar", "right_collar"} <= set(known.joints)
    assert synth.skeleton("hand") is skeletons.HAND21


def test_same_seed_and_index_give_the_same_bytes():
    config = synth.SynthConfig(kind="body", image_size=64, clip_length=1, seed=3)
    first, other = synth.render_clip(config, 5), synth.render_clip(config, 6)
    again = synth.render_clip(config, 5)
    assert first[0]["image"] == again[0]["image"]
    assert first[0]["segmentation"] == again[0]["segmentation"]
    np.testing.assert_array_equal(first[0]["keypoints3d"], again[0]["keypoints3d"])
    assert first[0]["image"] != other[0]["image"]
    reseeded = synth.render_clip(synth.SynthConfig(kind="body", image_size=64, clip_length=1, seed=4), 5)
    assert first[0]["image"] != reseeded[0]["image"]


def test_keypoints_are_projections_of_the_3d_joints(bodies, hands):
    for record in (record for clip in (*bodies, *hands) for record in clip):
        points = record["keypoints3d"] @ record["intrinsics"].T
        np.testing.assert_allclose(points[:, :2] / points[:, 2:], record["keypoints"], atol=0.01)


def test_depth_grows_forward_and_y_down(bodies):
    """Heads lie above ankles in nearly all images, and everything is before the camera."""
    above = []
    for record in (record for clip in bodies for record in clip):
        at = dictionary(record, "body")
        assert (record["keypoints3d"][:, 2] > 0.5).all()
        above.append(record["keypoints3d"][at["head_top"], 1] < record["keypoints3d"][at["left_ankle"], 1])
    assert np.mean(above) > 0.8


def standing(monkeypatch, azimuth, **config):
    """A person at ease before a camera at eye level, `azimuth` radians to their left."""
    angles = np.zeros((1, len(poses.RIG.nodes), 3))
    for side, sign in (("left", 1), ("right", 1)):
        angles[:, poses.RIG.index(f"{side}_shoulder"), 1] = sign * 0.35
    fingers = {side: np.zeros((1, 5, 4)) for side in ("left", "right")}
    pose = poses.Pose(angles=angles, root=np.eye(3)[None], fingers=fingers)
    monkeypatch.setattr(poses, "sample_body", lambda rng, length: pose)
    monkeypatch.setattr(clips, "_direction", lambda a, e: np.array((np.sin(azimuth), -np.cos(azimuth), 0.0)))
    nothing = np.zeros((256, 256, 3)), np.zeros((256, 256), bool)
    monkeypatch.setattr(backgrounds, "occluder", lambda rng, size: nothing)
    return synth.render_clip(synth.SynthConfig(kind="body", clip_length=1, truncation=0.0, **config), 1)[0]


def test_the_left_of_a_person_who_faces_the_camera_is_on_the_right_of_the_image(monkeypatch):
    record = standing(monkeypatch, 0.0)
    at, x = dictionary(record, "body"), record["keypoints"][:, 0]
    for joint in ("eye", "ear", "collar", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        assert x[at[f"left_{joint}"]] > x[at[f"right_{joint}"]] + 2
    segments = parts(record)
    columns = {side: np.nonzero(segments == body.PARTS.index(f"{side}_hand") + 1)[1] for side in ("left", "right")}
    assert columns["left"].mean() > columns["right"].mean()
    assert record["visible"][[at["nose"], at["left_eye"], at["right_hip"], at["head_top"]]].tolist() == [2, 2, 2, 2]


def test_joints_behind_the_body_are_occluded(monkeypatch):
    record = standing(monkeypatch, np.pi)  # seen from behind
    at = dictionary(record, "body")
    assert record["keypoints"][at["left_hip"], 0] < record["keypoints"][at["right_hip"], 0]
    assert record["visible"][[at["nose"], at["left_eye"], at["right_eye"]]].tolist() == [1, 1, 1]
    assert record["visible"][[at["left_shoulder"], at["right_knee"], at["pelvis"]]].tolist() == [2, 2, 2]
    side = standing(monkeypatch, np.pi / 2)  # from the left
    assert side["visible"][[at["right_ear"], at["right_shoulder"], at["right_hip"]]].tolist() == [1, 1, 1]
    assert side["visible"][[at["left_ear"], at["left_shoulder"], at["left_hip"], at["left_elbow"]]].tolist() == [
        2,
        2,
        2,
        2,
    ]


def test_joints_lie_on_the_parts_they_belong_to(monkeypatch):
    record = standing(monkeypatch, 0.0)
    segments, at = parts(record), dictionary(record, "body")
    expected = {
        "nose": ("head",),
        "left_eye": ("head",),
        "thorax": ("torso",),
        "pelvis": ("torso", "left_thigh", "right_thigh"),
        "left_elbow": ("left_upper_arm", "left_forearm"),
        "right_wrist": ("right_forearm", "right_hand"),
        "left_knee": ("left_thigh", "left_shin"),
        "right_ankle": ("right_shin", "right_foot"),
    }
    for joint, names in expected.items():
        x, y = np.rint(record["keypoints"][at[joint]]).astype(int)
        assert body.PARTS[segments[y, x] - 1] in names, joint


def test_box_and_area_are_those_of_the_segments(bodies, hands):
    for kind, records in (("body", bodies), ("hand", hands)):
        for record in (record for clip in records for record in clip):
            mask = parts(record) > 0
            if kind == "hand":
                mask = parts(record) == body.PARTS.index(f"{record['hand']}_hand") + 1
            assert record["area"] == mask.sum() > 0
            rows, columns = np.nonzero(mask)
            low = np.array((columns.min(), rows.min())) - 0.5
            np.testing.assert_allclose(record["bbox"], [*low, np.ptp(columns) + 1, np.ptp(rows) + 1])


def test_labels_outside_the_image_are_missing():
    config = synth.SynthConfig(kind="body", image_size=64, clip_length=1, crop=(2.0, 2.0))
    record = synth.render_clip(config, 0)[0]
    outside = ((record["keypoints"] < -0.5) | (record["keypoints"] >= 63.5)).any(axis=1)
    assert outside.any()
    assert not outside.all()
    assert (record["visible"][outside] == 0).all()
    assert (record["visible"][~outside] > 0).all()


def test_bones_have_plausible_lengths_that_do_not_change_over_a_clip(bodies, hands):
    def length(record, kind, a, b):
        at = dictionary(record, kind)
        return np.linalg.norm(record["keypoints3d"][at[a]] - record["keypoints3d"][at[b]])

    limbs = {
        ("left_shoulder", "left_elbow"): (0.12, 0.4),
        ("right_elbow", "right_wrist"): (0.1, 0.36),
        ("left_hip", "left_knee"): (0.18, 0.56),
        ("right_knee", "right_ankle"): (0.18, 0.56),
        ("left_hip", "right_hip"): (0.1, 0.32),
        ("left_eye", "right_eye"): (0.045, 0.08),
    }
    for clip in bodies:
        for (a, b), (low, high) in limbs.items():
            first, second = (length(record, "body", a, b) for record in clip)
            assert low < first < high, (a, b)
            assert abs(first - second) < 0.01, (a, b)
        assert length(clip[0], "body", "left_hip", "left_knee") == pytest.approx(
            length(clip[0], "body", "right_hip", "right_knee"), rel=0.02
        )
    for clip in hands:
        assert 0.05 < length(clip[0], "hand", "wrist", "middle_mcp") < 0.14
        for finger in ("index", "middle", "ring", "little"):
            chain = [
                length(clip[0], "hand", f"{finger}_{a}", f"{finger}_{b}")
                for a, b in (("mcp", "pip"), ("pip", "dip"), ("dip", "tip"))
            ]
            assert all(0.009 < bone < 0.07 for bone in chain)


def test_left_and_right_hands_are_mirror_images():
    """From the palm's side the thumb is on the left of a left hand, fingers up; fingers bend towards the palm."""
    known = body.load()
    sides = {"left": "L", "right": "R"}
    for curl in (0.0, 0.8):
        fingers = {side: poses._curled(np.full(5, curl), 0.5)[None] for side in sides}
        angles = np.zeros((1, len(poses.RIG.nodes), 3))
        pose = poses.Pose(angles=angles, root=np.eye(3)[None], fingers=fingers)
        places, _ = poses.forward(known, known.heads, poses.orientations(known, known.heads, pose))
        at = {label: places[0, i] for i, label in enumerate(known.labels)}
        for label, place in at.items():
            if label.endswith("_L"):
                np.testing.assert_allclose(at[label[:-1] + "R"], place * (-1, 1, 1), atol=2e-3)
        for s, sign in (("L", 1), ("R", -1)):
            # Arms hang with palms towards the thighs and thumbs in front.
            hand = at[f"finger3-1_{s}"] - at[f"wrist_{s}"]
            assert hand[2] < -0.9 * np.linalg.norm(hand)
            assert at[f"finger1-2_{s}"][1] < at[f"wrist_{s}"][1] - 0.01
            bent = at[f"finger3-3_{s}"] - at[f"finger3-1_{s}"]
            if curl:
                assert sign * bent[0] < -0.01  # towards the thigh
            else:
                assert bent @ hand > 0.96 * np.linalg.norm(bent) * np.linalg.norm(hand)


def test_hand_labels_follow_the_side(hands):
    assert {record["hand"] for clip in hands for record in clip} == {"left", "right"}
    for record in (record for clip in hands for record in clip):
        inside = record["visible"] == 2
        x, y = np.rint(record["keypoints"][inside]).astype(int).T
        found = parts(record)[np.clip(y, 0, 127), np.clip(x, 0, 127)]
        own = [body.PARTS.index(f"{record['hand']}_{part}") + 1 for part in ("hand", "forearm")]
        assert np.isin(found, own).mean() > 0.7


def bvh_of(side_bend):
    """A two-frame BVH in CMU's naming: arms to the sides, the left elbow bent by `side_bend` degrees to the front."""
    limbs = ""
    for side, sign in (("Left", 1), ("Right", -1)):
        chain = (("Hip", (9 * sign, -5, 0)), ("Knee", (0, -40, 0)), ("Ankle", (0, -40, 0)))
        limbs += nested([(side + name, offset) for name, offset in chain])
    arms = ""
    for side, sign in (("Left", 1), ("Right", -1)):
        chain = (
            ("Collar", (0, 0, 0)),
            ("Shoulder", (18 * sign, 0, 0)),
            ("Elbow", (28 * sign, 0, 0)),
            ("Wrist", (25 * sign, 0, 0)),
        )
        arms += nested([(side + name, offset) for name, offset in chain])
    neck = nested([("Neck", (0, 8, 0)), ("Head", (0, 9, 0))])
    chest = f"JOINT Chest\n{{\nOFFSET 0 45 0\nCHANNELS 3 Zrotation Yrotation Xrotation\n{arms}{neck}}}\n"
    channels = "CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"
    text = f"HIERARCHY\nROOT Hips\n{{\nOFFSET 0 0 0\n{channels}\n{limbs}{chest}}}\n"
    joints = [line.split()[1] for line in text.splitlines() if line.startswith(("ROOT", "JOINT"))]
    row = [0.0, 90.0, 0.0] + [0.0] * 3 * len(joints)
    row[3 + 3 * joints.index("LeftElbow") + 1] = -side_bend  # about y: a forearm along +x turns to +z, the front
    frames = "\n".join(" ".join(map(str, row)) for _ in range(3))
    return f"{text}MOTION\nFrames: 3\nFrame Time: 0.1\n{frames}\n"


def nested(chain):
    (name, (x, y, z)), rest = chain[0], chain[1:]
    inner = nested(rest) if rest else "End Site\n{\nOFFSET 0 1 0\n}\n"
    return f"JOINT {name}\n{{\nOFFSET {x} {y} {z}\nCHANNELS 3 Zrotation Yrotation Xrotation\n{inner}}}\n"


def test_recorded_motions_keep_the_directions_of_bones(tmp_path):
    (tmp_path / "01_01.bvh").write_text(bvh_of(90))
    (tmp_path / "broken.bvh").write_text("HIERARCHY")
    known = body.load()
    turned = recorded.sample(np.random.default_rng(0), str(tmp_path), known, known.heads, 2, 10.0)
    places, _ = poses.forward(known, known.heads, turned)
    at = {label: places[0, i] for i, label in enumerate(known.labels)}

    def direction(a, b):
        return (at[b] - at[a]) / np.linalg.norm(at[b] - at[a])

    for a, b, expected in (
        ("upperarm01_L", "lowerarm01_L", (1, 0, 0)),
        ("lowerarm01_L", "wrist_L", (0, -1, 0)),  # the front
        ("lowerarm01_R", "wrist_R", (-1, 0, 0)),
        ("upperleg01_R", "lowerleg01_R", (0, 0, -1)),
        ("lowerleg01_L", "foot_L", (0, 0, -1)),
    ):
        np.testing.assert_allclose(direction(a, b), expected, atol=0.02, err_msg=a)
    assert at["head"][2] > at["spine01"][2] + 0.1


def test_real_recordings_move_bodies(pack, tmp_path):
    import tarfile

    with tarfile.open(pack("bandai1_bvh.tar.xz")) as archive:
        members = [member for member in archive if member.name.endswith(".bvh")][:2]
        for member in members:
            data = archive.extractfile(member)
            assert data is not None
            (tmp_path / member.name.split("/")[-1]).write_bytes(data.read())
    config = synth.SynthConfig(kind="body", image_size=64, clip_length=3, motions=str(tmp_path))
    for record in synth.render_clip(config, 0):
        at = dictionary(record, "body")
        height = record["keypoints3d"][at["left_ankle"], 1] - record["keypoints3d"][at["head_top"], 1]
        assert 0.6 < height < 2.2


def test_backgrounds_come_from_the_folder(tmp_path):
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((40, 60, 3), (30, 200, 60), np.uint8))  # green, BGR
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8")
    config = synth.SynthConfig(kind="hand", image_size=64, clip_length=1, backgrounds=str(tmp_path))
    green = 0
    for index in range(6):  # occluders and gloves of other colours may fill an image
        record = synth.render_clip(config, index)[0]
        red, middle, blue = np.median(decoded(record)[parts(record) == 0].astype(float), axis=0)
        green += middle > red + 20 and middle > blue + 20
    assert green >= 5


def test_empty_folders_are_named(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(ValueError, match="no images"):
        synth.render_clip(synth.SynthConfig(kind="body", backgrounds=str(tmp_path)), 0)
    with pytest.raises(ValueError, match=r"no \.bvh"):
        synth.render_clip(synth.SynthConfig(kind="body", motions=str(tmp_path)), 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "face"), ("image_size", 8), ("clip_length", 0), ("seed", -1), ("crop", (0.9, 0.5)),
     ("truncation", 2.0), ("rate", 0.0)],
)  # fmt: skip
def test_bad_configurations_name_the_field(field, value):
    with pytest.raises(ValueError, match=f"SynthConfig.{field}"):
        synth.SynthConfig(**{"kind": "body", field: value})


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "anny", None)
    caches = (body._model, body._shapes, body._meshes, body.load, render._warp, render._mesh)
    for cache in caches:
        cache.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'jaxpose\[synth\]'"):
        synth.render_clip(synth.SynthConfig(kind="body"), 0)
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


def test_the_package_imports_without_the_extra():
    import subprocess

    code = (
        "import sys; sys.modules.update(anny=None, torch=None, warp=None);"
        "import jaxpose.synth, jaxpose.synth.clips; jaxpose.synth.skeleton('hand')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
