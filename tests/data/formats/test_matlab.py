import io
import random

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from jaxpose.data.formats import matlab

CELLS = np.empty((1, 3), object)
CELLS[0, 0], CELLS[0, 1], CELLS[0, 2] = np.ones(2), "a", {"x": np.zeros((0, 3))}
VARIABLES = {
    "numbers": np.arange(30.0).reshape(5, 6),
    "bytes": np.arange(9, dtype=np.uint8).reshape(3, 3),
    "complex": np.ones(3) * 1j,
    "flags": np.array([True, False]),
    "text": "some text",
    "cells": CELLS,
    "structure": {"inner": {"name": "n"}, "a_longer_name": 1},
    "sparse": scipy.sparse.csc_array(np.eye(4)),
}


def saved(**options):
    stream = io.BytesIO()
    scipy.io.savemat(stream, VARIABLES, **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"do_compression": True}], ids=["plain", "compressed"])
def test_variables(tmp_path, options):
    found = matlab.load(saved(**options))
    assert set(found) == set(VARIABLES)
    np.testing.assert_array_equal(found["numbers"], VARIABLES["numbers"])
    assert found["cells"][0, 1] == "a"
    assert found["structure"]["a_longer_name"][0, 0] == 1
    (tmp_path / "a.mat").write_bytes(saved(**options))
    assert list(matlab.load(tmp_path / "a.mat", names=["text", "absent"], squeeze_me=True)) == ["text"]


def test_version_4():
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"x": np.eye(2)}, format="4")
    np.testing.assert_array_equal(matlab.load(stream.getvalue())["x"], np.eye(2))


@pytest.mark.parametrize("data", [b"", b"no matrix", b"no MATLAB file " * 20, saved()[:300], saved()[:128] + b"\1" * 9])
def test_errors(data):
    with pytest.raises(ValueError, match=r"^a\.mat: [^\n]+, expected labels$"):
        matlab.load(data, where="a.mat", expected="labels")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.mat: no such file, expected a MATLAB file up to version 7"):
        matlab.load(tmp_path / "a.mat")


def test_damage_that_crashes_the_reader_is_refused():
    """Without the check, such damage ends the process now and then."""
    rng, data, refused = random.Random(0), saved(), 0
    for _ in range(200):
        damaged = bytearray(data)
        start = rng.randrange(len(data))
        if rng.random() < 0.5:
            damaged[start] = rng.randrange(256)
        else:
            damaged[start:start] = bytes(rng.choice((1, 4, 8)))
        try:
            matlab.load(bytes(damaged))
        except ValueError as error:
            refused += "\n" not in str(error)
    assert 50 < refused < 200
