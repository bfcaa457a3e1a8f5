import random
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxpose.data.formats import files
from jaxpose.data.readers import deeplabcut, sides

PARTS = ("snout", "leftear", "rightear")
IMAGE = cv2.imencode(".png", np.full((60, 80, 3), 90, np.uint8))[1].tobytes()


def table(rows, *, parts=PARTS, coords=("x", "y"), separator="/", columns=1, individuals=None, folder="vid1"):
    """A CollectedData table; rows: image name -> cells (individuals x parts x coords, flat)."""
    names = individuals or ("",)
    blank = [""] * (columns - 1)
    count = len(names) * len(parts) * len(coords)
    lines = [["scorer", *blank, *["AB"] * count]]
    if individuals:
        lines.append(["individuals", *blank, *[i for i in names for _ in parts for _ in coords]])
    lines.append(["bodyparts", *blank, *[part for _ in names for part in parts for _ in coords]])
    lines.append(["coords", *blank, *[coord for _ in names for _ in parts for coord in coords]])
    for image, cells in rows.items():
        path = ["labeled-data", folder, image]
        index = path if columns == 3 else [separator.join(path)]
        lines.append([*index, *["" if cell is None else str(cell) for cell in cells]])
    return "\n".join(",".join(line) for line in lines) + "\n"


ROWS = {
    "img007.png": [1.5, 2, 30, 40, 50.25, 6],
    "img012.png": [None, None, 31, 41, "nan", "nan"],
    "img100.png": [3, 4, 5, None, 7, 8],
}
KEYPOINTS = np.array([[[1.5, 2], [30, 40], [50.25, 6]], [[0, 0], [31, 41], [0, 0]], [[3, 4], [0, 0], [7, 8]]])
VISIBLE = np.array([[2, 2, 2], [0, 2, 0], [2, 0, 2]])


def write(root, tree):
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def project(text, images=tuple(ROWS), folder="vid1", name="CollectedData_AB.csv"):
    return {f"labeled-data/{folder}/{name}": text} | {f"labeled-data/{folder}/{i}": IMAGE for i in images}


def check_rows(source):
    assert source.skeleton.joints == PARTS
    np.testing.assert_array_equal(source.keypoints, KEYPOINTS.astype(np.float32))
    np.testing.assert_array_equal(source.visible, VISIBLE)
    assert [n.rsplit("/", 1)[-1] for n in source.names] == list(ROWS)
    assert source.sequences == ("vid1",) * 3
    np.testing.assert_array_equal(source.frames, [7, 12, 100])
    assert source.bboxes is None
    assert source.labelled
    assert files.decode_image(source[0]["image"], "x").shape == (60, 80, 3)


@pytest.mark.parametrize(
    "options", [{}, {"separator": "\\"}, {"columns": 3}], ids=["slashes", "backslashes", "three columns"]
)
def test_header_variants(tmp_path, options):
    check_rows(deeplabcut.read(write(tmp_path / "p", project(table(ROWS, **options)))))


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    text = "\ufeff" + table(ROWS, separator="\\").replace("\n", "\r\n") + "\r\n"
    check_rows(deeplabcut.read(write(tmp_path / "p", project(text))))


def test_folder_of_labels_renamed_folder_and_tar(tmp_path, monkeypatch):
    root = write(tmp_path / "p", project(table(ROWS, folder="name-on-another-machine")))
    check_rows(deeplabcut.read(root))
    check_rows(deeplabcut.read(root / "labeled-data"))
    monkeypatch.chdir(root / "labeled-data")
    check_rows(deeplabcut.read("."))
    with tarfile.open(tmp_path / "p.tar", "w") as archive:
        archive.add(root, "a/b/p")
    check_rows(deeplabcut.read(tmp_path / "p.tar"))


def test_other_image_format_is_found(tmp_path):
    check_names = ("img007.jpg", "img012.jpg", "img100.jpg")
    source = deeplabcut.read(write(tmp_path / "p", project(table(ROWS), images=check_names)))
    assert source.names == tuple(f"labeled-data/vid1/{name}" for name in check_names)


def test_likelihood_is_dropped(tmp_path):
    rows = {"img1.png": [1, 2, 0.5, 3, 4, None, None, None, 0.9]}
    text = table(rows, coords=("x", "y", "likelihood"))
    source = deeplabcut.read(write(tmp_path / "p", project(text, rows)))
    np.testing.assert_array_equal(source.keypoints, [[[1, 2], [3, 4], [0, 0]]])
    np.testing.assert_array_equal(source.visible, [[2, 2, 0]])


