import collections
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxpose.data.formats import unpickle

VALUES = {
    "plain": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    "permuted": np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1),
    "empty": np.zeros((0, 3), np.float32),
    "text": np.array(["ab", "ä"]),
    "bytes": np.array([b"ab", b"\xff"]),
    "flags": np.array([True, False]),
    "scalar": np.float32(2.5),
    "word": np.str_(""),
    "complex": 1 + 2j,
    "dtype": np.dtype("<f4"),
    "raw": b"\x80\xff",
    "array": bytearray(b"\x80"),
    "nested": [1, (2, np.ones(2)), None, 1 << 70],
    "ordered": collections.OrderedDict([("b", 1), ("a", np.ones(1))]),
    "sets": ({1, "x"}, frozenset([2])),
}


@pytest.mark.parametrize("protocol", range(6))
def test_round_trip(protocol):
    found = unpickle.load(pickle.dumps(VALUES, protocol=protocol))
    np.testing.assert_equal(found, VALUES)
    assert list(found["ordered"]) == ["b", "a"]
    for name, value in VALUES.items():
        assert type(found[name]) is type(value), name
        if isinstance(value, np.ndarray):
            assert (found[name].dtype, found[name].flags.f_contiguous) == (value.dtype, value.flags.f_contiguous), name
            assert found[name].flags.writeable


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_objects(protocol):
    shared = {"x": np.ones(2)}
    objects = np.empty((2, 2), dtype=object)
    objects[0, 0], objects[0, 1], objects[1, 0] = [1, 2], shared, shared
    for array in (objects, np.asfortranarray(objects)):
        found = unpickle.load(pickle.dumps(array, protocol=protocol))
        assert (found.shape, found.dtype) == ((2, 2), object)
        assert found[0, 0] == [1, 2]
        assert found[1, 1] is None
        assert found[0, 1] is found[1, 0]
        np.testing.assert_array_equal(found[0, 1]["x"], [1, 1])


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_names_of_both_numpys(core):
    data = pickle.dumps(np.arange(3, dtype="<i2"), protocol=0)
    other = data.replace(b"numpy._core", core.encode()).replace(b"numpy.core", core.encode())
    assert core.encode() in other
    np.testing.assert_array_equal(unpickle.load(other), [0, 1, 2])


