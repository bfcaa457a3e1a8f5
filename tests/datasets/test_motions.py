import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small
import tensorflow_datasets as tfds

from jaxpose.data import schemes
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.host.windows import consecutive
from jaxpose.data.motion import source
from jaxpose.datasets import motions, prepare

INCHES = 0.0254 / 0.45


def planned(kind, root, data_dir):
    return kind(data_dir=str(data_dir), file_format="array_record").shards(root)


def read(shards_of_split):
    # Shards travel to other processes.
    items = [item for shard in shards_of_split for item in pickle.loads(pickle.dumps(shard))()]
    return [i for i in items if not isinstance(i, Skipped)], [i for i in items if isinstance(i, Skipped)]


def at(kind, motion, frame=0):
    """The joints by name."""
    assert motion.joints == kind.SKELETON.joints
    return dict(zip(motion.joints, motion.positions[frame], strict=True))


def check_prepared(kind, owners, tmp_path, expected):
    """The data set goes through files unchanged; `expected` is its first training motion."""
    folder = prepare.prepare(kind, owners, tmp_path / "data")
    found = source.Prepared(folder=folder, split="train")[0]
    assert (found.name, found.subject, found.joints) == (expected.name, expected.subject, expected.joints)
    assert found.rate == pytest.approx(expected.rate)
    np.testing.assert_array_equal(found.positions, expected.positions)
    assert tfds.builder_from_directory(folder).info.features["positions"].shape == (None, len(kind.SKELETON), 3)
    return folder


PLACES = [(0.5 * t, 17, 2 * t) for t in range(4)]


def write_cmu_bvh(root):
    for name in ("05/05_02", "05/05_01", "7/07_10", "7/07_02", "115_01", "120_01"):
        path = root / f"{name}.bvh"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(small.bvh(PLACES))
    (root / "120_01.bvh").write_text(small.bvh(PLACES, name=small.bandai_name))
    (root / "7" / "07_11.bvh").write_text(small.bvh(PLACES)[:-30])
    (root / "readme.bvh").write_text("")


def test_cmu_bvh(tmp_path):
    write_cmu_bvh(tmp_path / "owners")
    found = planned(motions.CmuBvh, tmp_path / "owners", tmp_path)
    train, skipped = read(found["train"])
    assert [(m.name, m.subject) for m in train] == [("07_02", "07"), ("07_10", "07")]
    test = read(found["test"])[0]
    assert [(m.name, m.subject) for m in test] == [("05_01", "05"), ("05_02", "05"), ("115_01", "115")]
    (broken, other) = skipped
    assert (broken.name[:7], broken.reason) == ("07_11: ", "the file is not a readable motion")
    assert other == Skipped("120_01", "the rig is another one's")
    assert (train[0].rate, train[0].positions.shape) == (120.0, (4, 20, 3))
    joint = at(motions.CmuBvh, train[0], frame=1)
    # x stays, y up becomes z, z becomes -y; lengths are inches times 0.45.
    for name, place in (
        ("pelvis", (0.5, 16, 2)),
        ("left_hip", (2.5, 16, 2)),
        ("left_wrist", (12.5, 25, 2)),
        ("right_wrist", (-11.5, 25, 2)),
        ("left_collar", (1.5, 25, 2)),
        ("right_ankle", (-1.5, 1, 2)),
        ("right_foot", (-1.5, 0, 4)),
        ("thorax", (0.5, 26, 2)),
        ("neck", (0.5, 27, 2)),
        ("head_top", (0.5, 30, 3)),
    ):
        x, y, z = place
        np.testing.assert_allclose(joint[name], np.multiply(INCHES, (x, -z, y)), atol=1e-5, err_msg=name)
    folder = check_prepared(motions.CmuBvh, tmp_path / "owners", tmp_path, train[0])
    opened = schemes.open_data(f"tfds:{folder}", root=".")
    windows = source.MotionSource(source=opened.motions["train"], window=consecutive(2, rate=60.0))
    assert (len(windows), opened.skeleton) == (2, motions.CmuBvh.SKELETON)
    assert {split: part.names for split, part in opened.motions.items()} == {
        "train": ("07_02", "07_10"),
        "test": ("05_01", "05_02", "115_01"),
    }
    assert "left out when it was prepared, as the rig is another one's: 1 (120_01)" in map(str, opened.notes)
    pelvis = opened.skeleton.joints.index("pelvis")
    with pytest.raises(ValueError, match=r"1\.0\.0: found split 'nothing', expected one of train, test$"):
        schemes.open_data(f"tfds:{folder}?train=nothing", root=".")
    again = pickle.loads(pickle.dumps(windows))
    np.testing.assert_array_equal(again[1]["positions"][:, pelvis], np.zeros((2, 3)))
    np.testing.assert_allclose(again[1]["pelvis"][1], INCHES * np.array([1, -4, 0]), atol=1e-5)


