"""Files that would keep a run busy or fill its memory: links that loop, pipes, and text that takes for ever to read."""

import io
import os
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import test_coco
import test_deeplabcut

from jaxpose import untrusted
from jaxpose.data import schemes
from jaxpose.data.formats import files, matlab
from jaxpose.data.host import cache
from jaxpose.data.joints import skeletons
from jaxpose.data.motion import asf_amc, bvh
from jaxpose.data.readers import deeplabcut


def use(spec: str, root: Path) -> None:
    opened = schemes.open_data(spec, root=str(root), skeleton=skeletons.LSP14)
    for source in opened.splits.values():
        for i in range(len(source)):
            source[i]


def refuses(spec: str, root: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        use(spec, root)
    assert "\n" not in str(error.value)


def test_links_that_loop_end(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "clips").mkdir(parents=True)
    (root / "clips" / "a.png").write_bytes(test_coco.IMAGE)
    for name in ("up", "again"):
        (root / "clips" / name).symlink_to(root)
    (root / "self").symlink_to(root / "self")
    names = files.Files(root).names
    assert names[0] == "clips/a.png"
    assert len(names) < 10
    opened = schemes.open_data("images:data", root=str(tmp_path), skeleton=skeletons.LSP14)
    found = cache.files_of(
        "images:data", root=str(tmp_path), source=opened.splits["train"], leave_out=[str(tmp_path / "c")]
    )
    assert found["data"][0] == len(names)


def test_a_folder_under_two_names_is_read_under_both(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "a.png").write_bytes(test_coco.IMAGE)
    (tmp_path / "images").symlink_to("frames")
    assert files.Files(tmp_path).names == ("frames/a.png", "images/a.png")


@pytest.mark.parametrize("special", ["pipe", "device"])
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path, special: str) -> None:
    def make(name: str) -> None:
        if special == "pipe":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).symlink_to("/dev/zero")

    test_coco.dataset(tmp_path)
    for name in ("c.png", "labels", "tar.tar", "boxes.json", "s.toml", "v.mp4", "p.slp", "other.json"):
        make(name)
    assert "c.png" not in files.Files(tmp_path).names
    use("coco:labels.json?train=*", tmp_path)
    for spec in ("images:tar.tar", "coco:tar.tar", "coco:other.json", "video:v.mp4", "sleap:p.slp"):
        refuses(spec, tmp_path, "(no regular file|no such file)")
    refuses("coco:labels.json?train=*&boxes=boxes.json", tmp_path, r"boxes\.json: found no regular file")
    refuses("coco:labels.json?train=*&skeleton=s.toml", tmp_path, r"s\.toml: no such file")


def test_a_file_that_becomes_a_pipe(tmp_path: Path) -> None:
    test_coco.dataset(tmp_path)
    found = files.Files(tmp_path)
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: found no regular file"):
        found.read("a.png")