def test_python_2():
    # What Python 2.7 writes in protocol 2 for {'name': 'h\xe9', 'pose': array([1., -2.])}.
    content = np.array([1.0, -2.0]).tobytes()
    data = (
        b"\x80\x02}q\x01(U\x04nameq\x02U\x02h\xe9q\x03U\x04poseq\x04"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85q\x07U\x01bq\x08\x87q\x09Rq\x0a"
        b"(K\x01K\x02\x85q\x0bcnumpy\ndtype\nq\x0cU\x02f8q\x0dK\x00K\x01\x87q\x0eRq\x0f"
        b"(K\x03U\x01<q\x10NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x11b\x89U\x10" + content + b"q\x12tq\x13bu."
    )
    found = unpickle.load(data)
    assert found["name"] == "hé"
    np.testing.assert_array_equal(found["pose"], [1, -2])
    np.testing.assert_array_equal(unpickle.load(data, encoding="bytes")[b"pose"], [1, -2])
    with pytest.raises(ValueError, match="UnicodeDecodeError"):
        unpickle.load(data, encoding="ascii")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_run(tmp_path, protocol):
    path = str(tmp_path / "made")
    data = pickle.dumps({"pose": [Hostile(path)]}, protocol=protocol)
    with pytest.raises(ValueError, match=r"anno\.pkl: refused (posix|nt|os)\.mkdir; expected only arrays and plain"):
        unpickle.load(data, where="anno.pkl")
    assert not os.path.exists(path)
    file = io.BytesIO()
    np.savez(file, positions_3d=np.array([Hostile(path)], dtype=object))
    with pytest.raises(ValueError, match=r"npz: positions_3d: refused (posix|nt|os)\.mkdir"):
        unpickle.load_npz(file.getvalue())
    assert not os.path.exists(path)
    pickle.loads(data)  # it does something where it is run
    assert os.path.exists(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", r"refused builtins\.eval"),
        (b"cbuiltins\ngetattr\n.", r"refused builtins\.getattr"),
        (b"cnumpy\nndarray\n(I5\ntR.", "refused to make an array from arguments"),
        (b"cnumpy\nndarray\n.", r"refused numpy\.ndarray as a value"),
        (b"cnumpy\nload\n(S'x'\ntR.", r"refused numpy\.load"),
        (b"cnumpy\ndtype\n}S'a'\nI1\nsb.", r"refused to change numpy\.dtype"),
        (b"cbuiltins\nbytearray\n(I1000000000000\ntR.", "int instead of bytes"),
        (b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.", "refused codec 'rot13'"),
        (b"ccopyreg\n_reconstructor\n.", r"refused copyreg\._reconstructor"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nset\n(I0\ntS'b'\ntR.", r"array of type builtins\.set"),
        (b"Px\n.", "refused a reference to outside"),
        (b"(lp0\ng0\na.", "refused a container that contains itself"),
        (b"", "not a readable pickle"),
        (b"no pickle", "not a readable pickle"),
        (pickle.dumps(list(range(1000)))[:-20], "not a readable pickle"),
        (pickle.dumps(np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])), "refused dtype V12"),
        (pickle.dumps(np.array("2020-01-01", dtype="M8[D]")), "refused dtype M8"),
    ],
)
def test_refusals(data, message):
    with pytest.raises(ValueError, match=f"pickle: .*{message}"):
        unpickle.load(data)


def test_raw_bytes_never_become_objects():
    for spec in (b"O8", b"f8,O"):
        data = (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
            b"(I1\n(I1\ntcnumpy\ndtype\n(S'" + spec + b"'\nI00\nI01\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
            b"I00\nS'\\x10\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\ntb."
        )
        try:
            found = unpickle.load(data)
        except ValueError:
            continue
        assert all(isinstance(item, str) for item in found)  # the characters, not a pointer made of them


def test_deeply_nested_values_are_refused():
    with pytest.raises(ValueError, match="RecursionError"):
        unpickle.load(b"]" * 100_000 + b"a" * 99_999 + b".")


def test_npz(tmp_path):
    tree = {"S1": {"Walking": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}}
    path = tmp_path / "motion.npz"
    np.savez_compressed(path, positions_3d=tree, numbers=np.arange(3), objects=np.array([None, "a"], dtype=object))
    for file in (path, str(path), path.read_bytes()):
        found = unpickle.load_npz(file)
        assert sorted(found) == ["numbers", "objects", "positions_3d"]
        np.testing.assert_equal(found["positions_3d"], tree)
        np.testing.assert_array_equal(found["numbers"], [0, 1, 2])
        assert list(found["objects"]) == [None, "a"]
    assert list(unpickle.load_npz(path, names=["numbers"])) == ["numbers"]


def test_npz_errors(tmp_path):
    path = tmp_path / "motion.npz"
    with pytest.raises(FileNotFoundError, match=r"motion\.npz: no such file"):
        unpickle.load_npz(path)
    np.savez(path, a=np.arange(3))
    with pytest.raises(ValueError, match=r"motion\.npz: holds a; expected positions_3d"):
        unpickle.load_npz(path, names=["positions_3d"])
    data = path.read_bytes()
    with pytest.raises(ValueError, match=r"expected an \.npz"):
        unpickle.load_npz(data[:-30])
    with pytest.raises(ValueError, match=r"expected an \.npz"):
        unpickle.load_npz(data.replace(b"\x93NUMPY", b"\x93NUMPI"))  # the checksum does not fit any more
    file = io.BytesIO()
    np.savez(file, a=np.array([None]))
    np.savez(path, a=np.arange(3, dtype=object).reshape(1, 3))
    other = path.read_bytes().replace(b"(1, 3)", b"(3, 1)")
    with pytest.raises(ValueError, match="npz"):
        unpickle.load_npz(other)