# Parent, direction and length of every bone of a body that stands with its arms out.
BONES = {
    "lhipjoint": ("root", "1 0 0", 2),
    "lfemur": ("lhipjoint", "0 -1 0", 7),
    "ltibia": ("lfemur", "0 -1 0", 8),
    "lfoot": ("ltibia", "0 0 1", 2),
    "rhipjoint": ("root", "-1 0 0", 2),
    "rfemur": ("rhipjoint", "0 -1 0", 7),
    "rtibia": ("rfemur", "0 -1 0", 8),
    "rfoot": ("rtibia", "0 0 1", 2),
    "thorax": ("root", "0 1 0", 8),
    "lclavicle": ("thorax", "1 0 0", 3),
    "lhumerus": ("lclavicle", "1 0 0", 5),
    "lradius": ("lhumerus", "1 0 0", 4),
    "rclavicle": ("thorax", "-1 0 0", 3),
    "rhumerus": ("rclavicle", "-1 0 0", 5),
    "rradius": ("rhumerus", "-1 0 0", 4),
    "lowerneck": ("thorax", "0 1 0", 1),
    "upperneck": ("lowerneck", "0 1 0", 1),
    "head": ("upperneck", "0 0 1", 3),
}


def asf():
    bones = [
        f"begin\n id {i}\n name {name}\n direction {direction}\n length {length}\n axis 0 0 0 XYZ\n"
        + (" dof rx ry rz\n" if name == "lhumerus" else "")
        + "end"
        for i, (name, (_, direction, length)) in enumerate(BONES.items(), 1)
    ]
    tree = [f"{parent} {name}" for name, (parent, _, _) in BONES.items()]
    return "\n".join(
        [
            *(":version 1.10", ":name VICON", ":units", " mass 1.0", " length 0.45", " angle deg"),
            *(":root", " order TX TY TZ RX RY RZ", " axis XYZ", " position 0 0 0", " orientation 0 0 0"),
            *(":bonedata", *bones, ":hierarchy", "begin", *tree, "end"),
        ]
    )


AMC = ":FULLY-SPECIFIED\n:DEGREES\n1\nroot 0 17 5 0 0 0\nlhumerus 0 0 90\n2\nroot 1 17 5 0 90 0\nlhumerus 0 0 0\n"