def member(name: str, size: bytes) -> bytes:
    """A tar's header with a size as it is stored."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_a_tar_that_goes_back_is_refused(tmp_path: Path) -> None:
    back = b"\xff" * 10 + (-1536 & 0xFFFF).to_bytes(2, "big")
    (tmp_path / "d.tar").write_bytes(member("a.png", b"0") + member("b.png", back) + bytes(10240))
    refuses("images:d.tar", tmp_path, r"d\.tar: found a member of -1536 bytes")


def test_a_tar_with_an_endless_header_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "d.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "1" * 10**5}):
        pass
    refuses("images:d.tar", tmp_path, r"d\.tar: found a member of 1000\d\d bytes")


def test_a_mat_file_that_expands_a_thousandfold_is_refused() -> None:
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"joints": np.zeros(2**27, np.uint8)}, do_compression=True)
    with pytest.raises(ValueError, match=r"joints\.mat: \d+ bytes expand to \d+, more than 200 times as many"):
        matlab.load(stream.getvalue(), where="joints.mat")


def test_what_expands_little_is_read() -> None:
    untrusted.check_expansion(2**26, 1)
    untrusted.check_expansion(200 * 2**30, 2**30)
    with pytest.raises(ValueError, match="more than 200 times"):
        untrusted.check_expansion(2**26 + 1, 1)


def seconds(work: object) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


@pytest.mark.parametrize("text", ["\n" * 10**5, " \n" * 10**5, "[" + " " * 10**5, "[ a" * 10**5, "- - \n" * 10**5])
def test_a_configuration_is_read_in_linear_time(tmp_path: Path, text: str) -> None:
    tree = test_deeplabcut.project(test_deeplabcut.table(test_deeplabcut.ROWS))
    test_deeplabcut.write(tmp_path, tree | {"config.yaml": f"skeleton:\n{text}x\nnext: 1\n"})
    assert seconds(lambda: deeplabcut.read(tmp_path)) < 2


def test_an_acclaim_skeleton_is_read_in_linear_time() -> None:
    rig = ":root\naxis XYZ\norder TX\n:bonedata\n" + "begin\n" * 10**5 + ":hierarchy\nbegin\nend\n"

    def read() -> None:
        with pytest.raises(ValueError, match="lacks 'name'"):
            asf_amc.read(rig.encode(), b"")

    assert seconds(read) < 2


def test_joints_that_do_not_move_do_not_fill_the_memory() -> None:
    sites = "End Site { OFFSET 0 0 1 } " * 3000
    head = f"HIERARCHY ROOT a {{ OFFSET 0 0 0 CHANNELS 1 Xposition {sites}}} MOTION Frames: 3000 Frame Time: 0.1\n"
    with pytest.raises(ValueError, match=r"a: (3000 frames of 3001 joints|joint names are not unique)"):
        bvh.read((head + "0 " * 3000).encode(), unit=1.0, name="a")


def test_individuals_have_the_same_body_parts(tmp_path: Path) -> None:
    """Else a table of n columns becomes one of n squared."""
    names = [f"n{i}" for i in range(40)]
    lines = [["individuals"], ["bodyparts"], ["coords"], ["labeled-data/vid1/img007.png"]]
    for name in names:
        for coord in ("x", "y"):
            for line, cell in zip(lines, (name, name, coord, "1"), strict=True):
                line.append(cell)
    text = "\n".join(",".join(line) for line in (["scorer", *["a"] * 80], *lines))
    test_deeplabcut.write(tmp_path, test_deeplabcut.project(text))
    refuses("deeplabcut:.?train=*", tmp_path, "found 40 individuals of different body parts, expected the same")


def test_ids_that_all_collide_are_refused(tmp_path: Path) -> None:
    def spoil(content: dict) -> None:
        content["images"][0]["id"] = (2**61 - 1) * 2**61

    test_coco.dataset(tmp_path, spoil)
    refuses("coco:labels.json?train=*", tmp_path, "id is 5316911983139663489.*, expected a number or a string")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[" * 10**5, '{"a.png": [1, 2, 3]}', '{"a.png": [1, 2, 1e300, 4]}', '{"a.png": [1, 2, -3, 4]}', "\xff"],
)
def test_damaged_boxes_are_one_line(tmp_path: Path, text: str) -> None:
    test_coco.dataset(tmp_path)
    (tmp_path / "boxes.json").write_bytes(text.encode("latin1"))
    refuses("coco:labels.json?train=*&boxes=boxes.json", tmp_path, r"boxes\.json: .*expected a JSON object")


def test_a_nested_skeleton_file_is_one_line(tmp_path: Path) -> None:
    test_coco.dataset(tmp_path)
    (tmp_path / "s.toml").write_text("joints = " + "[" * 10**5)
    refuses("coco:labels.json?train=*&skeleton=s.toml", tmp_path, r"s\.toml: .*expected TOML")