def test_visible_column_is_used(tmp_path):
    rows = {"img1.png": [1, 2, 1, 3, 4, 0, 5, 6, None], "img2.png": [None, None, 2, 3, 4, 2.0, 5, 6, 1]}
    text = table(rows, coords=("x", "y", "visible"))
    source = deeplabcut.read(write(tmp_path / "p", project(text, rows)))
    np.testing.assert_array_equal(source.visible, [[1, 0, 2], [0, 2, 1]])
    np.testing.assert_array_equal(source.keypoints[0], [[1, 2], [0, 0], [5, 6]])
    text = table({"img1.png": [1, 2, 3, 3, 4, 0, 5, 6, 0]}, coords=("x", "y", "visible"))
    with pytest.raises(ValueError, match=r"column visible holds \[0\. 3\.\], expected 0, 1 or 2"):
        deeplabcut.read(write(tmp_path / "q", project(text, rows)))


def test_multi_animal_has_a_record_per_individual(tmp_path):
    nothing = [None] * 6
    rows = {
        "img3.png": [10, 20, 30, 40, None, None, *nothing],
        "img4.png": [1, 1, 2, 9, 3, 5, 60, 10, 70, 10, 80, 12],
        "img5.png": [*nothing, 5, 5, None, None, None, None],  # one joint has no extent
        "img6.png": [*nothing, *nothing],
    }
    text = table(rows, individuals=("mus1", "mus2"))
    source = deeplabcut.read(write(tmp_path / "p", project(text, rows)))
    assert [n.rsplit("/", 1)[-1] for n in source.names] == ["img3.png", "img4.png", "img4.png"]
    np.testing.assert_array_equal(source.keypoints[2], [[60, 10], [70, 10], [80, 12]])
    np.testing.assert_array_equal(source.visible[0], [2, 2, 0])
    note = "left out objects without two distinct labelled joints: 1 (labeled-data/vid1/img5.png)"
    assert [str(note) for note in source.notes] == [note]
    # Squares of 1.3 times 20, 8 and 20 pixels about (20, 30), (2, 5) and (70, 11).
    expected = [[7, 17, 26, 26], [-3.2, -0.2, 10.4, 10.4], [57, -2, 26, 26]]
    np.testing.assert_allclose(source.bboxes, expected, atol=1e-5)
    assert source[1].get("bbox").dtype == np.float32


def test_body_parts_of_no_animal_are_left_out(tmp_path):
    text = (
        "scorer,,,A,A,A,A,A,A\nindividuals,,,mus1,mus1,mus1,mus1,single,single\n"
        "bodyparts,,,snout,snout,tail,tail,corner,corner\ncoords,,,x,y,x,y,x,y\n"
        "labeled-data,vid1,img1.png,1,2,3,4,70,50\n"
    )
    source = deeplabcut.read(write(tmp_path / "p", project(text, ["img1.png"])))
    assert source.skeleton.joints == ("snout", "tail")
    np.testing.assert_array_equal(source.keypoints, [[[1, 2], [3, 4]]])
    assert [str(note) for note in source.notes] == ["left out labels of body parts of no animal (`single`): 1"]


def test_folders_are_selected_by_pattern(tmp_path):
    tree = {}
    for folder in ("cam1_a", "cam1_b", "cam2_a"):
        tree |= project(table(ROWS, folder=folder), folder=folder)
    root = write(tmp_path / "p", tree)
    assert len(deeplabcut.read(root)) == 9
    assert set(deeplabcut.read(root, folders=["cam1_*"]).sequences or ()) == {"cam1_a", "cam1_b"}
    assert set(deeplabcut.read(root, folders=["*_b", "cam2*"]).sequences or ()) == {"cam1_b", "cam2_a"}
    with pytest.raises(ValueError, match=r"p: no folder matches 'cam3\*', found cam1_a, cam1_b, cam2_a$"):
        deeplabcut.read(root, folders=["cam1*", "cam3*"])


def test_joint_order_is_the_first_tables(tmp_path):
    swapped = {"img1.png": [50.25, 6, 1.5, 2, 30, 40]}
    tree = project(table(ROWS, folder="a"), folder="a")
    order = ("rightear", "snout", "leftear")
    tree |= project(table(swapped, folder="b", parts=order), images=swapped, folder="b")
    source = deeplabcut.read(write(tmp_path / "p", tree))
    assert source.skeleton.joints == PARTS
    np.testing.assert_array_equal(source.keypoints[3], KEYPOINTS[0].astype(np.float32))