def test_cmu(tmp_path):
    folder = tmp_path / "owners" / "subjects"
    for subject, trials in (("07", ("01", "02")), ("35", ("10",)), ("113", ("09",))):
        (folder / subject).mkdir(parents=True)
        (folder / subject / f"{subject}.asf").write_text(asf())
        for trial in trials:
            (folder / subject / f"{subject}_{trial}.amc").write_text(AMC)
    (folder / "07" / "07_02.amc").write_text(AMC + "3\nroot 1 17\n")
    found = planned(motions.Cmu, tmp_path / "owners", tmp_path)
    train, skipped = read(found["train"])
    assert [(m.name, m.subject) for m in train] == [("07_01", "07"), ("113_09", "113")]
    assert [(m.name, m.subject) for m in read(found["test"])[0]] == [("35_10", "35")]
    assert [(s.name.partition(" ")[0], s.reason) for s in skipped] == [("07_02", "the file is not a readable motion")]
    assert train[0].rate == 120.0
    first, second = at(motions.Cmu, train[0]), at(motions.Cmu, train[0], frame=1)
    # The left upper arm is up in frame 0; the body turns its left side, +x, to -z of the file in frame 1.
    for joint, name, place in (
        (first, "left_elbow", (3, 30, 5)),
        (first, "left_wrist", (3, 34, 5)),
        (first, "right_wrist", (-12, 25, 5)),
        (first, "pelvis", (0, 17, 5)),
        (first, "right_ankle", (-2, 2, 5)),
        (first, "left_collar", (0, 25, 5)),
        (first, "thorax", (0, 26, 5)),
        (first, "head_top", (0, 27, 8)),
        (second, "left_wrist", (1, 25, -7)),
    ):
        x, y, z = place
        np.testing.assert_allclose(joint[name], np.multiply(INCHES, (x, -z, y)), atol=1e-5, err_msg=name)
    check_prepared(motions.Cmu, tmp_path / "owners", tmp_path, train[0])
    (folder / "113" / "113.asf").unlink()
    with pytest.raises(FileNotFoundError, match=r"113\.asf: no such file, expected the subject's skeleton"):
        planned(motions.Cmu, tmp_path / "owners", tmp_path)


def test_bandai_namco(tmp_path):
    root = tmp_path / "owners"
    for name in (
        "1/data/dataset-1_walk_old_001",
        "2/data/data/dataset-2_run_normal_010",
        "1/data/dataset-1_bow_sad_001",
    ):
        path = root / f"{name}.bvh"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(small.bvh(PLACES, seconds=0.0333333, name=small.bandai_name))
    train, skipped = read(planned(motions.BandaiNamco, root, tmp_path)["train"])
    assert [m.name for m in train] == ["dataset-1_bow_sad_001", "dataset-1_walk_old_001", "dataset-2_run_normal_010"]
    assert {m.subject for m in train} == {""}
    assert not skipped
    assert train[0].rate == 30.0
    joint = at(motions.BandaiNamco, train[0], frame=1)
    assert "head_top" not in joint
    for name, place in (("left_wrist", (12.5, 25, 2)), ("right_knee", (-1.5, 9, 2)), ("neck", (0.5, 27, 2))):
        x, y, z = place
        np.testing.assert_allclose(joint[name], (x / 100, -z / 100, y / 100), atol=1e-6)
    check_prepared(motions.BandaiNamco, root, tmp_path, train[0])