def test_real_cameras(pack: Callable[[str], Path]) -> None:
    with tarfile.open(pack("mmpose_tests_data.tar.gz"), "r:gz") as archive:
        data = archive.extractfile("tests/data/h36m/cameras.pkl").read()
    cameras = unpickle.load(data)
    assert len(cameras) == 44  # 11 subjects, 4 cameras
    camera = cameras["S1", "54138969"]
    assert (camera["w"], camera["h"], camera["id"]) == (1000, 1002, "54138969")
    np.testing.assert_allclose(camera["R"] @ camera["R"].T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(camera["f"].ravel(), [1145.049, 1143.781], atol=1e-3)


@pytest.mark.parametrize("bomb", [b"\x80\x02]r\xff\xff\xff\x7f.", b"]p2147483647\n."], ids=["binary", "text"])
def test_no_table_of_gigabytes(bomb):
    with pytest.raises(ValueError, match="refused to number an object 2147483647 in"):
        unpickle.load(bomb)


LONG = b"\x8b" + (2**10).to_bytes(4, "little") + b"\x01" * 2**10


@pytest.mark.parametrize(
    "key",
    [
        b")" + b"2\x86" * 30,  # a pair of one pair of one pair ...: 2**30 parts to hash
        b")" + b"\x85" * 200_000,  # a tuple in a tuple ... overflows the stack
        LONG,
        b"(" + b"K\x01" * 1000 + b"t",
        b"cbuiltins\ncomplex\n(G?\xf0\x00\x00\x00\x00\x00\x00tR",
    ],
    ids=["shared", "deep", "long", "wide", "complex"],
)
@pytest.mark.parametrize(
    "pattern", [b"}%sNs.", b"}(%sNu.", b"(%sNd.", b"\x8f(%s\x90.", b"(%s\x91.", b"cbuiltins\nset\n((%sltR."]
)
def test_keys_that_hash_for_ever_are_refused(key, pattern):
    with pytest.raises(ValueError, match=r"refused a (tuple|int|complex) as a key"):
        unpickle.load(b"\x80\x04" + pattern % key)


def test_long_numbers_that_all_collide_are_refused():
    prime = 2**61 - 1
    with pytest.raises(ValueError, match="refused a int as a key"):
        unpickle.load(pickle.dumps({prime * 2**i: None for i in range(100)}))


def test_parts_are_not_copied_without_end():
    content = b"B" + (2**24).to_bytes(4, "little") + bytes(2**24) + b"q\x00"
    copy = b"cbuiltins\nbytearray\nh\x00\x85R"
    assert len(unpickle.load(b"\x80\x03(" + content + copy * 5 + b"l.")) == 6
    with pytest.raises(ValueError, match="refused to copy its parts so many times"):
        unpickle.load(b"\x80\x03(" + content + copy * 50 + b"l.")


def test_an_npz_that_expands_a_thousandfold_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**27, np.uint8), b=np.zeros(2**20))
    with pytest.raises(ValueError, match=r"a\.npz: .*expand to 134217856, more than 200 times"):
        unpickle.load_npz(tmp_path / "a.npz")
    assert unpickle.load_npz(tmp_path / "a.npz", names=["b"])["b"].size == 2**20


def test_an_array_larger_than_its_file_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(8))
    data = (tmp_path / "a.npz").read_bytes()
    array = data[data.index(b"\x93NUMPY") : data.index(b"PK\x01\x02")][: 128 + 64]
    with pytest.raises(ValueError, match=r"a\.npy: states the shape \(90000000000,\) and has"):
        unpickle.load_npy(array.replace(b"(8,), }          ", b"(90000000000,), }"), where="a.npy")
