import json
import pickle
import random
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxpose.data.formats import files
from jaxpose.data.readers import sleap

h5py = pytest.importorskip("h5py")

FRAMES = [("frame_id", "u8"), ("video", "u4"), ("frame_idx", "u8"), ("instance_id_start", "u8")]
FRAMES = np.dtype([*FRAMES, ("instance_id_end", "u8")])
INSTANCES = [("instance_id", "i8"), ("instance_type", "u1"), ("frame_id", "u8"), ("skeleton", "u4"), ("track", "i4")]
INSTANCES = [*INSTANCES, ("from_predicted", "i8"), ("score", "f4"), ("point_id_start", "u8"), ("point_id_end", "u8")]
INSTANCES = np.dtype([*INSTANCES, ("tracking_score", "f4")])
POINTS = np.dtype([("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")])
PREDICTED = np.dtype([*POINTS.descr, ("score", "f8")])

NAN = float("nan")
BONE, SYMMETRY = ({"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [kind]}]} for kind in (1, 2))
# The nodes of the skeleton are not in the order of the list of all nodes: ids 2, 0, 1.
METADATA = {
    "version": "2.0.0",
    "skeletons": [
        {
            "directed": True,
            "graph": {"name": "Skeleton-0", "num_edges_inserted": 2},
            "links": [
                {"edge_insert_idx": 0, "key": 0, "source": 2, "target": 0, "type": BONE},
                {"edge_insert_idx": 1, "key": 0, "source": 2, "target": 1, "type": {"py/id": 1}},
                {"key": 0, "source": 1, "target": 0, "type": SYMMETRY},
                {"key": 0, "source": 0, "target": 1, "type": {"py/id": 2}},
            ],
            "multigraph": True,
            "nodes": [{"id": 2}, {"id": 0}, {"id": 1}],
        }
    ],
    "nodes": [{"name": name, "weight": 1.0} for name in ("ear_left", "ear_right", "snout")],
}
JOINTS = ("snout", "ear_left", "ear_right")
# Frame 4 has a predicted and a user's instance, frame 9 two of a user, the last with a hidden and a missing joint.
PLACES = [(0, 4, 0, 2), (0, 9, 2, 4)]
KINDS = [1, 0, 0, 0]
USER = [[(1.5, 2, 1), (10, 20, 1), (11, 4, 1)], [(30, 31, 1), (34, 31, 1), (30, 33, 1)]]
USER.append([(5, 5, 1), (25, 9, 1), (7, 7, 0)])
KEYPOINTS = np.array([[[1.5, 2], [10, 20], [11, 4]], [[30, 31], [34, 31], [30, 33]], [[5, 5], [25, 9], [0, 0]]])
VISIBLE = np.array([[2, 2, 2], [2, 2, 2], [2, 2, 0]])
EXTERNAL = {"filename": "C:\\data\\clip.avi", "backend": {"filename": "C:\\data\\clip.avi", "bgr": True, "dataset": ""}}


def project(
    path, *, version: float | None = 1.2, videos=(EXTERNAL,), user=USER, kinds=KINDS, places=PLACES, metadata=METADATA
):
    """Writes a .slp file."""
    with h5py.File(path, "w") as file:
        group = file.create_group("metadata")
        if version is not None:
            group.attrs["format_id"] = version
        group.attrs["json"] = np.bytes_(json.dumps(metadata))
        frames = [(i, video, frame, start, end) for i, (video, frame, start, end) in enumerate(places)]
        file["frames"] = np.array(frames, dtype=FRAMES)
        instances, starts = [], [0, 0]
        for number, kind in enumerate(kinds):
            count = 3 if kind else len(user[starts[0] // 3])
            row = (number, kind, 0, 0, -1, -1, NAN, starts[kind], starts[kind] + count, 0.0)
            instances.append(row if version is None or version >= 1.2 else row[:-1])
            starts[kind] += count
        fields = INSTANCES if version is None or version >= 1.2 else np.dtype(INSTANCES.descr[:-1])
        file["instances"] = np.array(instances, dtype=fields)
        file["points"] = np.array([(x, y, seen, False) for points in user for x, y, seen in points], dtype=POINTS)
        file["pred_points"] = np.array([(99, 99, True, False, 0.5)] * starts[1], dtype=PREDICTED)
        file["videos_json"] = np.array([json.dumps(video) for video in videos], dtype="S")
        file["tracks_json"] = np.array([], dtype="S1")
        file["suggestions_json"] = np.array([], dtype="S1")
    return path


def picture(frame):
    """RGB whose colours tell the frame."""
    return np.broadcast_to(np.array([10 * frame, 200, 30], np.uint8), (48, 64, 3))


def clip(path, count=12):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for frame in range(count):
        writer.write(picture(frame)[..., ::-1])
    writer.release()
    return path


def embed(path, *, order=None, group="video0", frames=(9, 4), fixed=False, source="C:\\data\\clip.avi"):
    """Adds images the way SLEAP does: RGB pixels are given to OpenCV, which takes them for BGR."""
    images = [
        np.frombuffer(cv2.imencode(".png", picture(f) if order != "RGB" else picture(f)[..., ::-1])[1], np.int8)
        for f in frames
    ]
    with h5py.File(path, "a") as file:
        if fixed:
            longest = max(map(len, images)) + 7
            data = np.stack([np.pad(image, (0, longest - len(image))) for image in images])
            dataset = file.create_dataset(f"{group}/video", data=data, compression="gzip")
        else:
            dataset = file.create_dataset(f"{group}/video", (len(images),), dtype=h5py.vlen_dtype(np.int8))
            for row, image in enumerate(images):
                dataset[row] = image
        dataset.attrs["format"] = "png"
        if order:
            dataset.attrs["channel_order"] = order
        file[f"{group}/frame_numbers"] = np.array(frames)
        if source:
            stated = {"backend": {"filename": source}}
            file.create_group(f"{group}/source_video").attrs["json"] = json.dumps(stated)
    return path


def packed(number=0, name="."):
    return {"filename": name, "backend": {"type": "HDF5Video", "filename": name, "dataset": f"video{number}/video"}}


def check(source, *, tolerance=0):
    assert source.skeleton.joints == JOINTS
    assert source.skeleton.bones == (("snout", "ear_left"), ("snout", "ear_right"))
    assert source.skeleton.flips == (("ear_left", "ear_right"),)
    assert source.labelled
    assert source.sequences == ("clip.avi",) * 3
    np.testing.assert_array_equal(source.frames, [4, 9, 9])
    np.testing.assert_array_equal(source.keypoints, KEYPOINTS)
    np.testing.assert_array_equal(source.visible, VISIBLE)
    assert source.keypoints.dtype == np.float32
    # Squares of 1.3 times 18, 4 and 20 pixels about (6.25, 11), (32, 32) and (15, 7).
    expected = [[-5.45, -0.7, 23.4, 23.4], [29.4, 29.4, 5.2, 5.2], [2, -6, 26, 26]]
    np.testing.assert_allclose(source.bboxes, expected, atol=1e-5)
    for index, frame in enumerate((4, 9, 9)):
        record = source[index]
        assert (record["name"], record.get("sequence"), record.get("frame")) == (
            f"clip.avi frame {frame}",
            "clip.avi",
            frame,
        )
        pixels = files.decode_image(record["image"], "x").astype(int)
        assert abs(pixels - picture(frame)).max() <= tolerance


@pytest.mark.parametrize("order", [None, "BGR", "RGB"])
@pytest.mark.parametrize("fixed", [False, True])
def test_embedded_images(tmp_path, order, fixed):
    path = embed(project(tmp_path / "a.pkg.slp", videos=[packed()]), order=order, fixed=fixed)
    check(sleap.read(path))
    check(pickle.loads(pickle.dumps(sleap.read(path))))
    part = sleap.read(path).subset([2, 0])
    np.testing.assert_array_equal(part.frames, [9, 4])
    np.testing.assert_array_equal(part[0]["keypoints"], KEYPOINTS[2])


def test_channels_are_in_order_since_format_1_4(tmp_path):
    path = embed(project(tmp_path / "a.pkg.slp", version=1.4, videos=[packed()]), order="RGB")
    with h5py.File(path, "a") as file:
        del file["video0/video"].attrs["channel_order"]
    check(sleap.read(path))


@pytest.mark.parametrize("place", ["beside", "folder", "file"])
def test_external_video(tmp_path, place):
    path = project(tmp_path / "a.slp")
    (tmp_path / "videos").mkdir()
    video = clip(tmp_path / ("clip.avi" if place == "beside" else "videos/clip.avi"))
    given = {"beside": None, "folder": tmp_path / "videos", "file": video}[place]
    source = sleap.read(path, video=given)
    check(source, tolerance=12)
    check(pickle.loads(pickle.dumps(source)), tolerance=12)


def test_external_video_by_its_path(tmp_path):
    video = clip(tmp_path / "clip.avi")
    (tmp_path / "b").mkdir()
    stated = [{"backend": {"filename": str(video)}}]
    check(sleap.read(project(tmp_path / "b/a.slp", videos=stated)), tolerance=12)
    stated = [{"filename": "../clip.avi", "backend": {"type": "MediaVideo"}}]
    check(sleap.read(project(tmp_path / "b/a.slp", videos=stated)), tolerance=12)


@pytest.mark.parametrize("version", [1.0, None])
def test_older_coordinates_are_half_a_pixel_less(tmp_path, version):
    clip(tmp_path / "clip.avi")
    source = sleap.read(project(tmp_path / "a.slp", version=version))
    expected = np.where(VISIBLE[..., None] > 0, KEYPOINTS - 0.5, 0)
    np.testing.assert_array_equal(source.keypoints, expected)
    check(sleap.read(project(tmp_path / "b.slp", version=1.1)), tolerance=12)


def test_image_files(tmp_path):
    names = [f"C:\\images\\clip.avi\\{i}.png" for i in range(11)]
    (tmp_path / "here").mkdir()
    for frame in (4, 9):
        cv2.imwrite(str(tmp_path / f"here/{frame}.png"), np.ascontiguousarray(picture(frame)[..., ::-1]))
    stated = {"backend": {"type": "ImageVideo", "filename": names[0], "filenames": names}}
    source = sleap.read(project(tmp_path / "a.slp", videos=[stated]), video=tmp_path / "here")
    assert set(source.sequences) == {"C:/images/clip.avi"}
    np.testing.assert_array_equal(source.keypoints, KEYPOINTS)
    np.testing.assert_array_equal(files.decode_image(source[1]["image"], "x"), picture(9))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [1, 3])
def test_uncompressed_pixels(tmp_path, layout, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 48, 64, channels), dtype=np.uint8)
    with h5py.File(tmp_path / "clip.avi", "w") as file:
        file["box"] = pixels if layout == "channels_last" else np.transpose(pixels, (0, 3, 2, 1))
    stated = {"backend": {"filename": "clip.avi", "dataset": "box", "input_format": layout}}
    source = sleap.read(project(tmp_path / "a.slp", videos=[stated]))
    image = files.decode_image(source[1]["image"], "x")
    np.testing.assert_array_equal(image, np.repeat(pixels[9], 3 // channels, axis=-1))


def test_numbers_of_videos_that_were_taken_out_of_a_project(tmp_path):
    places = [(3, 4, 0, 2), (15, 9, 2, 4)]
    path = project(tmp_path / "a.pkg.slp", videos=[packed(3), packed(15)], places=places)
    embed(path, group="video3", frames=[4], source="one.mp4")
    embed(path, group="video15", frames=[9], source="")
    source = sleap.read(path)
    assert source.sequences == ("one.mp4", "video1", "video1")
    np.testing.assert_array_equal(files.decode_image(source[0]["image"], "x"), picture(4))
    np.testing.assert_array_equal(files.decode_image(source[2]["image"], "x"), picture(9))


def test_videos_of_one_name_are_two_sequences(tmp_path):
    places = [(0, 4, 0, 2), (1, 4, 2, 4)]
    path = project(tmp_path / "a.pkg.slp", videos=[packed(0), packed(1)], places=places)
    embed(embed(path, frames=[4]), group="video1", frames=[4])
    assert sleap.read(path).sequences == ("clip.avi (0)", "clip.avi (1)", "clip.avi (1)")


def test_skeleton_of_later_versions_and_without_symmetries(tmp_path):
    graph = METADATA["skeletons"][0]
    later = METADATA | {"skeletons": [{"nx_graph": graph, "description": None, "preview_image": None}]}
    check(sleap.read(embed(project(tmp_path / "a.slp", videos=[packed()], metadata=later))))
    plain = METADATA | {"skeletons": [graph | {"links": graph["links"][:2]}]}
    check(sleap.read(embed(project(tmp_path / "b.slp", videos=[packed()], metadata=plain))))
    # Where symmetries come first, they have the first number.
    first = METADATA | {"skeletons": [graph | {"links": [graph["links"][2], {"source": 2, "target": 0, "type": BONE}]}]}
    first["skeletons"][0]["links"].append({"source": 2, "target": 1, "type": {"py/id": 2}})
    check(sleap.read(embed(project(tmp_path / "c.slp", videos=[packed()], metadata=first))))


def test_damaged_links_are_left_out(tmp_path):
    graph = METADATA["skeletons"][0]
    links = [*graph["links"], {}, 3, {"type": {"py/id": 7}, "source": 0, "target": 1}, {"type": BONE, "source": 0}]
    metadata = METADATA | {"skeletons": [graph | {"links": links}]}
    source = sleap.read(embed(project(tmp_path / "a.slp", videos=[packed()], metadata=metadata)))
    check(source)
    what = "left out links of the skeleton that are neither a bone nor a symmetry: 4"
    assert [str(note) for note in source.notes] == [what]


def test_instances_need_two_distinct_joints(tmp_path):
    user = [[(1, 2, 1), (NAN, NAN, 0), (NAN, 3, 1)], USER[1], [(5, 5, 1), (5, 5, 1), (float("inf"), 1, 1)]]
    source = sleap.read(embed(project(tmp_path / "a.slp", videos=[packed()], user=user)))
    np.testing.assert_array_equal(source.keypoints, KEYPOINTS[1:2])
    (note,) = source.notes
    assert str(note).startswith("left out objects without two distinct labelled joints: 2 (")
    graph = METADATA["skeletons"][0] | {"nodes": [{"id": 2}], "links": []}
    one = [[(1, 2, 1)], [(NAN, NAN, 0)], [(5, 6, 1)]]
    path = project(tmp_path / "b.slp", videos=[packed()], kinds=[0, 0, 0], user=[one[0] * 3] * 3)
    with h5py.File(path, "a") as file:
        file["points"][:3] = np.array([(*point[0], False) for point in one], dtype=POINTS)
        instances = file["instances"][()]
        instances["point_id_start"], instances["point_id_end"] = range(3), range(1, 4)
        file["instances"][...] = instances
        file["metadata"].attrs["json"] = json.dumps(METADATA | {"skeletons": [graph]})
    source = sleap.read(embed(path))
    assert source.bboxes is None
    assert "bbox" not in source[0]
    np.testing.assert_array_equal(source.keypoints, [[[1, 2]], [[5, 6]]])


def test_absent_images_are_left_out(tmp_path):
    path = project(tmp_path / "a.slp")
    with pytest.raises(ValueError, match=r"a\.slp: found no image of 3 instances in clip\.avi; see the option video$"):
        sleap.read(path)
    clip(tmp_path / "clip.avi", count=6)
    source = sleap.read(path)
    np.testing.assert_array_equal(source.frames, [4])
    (note,) = source.notes
    assert str(note) == "left out instances whose image is absent: 2 (clip.avi frame 9, ...)"
    (tmp_path / "clip.avi").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"found no image of 3 instances"):
        sleap.read(path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        sleap.read(path, video="nowhere")


def test_broken_images_are_met_where_they_are_decoded(tmp_path):
    path = embed(project(tmp_path / "a.slp", videos=[packed()]))
    with h5py.File(path, "a") as file:
        file["video0/video"][0] = np.frombuffer(b"\x89PNG\r\n\x1a\n...", np.int8)
    source = sleap.read(path)
    with pytest.raises(files.records.BrokenImageError):
        files.decode_image(source[1]["image"], "x")
    np.testing.assert_array_equal(files.decode_image(source[0]["image"], "x"), picture(4))


def analysis(path, *, video="C:\\data\\clip.avi", dims=None):
    """Writes an exported analysis file of two tracks and ten frames."""
    tracks = np.full((2, 2, 3, 10), np.nan)  # tracks, xy, nodes, frames
    tracks[0, :, :, 4], tracks[0, :, :, 9] = KEYPOINTS[0].T, KEYPOINTS[1].T
    tracks[1, :, :2, 9] = KEYPOINTS[2, :2].T
    with h5py.File(path, "w") as file:
        if dims:
            axes = [("track", "xy", "node", "frame").index(axis) for axis in dims]
            file["tracks"] = np.transpose(tracks, axes)
            file["tracks"].attrs["dims"] = json.dumps(dims)
        else:
            file["tracks"] = tracks
        file["track_occupancy"] = np.isfinite(tracks).any(axis=(1, 2)).T.astype(np.uint8)
        file["node_names"] = np.array(JOINTS, dtype="S")
        file["track_names"] = np.array(["a", "b"], dtype="S")
        if video:
            file["edge_names"] = np.array([("snout", "ear_left"), ("snout", "ear_right")], dtype="S")
            file["video_path"] = video
    return path


@pytest.mark.parametrize("dims", [None, ["frame", "track", "node", "xy"]])
def test_analysis_files(tmp_path, dims):
    clip(tmp_path / "clip.avi")
    check(sleap.read(analysis(tmp_path / "a.h5", dims=dims)), tolerance=12)


def test_analysis_files_without_the_optional_fields(tmp_path):
    path = analysis(tmp_path / "a.h5", video=None)
    with pytest.raises(ValueError, match=r"a\.h5: states no video, expected the option video$"):
        sleap.read(path)
    source = sleap.read(path, video=clip(tmp_path / "clip.avi"))
    assert source.skeleton.bones == ()
    np.testing.assert_array_equal(source.keypoints, KEYPOINTS)
    np.testing.assert_array_equal(source.visible, VISIBLE)


def replace(name, value):
    def damage(file):
        del file[name]
        file[name] = value

    return damage


def attribute(name, value):
    def damage(file):
        file["metadata"].attrs[name] = value

    return damage


def set_field(name, field, value):
    def damage(file):
        table = file[name][()]
        table[field] = value
        file[name][...] = table

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (attribute("format_id", 3.0), r"has format 3, expected less than 3$"),
        (attribute("format_id", NAN), r"has format nan, expected less than 3$"),
        (attribute("format_id", "new"), r"format_id is new, expected a number$"),
        (attribute("json", "{"), r"metadata cannot be read: Expecting"),
        (attribute("json", "[]"), r"the metadata do not describe the skeletons \[0\]$"),
        (attribute("json", '{"nodes": [], "skeletons": [{"nodes": [{"id": 1}]}]}'), r"do not describe the skeletons"),
        (attribute("json", '{"nodes": [{"name": 1}], "skeletons": [{"nodes": [{"id": 0}]}]}'), r"expected names$"),
        (lambda file: file["metadata"].attrs.pop("json"), r"metadata cannot be read: Expecting"),
        (lambda file: file.pop("frames"), r"frames cannot be read: "),
        (replace("points", np.zeros((3, 4))), r"points has the fields None, expected x y visible$"),
        (replace("videos_json", np.array([b"{"])), r"video 0 cannot be read: "),
        (replace("videos_json", np.array([b"[]"])), r"video 0 has no backend"),
        (replace("videos_json", np.array([b'{"backend": {}}'])), r"video 0 is None, expected the name of a file$"),
        (replace("videos_json", 5), r"videos_json are int64 \(\), expected a list$"),
        (replace("video0/frame_numbers", np.zeros(5, int)), r"video0/video has 2 images, found frame_numbers \(5,\)$"),
        (lambda file: file.pop("video0"), r"holds no images video0/video of video 0$"),
        (replace("video0/video", np.zeros((2, 5), np.float32)), r"is float32 \(2, 5\), expected encoded images or"),
        (set_field("instances", "instance_type", 1), r"found 4 instances, none of a user; expected labels$"),
        (set_field("instances", "skeleton", 1), r"the metadata do not describe the skeletons \[1\]$"),
        (set_field("instances", "point_id_end", 1), r"instances do not have 3 of 9 points each$"),
        (set_field("instances", "point_id_end", 2**63), r"instances do not have 3 of 9 points each$"),
        (set_field("frames", "video", 7), r"found no image of 3 instances"),
        (set_field("frames", "frame_idx", 2**63), r"found no image of 3 instances"),
        (lambda file: [file.pop(name) for name in list(file)], r"holds nothing; expected labels or tracks of SLEAP$"),
    ],
)
def test_damaged_projects(tmp_path, damage, message):
    path = embed(project(tmp_path / "a.slp", videos=[packed()]))
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(ValueError, match=message) as error:
        sleap.read(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replace("tracks", np.zeros((2, 2, 10))), r"tracks are float64 \(2, 2, 10\) along"),
        (replace("tracks", np.zeros((2, 2, 3, 10), int)), r"tracks are int64"),
        (replace("tracks", np.zeros((2, 3, 2, 10))), r"tracks have \(2, 3\) nodes and axes, expected \(3, 2\)$"),
        (replace("tracks", np.full((2, 2, 3, 10), NAN)), r"without a joint, expected some$"),
        (replace("node_names", np.array([b"a", b"a", b"b"])), r"joint names are not unique"),
        (replace("node_names", np.array([b"\xff", b"a", b"b"])), r"node_names are \|S1, expected names$"),
        (replace("node_names", 5), r"node_names are int64 \(\), expected a list$"),
    ],
)
def test_damaged_analysis_files(tmp_path, damage, message):
    path = analysis(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(ValueError, match=message) as error:
        sleap.read(path)
    assert str(error.value).startswith(str(path))


def odd_values(generator):
    values = [0, -1, NAN, b"", b"x", b"{}", b'[{"a": 1}]', np.zeros(0), np.zeros((2, 3)), np.array([b"[]", b"\xff"])]
    return generator.choice([*values, np.arange(3), np.full(2, 2**63, np.uint64), np.zeros(2, POINTS)])


def odd_numbers(dtype):
    return [0, 1, 5, 255] if dtype.kind == "u" and dtype.itemsize == 1 else [0, 1, 7, 2**31 - 1]


def damage_at_random(file, generator):
    names = []
    file.visititems(lambda name, item: names.append(name))
    name = generator.choice(names)
    attributes = list(file[name].attrs)
    if attributes and generator.random() < 0.5:
        file[name].attrs[generator.choice(attributes)] = odd_values(generator)
    elif getattr(file[name], "dtype", np.dtype("f4")).names and generator.random() < 0.8:
        table = file[name][()]
        field = generator.choice(table.dtype.names)
        table[field][generator.randrange(len(table))] = generator.choice(odd_numbers(table.dtype[field]))
        file[name][...] = table
    else:
        del file[name]
        if generator.random() < 0.7:
            file[name] = odd_values(generator)


@pytest.mark.parametrize("kind", ["project", "analysis"])
def test_random_damage_gives_one_line_errors(tmp_path, kind):
    clip(tmp_path / "clip.avi")
    good = analysis(tmp_path / "a.h5") if kind == "analysis" else embed(project(tmp_path / "a", videos=[packed()]))
    generator, messages, path, data = random.Random(0), [], tmp_path / "b.slp", good.read_bytes()
    for number in range(100):
        path.write_bytes(data if number % 10 else data[: generator.randrange(len(data))])
        if number % 10:
            with h5py.File(path, "a") as file:
                damage_at_random(file, generator)
        try:
            source = sleap.read(path)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert np.isfinite(source.keypoints).all()
            for index in range(len(source)):
                source[index]
    assert len(messages) > 30
    assert [message for message in messages if not message.startswith(str(path)) or "\n" in message] == []


def test_files_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"none\.slp: no such file"):
        sleap.read(tmp_path / "none.slp")
    path = Path(tmp_path / "a.slp")
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.slp: .*; expected an HDF5 file of SLEAP$"):
        sleap.read(path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"a\.slp: .*pip install 'jaxpose\[sleap\]'"):
        sleap.read(path)