def write_amass(path, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "poses": np.zeros((3, 156)),
        "trans": np.array([(0, 0, 1.0), (0, 0.5, 1), (0, 1, 1)]),
        "betas": np.zeros(16),
        "gender": np.array("female"),
        "mocap_framerate": np.array(100.0),
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_amass(tmp_path):
    root = tmp_path / "owners"
    for name in ("CMU/07/07_01_poses", "SFU/0005/walk_poses", "SSM/a/b_stageii", "Transitions_mocap/x/y_poses"):
        write_amass(root / f"{name}.npz")
    write_amass(root / "CMU/07/shape.npz", poses=None, trans=None)
    write_amass(root / "CMU/07/neutral_stagei.npz", poses=None)
    write_amass(root / "KIT/3/broken_poses.npz", poses=np.zeros((3, 60)))
    write_amass(root / "KIT/3/objects_poses.npz", mocap_framerate=np.array([{}], dtype=object))
    write_amass(root / "MPI_HDM05/bk/turned_poses.npz", poses=np.tile([0, 0, np.pi / 2] + [0] * 153, (3, 1)))
    found = planned(motions.Amass, root, tmp_path)
    train, skipped = read(found["train"])
    assert [(m.name, m.subject, m.rate) for m in train] == [("CMU/07/07_01_poses", "CMU/07", 100.0)]
    assert [s.reason for s in skipped] == ["the file is not a readable motion"] * 2
    held_out = {split: [m.name for m in read(found[split])[0]] for split in ("validation", "test")}
    assert held_out == {
        "validation": ["MPI_HDM05/bk/turned_poses", "SFU/0005/walk_poses"],
        "test": ["SSM/a/b_stageii", "Transitions_mocap/x/y_poses"],
    }
    joint = at(motions.Amass, train[0], frame=1)
    # SMPL rests with y up and its left at +x; `trans` moves it.
    assert joint["neck"][1] - joint["left_ankle"][1] > 1.2
    assert joint["left_wrist"][0] > 0.6 > -0.6 > joint["right_wrist"][0]
    np.testing.assert_allclose(train[0].positions[2] - train[0].positions[0], np.tile([0, 1, 0], (19, 1)), atol=1e-6)
    turned = at(motions.Amass, read(found["validation"])[0][0])
    assert turned["left_wrist"][1] - turned["right_wrist"][1] > 1.2  # a quarter about z takes x to y
    check_prepared(motions.Amass, root, tmp_path, train[0])


def test_amass_with_body_models(tmp_path):
    root = tmp_path / "owners"
    write_amass(root / "CMU/07/a_poses.npz")
    write_amass(root / "CMU/07/b_poses.npz", gender=np.array(b"male"))
    write_amass(root / "CMU/07/c_poses.npz", gender=np.array("../../male"))
    for gender, scale in (("female", 1.0), ("male", 2.0)):
        folder = root / "body_models" / "smplh" / gender
        folder.mkdir(parents=True)
        vertices = scale * np.arange(52 * 3.0).reshape(52, 3)
        np.savez(folder / "model.npz", v_template=vertices, shapedirs=np.zeros((52, 3, 16)), J_regressor=np.eye(52))
    train, skipped = read(planned(motions.Amass, root, tmp_path)["train"])
    female, male = (at(motions.Amass, motion) for motion in train)
    # Joint 20 of SMPL is the left wrist, 21 the right one.
    np.testing.assert_allclose(female["left_wrist"], [60, 61, 63], atol=1e-4)
    np.testing.assert_allclose(male["right_wrist"], [126, 128, 131], atol=1e-4)
    assert [s.name.partition("gender ")[2] for s in skipped] == ["'../../male', expected one of female, male, neutral"]
    (root / "body_models" / "smplh").rename(root / "body_models" / "other")
    with pytest.raises(ValueError, match=r"body_models: found 0 \.npz and no GENDER/model\.npz, expected one body"):
        planned(motions.Amass, root, tmp_path)


def h36m_clip(frames, number):
    """32 joints of metres, each with its own place."""
    joints = np.arange(32)[None, :, None] + np.arange(3) / 10 + 100 * number
    return (joints + 1000 * np.arange(frames)[:, None, None]).astype(np.float32)


def check_h36m(kind, found):
    train, test = read(found["train"])[0], read(found["test"])[0]
    assert [m.name for m in train] == ["S1/Sitting", "S1/Photo 1", *(f"S{i}/Sitting" for i in (5, 6, 7, 8))]
    assert [m.name for m in test] == ["S9/Sitting", "S11/Sitting"]
    assert [m.subject for m in train] == ["S1", "S1", "S5", "S6", "S7", "S8"]
    assert {m.rate for m in train} == {50.0}
    joint = at(kind, train[0], frame=2)
    places = {"right_ankle": 3, "left_ankle": 8, "left_wrist": 19, "right_wrist": 27, "thorax": 13, "head_top": 15}
    places |= {"right_foot": 5, "left_foot": 10}
    for name, place in places.items():
        np.testing.assert_allclose(joint[name], 2100 + place + np.arange(3) / 10, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(joint["pelvis"][0], 2100 + (1 + 6) / 2, atol=1e-3)
    return train


H36M = {f"S{i}": {"Sitting": h36m_clip(3, i)} for i in (11, 1, 9, 5, 6, 7, 8)}
H36M["S1"]["TakingPhoto 1"] = h36m_clip(2, 20)
H36M["S11"]["Directions"] = h36m_clip(2, 21)


def test_human36m_poses(tmp_path):
    (tmp_path / "owners").mkdir()
    path = tmp_path / "owners" / "data_3d_h36m.npz"
    np.savez_compressed(path, positions_3d=H36M)
    train = check_h36m(motions.Human36mPoses, planned(motions.Human36mPoses, tmp_path / "owners", tmp_path))
    check_prepared(motions.Human36mPoses, tmp_path / "owners", tmp_path, train[0])
    np.savez_compressed(path, positions_3d={k: v for k, v in H36M.items() if k != "S6"})
    with pytest.raises(ValueError, match=r"data_3d_h36m\.npz: positions_3d: holds S11, S1, S9, .*; expected S6"):
        planned(motions.Human36mPoses, tmp_path / "owners", tmp_path)
    np.savez_compressed(path, positions_3d={"S1": Path})
    with pytest.raises(ValueError, match=r"positions_3d: refused pathlib\S*; expected only arrays"):
        planned(motions.Human36mPoses, tmp_path / "owners", tmp_path)


def test_human36m_cdf(tmp_path):
    cdfwrite = pytest.importorskip("cdflib.cdfwrite")
    for subject, clips in H36M.items():
        folder = tmp_path / "owners" / subject / "MyPoseFeatures" / "D3_Positions"
        folder.mkdir(parents=True)
        for action, clip in clips.items():
            pose = 1000 * clip.reshape(1, -1, 96)
            cdf = cdfwrite.CDF(folder / f"{action}.cdf", cdf_spec={"Compressed": 6})
            spec = {"Variable": "Pose", "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True}
            cdf.write_var(spec | {"Dim_Sizes": list(pose.shape[1:])}, var_data=pose)
            cdf.close()
    root = tmp_path / "owners"
    train = check_h36m(motions.Human36mCdf, planned(motions.Human36mCdf, root, tmp_path))
    check_prepared(motions.Human36mCdf, root, tmp_path, train[0])
    broken = root / "S5" / "MyPoseFeatures" / "D3_Positions" / "Sitting.cdf"
    broken.write_bytes(broken.read_bytes()[:200])
    skipped = read(planned(motions.Human36mCdf, root, tmp_path)["train"])[1]
    assert [s.reason for s in skipped] == ["the file is not a readable motion"]
    broken.unlink()
    with pytest.raises(FileNotFoundError, match=r"S5.MyPoseFeatures.D3_Positions: found no \.cdf, expected the subj"):
        planned(motions.Human36mCdf, root, tmp_path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (motions.Cmu, "subjects: no such folder, expected the subjects 01, 02"),
        (motions.CmuBvh, r"found no NN_MM\.bvh, expected trials"),
        (motions.BandaiNamco, r"found no dataset-N_KIND_STYLE_NNN\.bvh, expected the motions"),
        (motions.Amass, r"found no COLLECTION/SUBJECT/NAME\.npz, expected the motions"),
        (motions.Human36mPoses, r"data_3d_h36m\.npz: no such file, expected an \.npz"),
        (motions.Human36mCdf, r"D3_Positions: found no \.cdf, expected the subject's motions"),
    ],
)
def test_wrong_folders(tmp_path, kind, message):
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=message):
        planned(kind, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "counts"),
    [("cmu_walk_bvh.tar.xz", motions.CmuBvh, (55, 2)), ("bandai1_bvh.tar.xz", motions.BandaiNamco, (174, 0))],
)
def test_real_motions(
    pack: Callable[[str], Path], tmp_path: Path, name: str, kind: type, counts: tuple[int, int]
) -> None:
    with tarfile.open(pack(name)) as archive:
        archive.extractall(tmp_path, filter="data")
    found = planned(kind, tmp_path, tmp_path)
    kept = {split: read(parts) for split, parts in found.items()}
    assert [len(kept[split][0]) for split in kept] == list(counts[: len(kept)])
    assert not any(skipped for _, skipped in kept.values())
    heads = [at(kind, motion, frame=-1)["neck"][2] for motion in kept["train"][0]]
    assert 1.2 < np.median(heads) < 1.7
