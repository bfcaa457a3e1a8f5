import numpy as np
import pytest

from jaxpose.data.motion import kinematics


def test_forward_turns_children_about_their_parents():
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # about z: x becomes y
    rotations = np.tile(np.eye(3), (2, 4, 1, 1))
    rotations[1, 0] = rotations[1, 1] = quarter
    offsets = np.array([[[1.0, 1, 1], [2, 0, 0], [3, 0, 0], [0, 0, 5]]])
    found = kinematics.forward((-1, 0, 1, -1), offsets, rotations)
    np.testing.assert_allclose(found[0], [[1, 1, 1], [3, 1, 1], [6, 1, 1], [0, 0, 5]])
    np.testing.assert_allclose(found[1], [[1, 1, 1], [1, 3, 1], [-2, 3, 1], [0, 0, 5]], atol=1e-12)


def test_forward_wants_parents_first():
    with pytest.raises(ValueError, match="joint 0 has parent 1, expected parents before children"):
        kinematics.forward((1, -1), np.zeros((1, 2, 3)), np.tile(np.eye(3), (1, 2, 1, 1)))


def test_jumps_first():
    time = np.arange(40)[:, None, None]
    pose = np.array([[0.0, 0, 0], [0, 0, 1], [1, 0, 1]])
    smooth = pose * (1 + 0.1 * np.sin(0.1 * time))
    assert not kinematics.jumps_first(smooth)
    assert not kinematics.jumps_first(smooth + 5 * (time == 0))  # all of the body, not its pose
    assert kinematics.jumps_first(np.where(time == 0, pose[::-1], smooth))
    assert not kinematics.jumps_first(np.tile(pose, (40, 1, 1)))
    assert not kinematics.jumps_first(smooth[:2])


def test_y_up_becomes_z_up():
    turn = kinematics.Y_UP_TO_Z_UP
    np.testing.assert_array_equal(turn @ [1, 2, 3], [1, -3, 2])
    assert np.linalg.det(turn) == pytest.approx(1)