@pytest.mark.parametrize("name", ["points", "videos_json", "video0/video", "video0/frame_numbers", "video0"])
@pytest.mark.parametrize("kind", ["soft", "external", "stored outside", "virtual"])
def test_nothing_outside_of_the_file_is_read(tmp_path, name, kind):
    """A file can name any path: of another data set, of a device, of a pipe that is never written to."""
    if kind in ("stored outside", "virtual") and name == "video0":
        pytest.skip("a group has no values")
    path = embed(project(tmp_path / "a.pkg.slp", videos=(packed(),)))
    check(sleap.read(path))
    other = tmp_path / "other.h5"
    with h5py.File(path, "r+") as file, h5py.File(other, "w") as copy:
        file.copy(file[name], copy, name="x")
        values = copy["x"][()] if isinstance(copy["x"], h5py.Dataset) else None
        file.copy(file[name], file, name="moved")
        del file[name]
        if kind == "soft":
            file[name] = h5py.SoftLink("/moved")
        elif kind == "external":
            file[name] = h5py.ExternalLink(str(other), "x")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[:] = h5py.VirtualSource(str(other), "x", values.shape)
            file.create_virtual_dataset(name, layout)
        else:
            raw = tmp_path / "raw"
            raw.write_bytes(bytes(10_000))
            file.create_dataset(name, (3,), "f8", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(ValueError, match=r"a\.pkg\.slp: .*(a link to elsewhere|kept in another file)") as error:
        sleap.read(path)
    assert "\n" not in str(error.value)


def test_values_that_are_stated_and_not_there_do_not_fill_the_memory(tmp_path):
    path = embed(project(tmp_path / "a.pkg.slp", videos=(packed(),)))
    with h5py.File(path, "r+") as file:
        del file["points"]
        file.create_dataset("points", (2**40,), POINTS, chunks=(1000,))
    with pytest.raises(ValueError, match=r"points cannot be read: .*more than 200 times as many"):
        sleap.read(path)


def test_a_heap_without_an_end_is_refused(tmp_path):
    """The HDF5 library would go round for ever."""
    path = analysis(tmp_path / "a.h5")
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    size = int.from_bytes(data[heap + 24 : heap + 32], "little")
    free = heap + 32 + size + (-size % 8)  # what follows the only text
    assert data[free : free + 2] == b"\0\0"
    data[free + 8 : free + 16] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.h5: the heap at byte {heap} is damaged"):
        sleap.read(path)
