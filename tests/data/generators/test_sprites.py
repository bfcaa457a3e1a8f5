import pickle
import time

import cv2
import numpy as np
import pytest

from jaxpose.data.generators import sprites
from jaxpose.data.generators.sprites import SpriteSource


def factors(source):
    """Indices of shape, scale, orientation, x and y, from the documented order of the flat index."""
    index, columns = np.array([int(source[i]["name"][-6:]) for i in range(len(source))]), []
    for extent in (32, 32, 40, 6, 3):
        index, rest = np.divmod(index, extent)
        columns.append(rest)
    return np.stack(columns[::-1], axis=1)


def color_masks(source):
    return np.stack([source[i]["image"].max(axis=2) > 0 for i in range(len(source))])


@pytest.fixture(scope="module")
def color():
    return SpriteSource(variant="color", split="train", size=500)


def test_records(color):
    record = color[3]
    assert (record["image"].shape, record["image"].dtype) == ((64, 64, 3), np.uint8)
    assert (record["keypoints"].shape, record["keypoints"].dtype) == ((1, 2), np.float32)
    np.testing.assert_array_equal(record["visible"], [2])
    assert record["name"].startswith("dsprites/color/")
    assert color.skeleton.joints == ("centre",)
    assert color.labelled
    assert len(color) == 500
    assert sum(1 for _ in color) == 500


def test_keypoint_is_the_position_factor_and_the_centroid(color):
    found = factors(color)
    keypoints = np.stack([color[i]["keypoints"][0] for i in range(len(color))])
    np.testing.assert_allclose(keypoints, 16 + sprites.POSITION_SPAN * found[:, 3:] / 31)
    assert keypoints.min() >= sprites.AREA[0]
    assert keypoints.max() <= sprites.AREA[1]
    assert len(np.unique(keypoints[:, 0])) == 32
    rows, columns = np.mgrid[:64, :64]
    for mask, keypoint in zip(color_masks(color), keypoints, strict=True):
        np.testing.assert_allclose([columns[mask].mean(), rows[mask].mean()], keypoint, atol=0.5)


def test_shapes_scales_and_coverage(color):
    found, masks = factors(color), color_masks(color)
    area = masks.sum(axis=(1, 2))
    scale = np.linspace(0.5, 1, 6)[found[:, 1]]
    side = 9  # half the square's side at scale 1
    np.testing.assert_allclose(area[found[:, 0] == 0] / (2 * side * scale[found[:, 0] == 0]) ** 2, 1, atol=0.2)
    normal = area / scale**2
    for shape in range(3):
        assert np.std(normal[found[:, 0] == shape]) < 0.08 * np.mean(normal[found[:, 0] == shape])
    assert 0.038 < masks.mean() < 0.048


def test_orientation_turns_the_ellipse(color):
    """The axis of largest variance follows the orientation, 40 values in [0, 2 pi] with both ends."""
    rows, columns = np.mgrid[:64, :64]
    checked = 0
    for mask, (shape, scale, orientation, _, _) in zip(color_masks(color), factors(color), strict=True):
        if shape == 1 and scale > 3:
            axis = np.linalg.eigh(np.cov(columns[mask], rows[mask]))[1][:, 1]
            angle = np.linspace(0, 2 * np.pi, 40)[orientation]
            assert abs(axis @ [np.cos(angle), np.sin(angle)]) > 0.99
            checked += 1
    assert checked > 20


def test_heart_has_a_notch_opposite_its_tip():
    sprite = sprites._sprite("heart", 5, 0)
    assert (sprite == sprite[:, ::-1]).all()
    column = sprite[:, 13]
    notch, lobes = np.flatnonzero(column)[0], np.flatnonzero(sprite.any(axis=1))[0]
    assert lobes < notch
    assert np.flatnonzero(sprite.any(axis=1))[-1] == np.flatnonzero(column)[-1]


def test_color_is_one_bright_colour_on_black(color):
    for i in range(50):
        pixels = color[i]["image"].reshape(-1, 3)
        colours = np.unique(pixels, axis=0)
        assert len(colours) == 2
        assert (colours[0] == 0).all()
        assert (colours[1] >= 127).all()


def test_noisy_is_a_white_sprite_in_uniform_noise():
    source = SpriteSource(variant="noisy", split="test", size=40)
    outside = []
    for i in range(40):
        image, (x, y) = source[i]["image"], source[i]["keypoints"][0].astype(int)
        assert (image[y - 2 : y + 3, x - 2 : x + 3] == 255).all()
        outside.append(image[0])  # no sprite reaches the border
    noise = np.stack(outside) / 255
    assert abs(noise.mean() - 0.5) < 0.01
    assert abs(noise.std() - 12**-0.5) < 0.01
    channels = noise.reshape(-1, 3)
    assert abs(np.corrcoef(channels.T)[0, 1]) < 0.05


@pytest.mark.parametrize("given", [False, True], ids=["painted", "file"])
def test_scream_inverts_the_blend_inside_the_sprite(tmp_path, given):
    file = tmp_path / "scream.png"
    if given:  # one colour: the blend is (colour + U) / 2 everywhere, and inverted inside
        cv2.imwrite(str(file), np.full((200, 100, 3), (51, 102, 204), np.uint8))
    source = SpriteSource(variant="scream", split="train", size=30, background=str(file) if given else None)
    blends = []
    for i in range(30):
        image, (x, y) = source[i]["image"].astype(int), source[i]["keypoints"][0].astype(int)
        if given:
            assert len(np.unique(image.reshape(-1, 3), axis=0)) == 2
            assert np.abs(image[0, 0] + image[y, x] - 255).max() <= 1
            blends.append(image[0, 0] / 255 * 2 - np.array([204, 102, 51]) / 255)
        else:
            assert image[:5].std() > 0
    if given:
        assert np.min(blends) > -0.01
        assert np.max(blends) < 1.01
        assert np.ptp(blends) > 0.8