def test_other_joints_are_an_error(tmp_path):
    tree = project(table(ROWS, folder="a"), folder="a")
    tree |= project(table(ROWS, folder="b", parts=("snout", "leftear", "tail")), folder="b")
    with pytest.raises(ValueError, match=r"b/CollectedData_AB\.csv: body parts are snout, leftear, tail; expected"):
        deeplabcut.read(write(tmp_path / "p", tree))


def test_rows_without_an_image_are_left_out(tmp_path):
    source = deeplabcut.read(write(tmp_path / "p", project(table(ROWS), images=["img012.png"])))
    assert source.names == ("labeled-data/vid1/img012.png",)
    note = "left out labelled images that do not exist: 2 (labeled-data/vid1/img007.png, ...)"
    assert [str(note) for note in source.notes] == [note]
    with pytest.raises(ValueError, match=r"none of 3 labelled images exists.*vid1/img007\.png"):
        deeplabcut.read(write(tmp_path / "q", project(table(ROWS), images=[])))


def test_errors_of_layout_and_cells(tmp_path):
    with pytest.raises(ValueError, match=r"found no labeled-data/<video>/CollectedData_<scorer>\.csv"):
        deeplabcut.read(write(tmp_path / "none", {"video/img1.png": IMAGE}))
    with pytest.raises(ValueError, match=r"header rows are absent; expected scorer, \[individuals,\] bodyparts"):
        deeplabcut.read(write(tmp_path / "a", project("a,b\n1,2\n")))
    with pytest.raises(ValueError, match=r"'oops'.*expected numbers"):
        deeplabcut.read(write(tmp_path / "b", project(table({"img1.png": [1, 2, 3, "oops", 5, 6]}))))
    with pytest.raises(ValueError, match=r"row labeled-data/vid1/img1\.png has 6 cells, expected 7"):
        deeplabcut.read(write(tmp_path / "c", project(table({"img1.png": [1, 2, 3, 4, 5]}))))
    with pytest.raises(ValueError, match=r"row bodyparts has 2 cells, expected 3"):
        deeplabcut.read(write(tmp_path / "g", project("scorer,A,A\nbodyparts,snout\ncoords,x,y\n")))
    with pytest.raises(ValueError, match=r"columns per body part are ; expected one x"):
        deeplabcut.read(write(tmp_path / "h", project("scorer\nbodyparts\ncoords\n")))
    with pytest.raises(ValueError, match=r"columns per body part are x, z; expected one x, one y"):
        deeplabcut.read(write(tmp_path / "d", project(table(ROWS, coords=("x", "z")))))
    with pytest.raises(ValueError, match=r"columns per body part are x, y; expected one x, one y"):
        deeplabcut.read(write(tmp_path / "e", project(table(ROWS, parts=("snout", "tail", "snout")))))
    again = project(table(ROWS)) | project(table(ROWS), name="CollectedData_CD.csv")
    with pytest.raises(ValueError, match=r"CollectedData_CD\.csv: labels labeled-data/vid1/img007\.png again"):
        deeplabcut.read(write(tmp_path / "f", again))


