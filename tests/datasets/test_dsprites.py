import flat_common as common
import numpy as np
import pytest

from jaxpose.data.formats import files
from jaxpose.data.generators import sprites
from jaxpose.datasets import dsprites
from jaxpose.datasets.dsprites import DspritesColor, DspritesNoisy, DspritesScream

NPZ = "dsprites_ndarray_co1sh3sc6or40x32x32_64x64.npz"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """2 scales and 1 orientation: a file of 6144 images instead of 737280. Discs, whose radius is the shape."""
    monkeypatch.setattr(sprites, "FACTORS", (3, 2, 1, 32, 32))
    sprites._split_of_index.cache_clear()
    sprites._sprite.cache_clear()
    monkeypatch.setattr(dsprites, "_LENGTHS", {"train": 2100, "test": 20})
    rows, columns = np.mgrid[:64, :64]
    images = np.zeros((3, 2, 32, 32, 64, 64), np.uint8)
    for shape in range(3):
        for x in range(32):
            for y in range(32):
                images[shape, :, x, y] = (columns - 16 - x) ** 2 + (rows - 16 - y) ** 2 < (3 + 2 * shape) ** 2
    folder = tmp_path / "dsprites"
    folder.mkdir()
    np.savez_compressed(folder / NPZ, imgs=images.reshape(-1, 64, 64))
    painting = np.random.default_rng(0).integers(0, 255, (200, 150, 3), np.uint8)
    common.write(folder / "The_Scream.jpg", common.cv2.imencode(".jpg", painting)[1].tobytes())
    yield folder
    dsprites._open.cache_clear()
    sprites._split_of_index.cache_clear()
    sprites._sprite.cache_clear()


def pixels(record):
    return files.decode_image(record["image"], record["name"])


def disc(record):
    """Which pixels lie in the sprite that the keypoint and the name promise."""
    shape = int(record["name"].rsplit("/", 1)[1]) // 2048
    x, y = record["keypoints"][0]
    rows, columns = np.mgrid[:64, :64]
    return (columns - x) ** 2 + (rows - y) ** 2 < (3 + 2 * shape) ** 2


def test_color(root):
    found = common.splits(DspritesColor, root)
    assert {split: len(items) for split, items in found.items()} == {"train": 2100, "test": 20}
    assert len({r["name"] for r in found["train"]}) == 2100
    assert not {r["name"] for r in found["train"]} & {r["name"] for r in found["test"]}
    generated = sprites.SpriteSource(variant="color", split="test", size=20)
    rendered = [generated[i] for i in range(20)]
    for record in found["test"]:
        image = pixels(record)
        assert (image[~disc(record)] == 0).all()
        assert (image[disc(record)] >= 127).all()
        (colour,) = np.unique(image[disc(record)], axis=0)
        (source,) = (s for s in rendered if s["name"] == record["name"])
        np.testing.assert_array_equal(colour, source["image"].max(axis=(0, 1)))  # red, green, blue
        np.testing.assert_array_equal(record["bbox"], [0, 0, 64, 64])


def test_noisy_and_scream(root):
    noisy, scream = (common.splits(kind, root)["test"][3] for kind in (DspritesNoisy, DspritesScream))
    assert (pixels(noisy)[disc(noisy)] == 255).all()
    assert 100 < pixels(noisy)[~disc(noisy)].mean() < 155
    assert pixels(scream).std() > 10
    assert noisy["name"].startswith("dsprites/noisy/")


def test_shards_go_on_from_one_another(root):
    first, second = DspritesColor(data_dir=str(root), file_format="array_record").shards(root)["train"]
    assert (len(list(first())), len(list(second()))) == (2000, 100)
    assert [r["name"] for r in first()] == [r["name"] for r in first()]


def test_prepared(root, tmp_path):
    records = common.check_prepared(DspritesNoisy, root, tmp_path / "data", "test")
    assert pixels(records[0]).shape == (64, 64, 3)


def test_numbers_of_the_full_set():
    sizes = np.bincount(sprites._split_of_index(), minlength=3)
    assert dict(zip(sprites.SPLITS, sizes.tolist(), strict=True)) == DspritesColor.COUNTS
    assert sum(DspritesScream.COUNTS.values()) == 737_280


def test_errors(root):
    (root / "The_Scream.jpg").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"The_Scream\.jpg: found no such file or folder, expected the painting"
    ):
        common.splits(DspritesScream, root)
    (root / NPZ).write_bytes(b"text")
    with pytest.raises(ValueError, match=r"64x64\.npz: .*expected dSprites' \.npz"):
        common.splits(DspritesColor, root)
    (root / NPZ).unlink()
    with pytest.raises(FileNotFoundError, match=r"64x64\.npz: found no such file or folder, expected the owners' file"):
        common.splits(DspritesColor, root)