def test_background_errors(tmp_path):
    with pytest.raises(ValueError, match=r"sprites: background is .*absent\.jpg, expected a file"):
        SpriteSource(variant="scream", split="train", size=1, background=str(tmp_path / "absent.jpg"))
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((64, 300, 3), np.uint8))
    source = SpriteSource(variant="scream", split="train", size=1, background=str(tmp_path / "small.png"))
    with pytest.raises(ValueError, match=r"small\.png: background is 300x64 pixels, expected more than 64"):
        source[0]


def test_splits_are_disjoint_and_deterministic():
    def members(**fields):
        return SpriteSource(**{"variant": "color", "split": "train", "size": 7000, "seed": 0} | fields).combinations

    # Test and validation are taken whole, from different seeds and variants; train is taken whole too.
    test = set(members(split="test", size=7251, variant="noisy", seed=5).tolist())
    train = set(members(size=722639, seed=3).tolist())
    validation = set(members(split="validation", size=7390).tolist())
    assert not test & train
    assert not test & validation
    assert not train & validation
    assert len(test | train | validation) == 3 * 6 * 40 * 32 * 32
    np.testing.assert_array_equal(members(), members())
    assert (members() != members(seed=1)).mean() > 0.99
    assert (members() != members(variant="noisy")).mean() > 0.99
    assert len(set(members().tolist())) == 7000


@pytest.mark.parametrize("variant", sprites.VARIANTS)
def test_same_record_in_any_order_and_after_pickling(variant):
    source = SpriteSource(variant=variant, split="validation", size=20, seed=4)
    later = source[11]["image"]
    again = SpriteSource(variant=variant, split="validation", size=20, seed=4)
    for i in range(20):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[i]["image"], again[i]["image"])
    np.testing.assert_array_equal(later, source[11]["image"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "colour"}, r"variant is 'colour', expected color, noisy, scream"),
        ({"split": "val"}, r"split is 'val', expected train, validation, test"),
        ({"split": "test", "size": 8000}, r"size is 8000, expected 1 to 7251 in split test"),
        ({"size": 0}, r"size is 0, expected 1 to 722639 in split train"),
        ({"npz": "absent.npz"}, r"npz is absent\.npz, expected a file"),
    ],
)
def test_field_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        SpriteSource(**{"variant": "color", "split": "train", "size": 1} | fields)


@pytest.fixture
def few_factors(monkeypatch):
    """3 shapes, 2 scales, 4 orientations, 32 x 32 positions: a file of 24576 images instead of 737280."""
    sprites._split_of_index.cache_clear()
    sprites._sprite.cache_clear()
    monkeypatch.setattr(sprites, "FACTORS", (3, 2, 4, 32, 32))
    yield
    sprites._split_of_index.cache_clear()
    sprites._sprite.cache_clear()


def write_npz(path, *, transposed=False):
    """Sprites of the original's layout: discs whose radius is the shape, so that they differ from rendered ones."""
    rows, columns = np.mgrid[:64, :64]
    grid = np.arange(32)
    images = np.zeros((3, 2, 4, 32, 32, 64, 64), np.uint8)
    for shape in range(3):
        for x in grid:
            for y in grid:
                across, down = (y, x) if transposed else (x, y)
                inside = (columns - 16 - across) ** 2 + (rows - 16 - down) ** 2 < (3 + 2 * shape) ** 2
                images[shape, :, :, x, y] = inside
    np.savez_compressed(path, imgs=images.reshape(-1, 64, 64), latents_classes=np.zeros(3))
    return str(path)


def test_masks_of_the_original_file(tmp_path, few_factors):
    npz = write_npz(tmp_path / "dsprites.npz")
    source = SpriteSource(variant="color", split="train", size=200, npz=npz)
    rows, columns = np.mgrid[:64, :64]
    for i, mask in enumerate(color_masks(source)):
        x, y = source[i]["keypoints"][0]
        shape = source.combinations[i] // (2 * 4 * 1024)
        np.testing.assert_array_equal(mask, (columns - x) ** 2 + (rows - y) ** 2 < (3 + 2 * shape) ** 2)


def test_other_files_are_refused(tmp_path, few_factors):
    def first(path):
        return SpriteSource(variant="color", split="train", size=300, npz=str(path))[0]

    with pytest.raises(ValueError, match=r"sprites lie \d+\.\d pixels from 16 \+ 31 \* position"):
        first(write_npz(tmp_path / "transposed.npz", transposed=True))
    np.savez(tmp_path / "shape.npz", imgs=np.zeros((5, 64, 64), np.uint8))
    with pytest.raises(ValueError, match=r"shape\.npz: imgs is uint8 \(5, 64, 64\), expected dSprites' uint8"):
        first(tmp_path / "shape.npz")
    np.savez(tmp_path / "names.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match=r"names\.npz: .*imgs\.npy.*expected dSprites' \.npz with imgs"):
        first(tmp_path / "names.npz")
    (tmp_path / "no.npz").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"no\.npz: .*expected dSprites' \.npz"):
        first(tmp_path / "no.npz")


def test_color_is_fast(color):
    """The best of five: a machine that is busy with something else has slow moments."""
    took = []
    for first in range(0, 500, 100):
        start = time.process_time()
        for i in range(first, first + 100):
            color[i]
        took.append(time.process_time() - start)
    assert 100 / min(took) > 2000