def test_swapped_columns_are_matched_by_name(tmp_path):
    text = (
        "scorer,A,A,A,A,A,A\nbodyparts,leftear,snout,snout,rightear,leftear,rightear\ncoords,y,y,x,x,x,y\n"
        "labeled-data/vid1/img007.png,40,2,1.5,50.25,30,6\n"
    )
    source = deeplabcut.read(write(tmp_path, project(text)))
    assert source.skeleton.joints == ("leftear", "snout", "rightear")
    np.testing.assert_array_equal(source.keypoints, [[[30, 40], [1.5, 2], [50.25, 6]]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"header rows are absent"),
        ("\0" * 50, r"header rows are absent|line contains NUL"),
        (b"\xff\xfe" + table(ROWS).encode(), r"expected a CSV table in UTF-8"),
        (table(ROWS).replace("scorer,", "scorers,"), r"header rows are bodyparts, coords; expected scorer"),
        (table(ROWS).replace("coords,x", "coords,z", 1), r"columns per body part are x, y, z; expected one x, one y"),
        (table(ROWS).replace("coords,x,y,x,y", "coords,x,y,x,x"), r"columns per body part are x, y; expected one x"),
        (
            table(ROWS).replace("bodyparts,snout,snout,leftear,leftear", "bodyparts,snout,snout,leftear,tail"),
            r"body part 'leftear' has no column x or no column y, expected both",
        ),
        (table(ROWS).replace("snout,snout", ","), r"body part '' has no column x or no column y"),
        (table(ROWS)[:-12], r"row labeled-data/vid1/img100\.png has \d cells, expected 7"),
        (table({"img1.png": ["1e", 2, 3, 4, 5, 6]}), r"'1e', expected numbers and empty cells"),
        (table({}), r"none of 0 labelled images exists"),
        ('scorer,"' + "x" * 200_000, r"field larger than field limit.*, expected a CSV table"),
    ],
)
def test_damaged_tables(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        deeplabcut.read(write(tmp_path, project(text)))
    assert "\n" not in str(error.value)


def test_numbers_that_are_no_coordinates_are_missing(tmp_path):
    rows = {"img99999999999999999999.png": ["inf", 2, "1e300", 4, "-inf", "nan"]}
    source = deeplabcut.read(write(tmp_path, project(table(rows), rows)))
    np.testing.assert_array_equal(source.visible, [[0, 0, 0]])
    np.testing.assert_array_equal(source.keypoints, np.zeros((1, 3, 2)))


@pytest.mark.parametrize("individuals", [None, ("mus1", "single")])
def test_random_damage_gives_one_line_errors(tmp_path, individuals):
    generator = random.Random(1)
    rows = {image: cells * len(individuals or "x") for image, cells in ROWS.items()}
    good, messages = table(rows, individuals=individuals).encode(), []
    write(tmp_path, project(good))
    for _ in range(300):
        data = bytearray(good)
        for _ in range(generator.randint(1, 4)):
            place = generator.randrange(len(data))
            piece = generator.choice([b"", b",", b"\n", b'"', b"\0", b"\xff", b"x", b"single", b"coords", b"-1e999"])
            data[place : place + generator.choice([0, 1, 1, 20])] = piece
        (tmp_path / "labeled-data/vid1/CollectedData_AB.csv").write_bytes(data)
        try:
            source = deeplabcut.read(tmp_path)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert np.isfinite(source.keypoints).all()
    assert len(messages) > 50
    assert all("CollectedData" in message and "\n" not in message for message in messages if "exists" not in message)


@pytest.mark.parametrize("damage", ["garbage", "half", "other", "text"])
def test_damaged_h5(tmp_path, damage):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    root = write(tmp_path, project(b"garbage", name="CollectedData_AB.h5"))
    h5 = root / "labeled-data/vid1/CollectedData_AB.h5"
    if damage != "garbage":
        h5.unlink()
        cells = [["x", 1.0]] if damage == "text" else [[1.0, 2.0]]
        pd.DataFrame(cells, columns=list("ab")).to_hdf(h5, key="df_with_missing")
    if damage == "half":
        h5.write_bytes(h5.read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"CollectedData_AB\.h5: (cannot be read|has 1 header rows)") as error:
        deeplabcut.read(root)
    assert "\n" not in str(error.value)


def test_merged_tables_of_training_sets_are_ignored(tmp_path):
    merged = "training-datasets/iteration-0/UnaugmentedDataSet_x/CollectedData_AB.csv"
    check_rows(deeplabcut.read(write(tmp_path / "p", project(table(ROWS)) | {merged: table(ROWS)})))


@pytest.mark.parametrize(
    "skeleton",
    ["skeleton:\n- - snout\n  - leftear\n- - snout\n  - tail\n", "skeleton: [[snout, 'leftear'], [a, b]]\n"],
)
def test_bones_and_sides(tmp_path, skeleton):
    other = "x:\n- - leftear\n  - snout\n"
    config = f"Task: x\nbodyparts:\n- snout\n- leftear\n\n# Plotting\n{skeleton}skeleton_color: black\n{other}"
    root = write(tmp_path / "p", project(table(ROWS)) | {"config.yaml": config})
    for path in (root, root / "labeled-data"):
        source = deeplabcut.read(path)
        assert source.skeleton.bones == (("snout", "leftear"),)
        assert source.skeleton.flips == (("leftear", "rightear"),)
        assert source.skeleton.groups == {}
    empty = write(tmp_path / "q", project(table(ROWS)) | {"config.yaml": f"skeleton: []\n{other}"})
    assert deeplabcut.read(empty).skeleton.bones == ()


@pytest.mark.parametrize("variant", ["table", "fixed"])
@pytest.mark.parametrize("tar", [False, True])
def test_h5_where_there_is_no_csv(tmp_path, variant, tar):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    values = np.where(VISIBLE[..., None] > 0, KEYPOINTS, np.nan).reshape(3, 6)
    columns = pd.MultiIndex.from_product([["AB"], PARTS, ["x", "y"]], names=["scorer", "bodyparts", "coords"])
    if variant == "table":  # 2018: one string per row
        index = [f"labeled-data\\vid1\\{name}" for name in ROWS]
    else:
        index = pd.MultiIndex.from_tuples([("labeled-data", "vid1", name) for name in ROWS])
    root = write(tmp_path / "p", project(b"", name="CollectedData_AB.h5"))
    h5 = root / "labeled-data/vid1/CollectedData_AB.h5"
    h5.unlink()
    pd.DataFrame(values, columns=columns, index=index).to_hdf(h5, key="df_with_missing", format=variant)
    if tar:
        with tarfile.open(tmp_path / "p.tar", "w") as archive:
            archive.add(root, "p")
        check_rows(deeplabcut.read(tmp_path / "p.tar"))
        return
    check_rows(deeplabcut.read(root))
    (h5.parent / "CollectedData_AB.csv").write_text(table({"img007.png": [9, 9, 9, 9, 9, 9]}))
    assert len(deeplabcut.read(root)) == 1  # the csv is preferred


def test_h5_of_multi_animal_projects_and_errors(tmp_path, monkeypatch):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    levels = [["AB"], ["mus1", "mus2"], ["a", "b"], ["x", "y"]]
    columns = pd.MultiIndex.from_product(levels, names=["scorer", "individuals", "bodyparts", "coords"])
    index = pd.MultiIndex.from_tuples([("labeled-data", "vid1", "img1.png")])
    frame = pd.DataFrame(np.arange(8.0)[None], columns=columns, index=index)
    root = write(tmp_path / "p", project(b"", images=["img1.png"], name="CollectedData_AB.h5"))
    h5 = root / "labeled-data/vid1/CollectedData_AB.h5"
    h5.unlink()
    frame.to_hdf(h5, key="df_with_missing")
    source = deeplabcut.read(root)
    np.testing.assert_array_equal(source.keypoints, np.arange(8).reshape(2, 2, 2))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"CollectedData_AB\.h5: .*pip install 'jaxpose\[dlc\]'"):
        deeplabcut.read(root)
    monkeypatch.undo()
    h5.unlink()
    frame.to_hdf(h5, key="predictions")
    with pytest.raises(ValueError, match=r"holds /predictions; expected a table df_with_missing"):
        deeplabcut.read(root)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("nose", "left_eye", "right_eye"), (("left_eye", "right_eye"),)),
        (("rightear", "leftear"), (("leftear", "rightear"),)),
        (("LeftEar", "RightEar", "LEFTPAW", "RIGHTPAW"), (("LeftEar", "RightEar"), ("LEFTPAW", "RIGHTPAW"))),
        (
            ("earL", "earR", "L_hip", "R_hip", "l-toe", "r-toe"),
            (("earL", "earR"), ("L_hip", "R_hip"), ("l-toe", "r-toe")),
        ),
        (("LEar", "REar", "paw2L", "paw2R"), (("LEar", "REar"), ("paw2L", "paw2R"))),
        (("Lip", "Rip", "tail", "tair", "BALL", "BARR"), ()),
        (("left_eye", "nose", "cleft"), ()),
        (("paw1LH", "paw4RH"), ()),
    ],
)
def test_left_right_pairs(names, pairs):
    assert sides.left_right_pairs(names) == pairs


def test_real_ultrasound_pack(pack: Callable[[str], Path]) -> None:
    path = pack("ultrasound_tongue_train.tar")
    source = deeplabcut.read(path)
    assert len(source) == 548
    assert len(set(source.sequences or ())) == 27
    assert len(source.skeleton) == 14
    for index in range(0, 548, 50):
        record = source[index]
        height, width = files.decode_image(record["image"], record["name"]).shape[:2]
        inside = record["keypoints"][record["visible"] > 0]
        assert (inside > -1).all()
        assert (inside < (width, height)).all()
    assert {s.split("_")[0] for s in deeplabcut.read(path, folders=["TaL*"]).sequences or ()} == {"TaL"}
