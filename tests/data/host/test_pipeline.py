import dataclasses
import functools
import itertools
import operator
import pickle
import time
from typing import ClassVar

import cv2
import numpy as np
import pytest
import scipy.ndimage
from clips import clips_of, windows

from jaxpose.data.host import elements, pipeline
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Record

SKELETON = Skeleton(name="two", joints=("a", "b"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers:
    """Records whose pixels say which one they are."""

    count: int
    broken: tuple[int, ...] = ()
    skeleton: Skeleton = SKELETON
    labelled: bool = True

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        image = np.full((8, 8, 3), index, np.uint8)
        data = cv2.imencode(".png", image)[1].tobytes()
        if index in self.broken:
            data = data[: len(data) // 2]
        return {
            "image": data,
            "keypoints": np.array([[1, 2], [3, 4]], np.float32),
            "visible": np.array([2, 1], np.uint8),
            "name": f"{index}.png",
        }


def crops(count: int, *, broken: tuple[int, ...] = (), memory: int = 0) -> elements.Crops:
    return elements.Crops(
        source=Numbers(count=count, broken=broken), joints=np.array([1, 0]), size=8, margin=1.0, memory=memory
    )


SEEN = ("image", "keypoints", "visible", "scale")


def reads(size: int = 4) -> dict[str, pipeline.BatchPart]:
    return {
        "source": pipeline.BatchPart(elements=crops(10), count=size, fields=("image", "keypoints", "visible")),
        "target": pipeline.BatchPart(elements=crops(7), count=size, fields=("image",)),
    }


def numbers(batches: list, domain: str) -> list[list[int]]:
    return [[int(image[0, 0, 0]) for image in batch[domain]["image"]] for batch in batches]


def take(n: int, **options: int) -> list:
    iterator = pipeline.training_batches([reads()], seed=3, **options)
    return list(itertools.islice(iterator, n))


def test_every_epoch_covers_a_domain_once_in_a_new_order() -> None:
    batches = take(10)
    for domain, size in (("source", 10), ("target", 7)):
        flat = functools.reduce(operator.iadd, numbers(batches, domain), [])
        first, second = flat[:size], flat[size : 2 * size]
        assert sorted(first) == sorted(second) == list(range(size))
        assert first != second


def test_domains_are_shuffled_independently_and_by_seed() -> None:
    same = {name: pipeline.BatchPart(elements=crops(10), count=5, fields=("image",)) for name in ("source", "target")}
    first, second = (next(pipeline.training_batches([same], seed=seed)) for seed in (0, 1))
    assert numbers([first], "source") != numbers([first], "target")
    assert numbers([first], "source") != numbers([second], "source")


def test_a_domains_order_is_its_own_and_that_of_the_stage() -> None:
    two = {name: pipeline.BatchPart(elements=crops(10), count=5, fields=("image",)) for name in ("another", "target")}
    alone = {"target": two["target"]}
    both, one = (next(pipeline.training_batches([read], seed=0, order="adapt")) for read in (two, alone))
    assert numbers([both], "target") == numbers([one], "target")
    before = next(pipeline.training_batches([alone], seed=0, order="pretrain"))
    assert numbers([before], "target") != numbers([one], "target")


def test_starting_later_continues_the_same_sequence() -> None:
    whole, late = take(8), take(3, start=5)
    for expected, found in zip(whole[5:], late, strict=True):
        for domain in expected:
            for field in expected[domain]:
                np.testing.assert_array_equal(found[domain][field], expected[domain][field])


def test_batches_end_where_they_are_told_to() -> None:
    assert numbers(take(8, start=2, stop=5), "target") == numbers(take(5), "target")[2:]


class Noted(Numbers):
    """Keeps which records were asked for."""

    asked: ClassVar[list[int]] = []

    def __getitem__(self, index: int) -> Record:
        Noted.asked.append(index)
        return super().__getitem__(index)


@pytest.mark.parametrize(("ahead", "expected"), [(20 * 5 * 3 * 8 * 8, 20), (0, 4), (2**30, 256)])
def test_as_many_batches_are_read_ahead_as_their_bytes_allow(ahead: int, expected: int) -> None:
    source = elements.Crops(source=Noted(count=50), joints=np.array([0]), size=8)
    read = pipeline.BatchPart(elements=source, count=5, fields=("image",))
    Noted.asked.clear()
    batches = pipeline.training_batches([{"source": read}], seed=0, ahead=ahead)
    next(batches)
    for _ in range(100):
        if len(Noted.asked) == (1 + expected) * 5:
            break
        time.sleep(0.05)
    time.sleep(0.2)
    assert len(Noted.asked) == (1 + expected) * 5  # the batch that was taken, and those ahead


def test_processes_share_each_global_batch_in_order() -> None:
    whole = take(4)
    parts = [take(4, process=i, processes=2) for i in range(2)]
    for step, batch in enumerate(whole):
        for domain in batch:
            for field in ("image", "position"):
                joined = np.concatenate([part[step][domain][field] for part in parts])
                np.testing.assert_array_equal(joined, batch[domain][field])


@pytest.mark.slow
def test_worker_processes_change_nothing() -> None:
    import sys

    from absl import flags

    flags.FLAGS(sys.argv[:1])
    assert numbers(take(6, workers=2), "source") == numbers(take(6), "source")
    assert numbers(take(3, workers=2, start=3), "target") == numbers(take(6), "target")[3:]


def test_batches_hold_what_was_asked_for() -> None:
    (batch,) = take(1)
    assert set(batch["source"]) == {"image", "keypoints", "visible", "position", "index", "broken"}
    assert set(batch["target"]) == {"image", "position", "index", "broken"}
    np.testing.assert_array_equal(batch["source"]["visible"], [[1, 2]] * 4)


def test_uneven_processes_and_empty_domains_are_errors() -> None:
    with pytest.raises(ValueError, match=r"data.batch_size: 4 source rows cannot be split over 3"):
        next(pipeline.training_batches([reads()], seed=0, processes=3))
    empty = {"source": pipeline.BatchPart(elements=crops(0), count=1, fields=("image",))}
    with pytest.raises(ValueError, match=r"data.source: found 0 records"):
        next(pipeline.training_batches([empty], seed=0))


def test_broken_images_are_replaced_by_the_next_good_one_and_named() -> None:
    some = crops(5, broken=(1, 2))
    assert int(some[1]["image"][0, 0, 0]) == 3
    assert int(some[1]["broken"]) == 1
    assert int(some[0]["broken"]) == -1
    assert some.name(1) == "1.png"
    with pytest.raises(ValueError, match="none of 2 images can be decoded"):
        crops(2, broken=(0, 1))[0]


@pytest.mark.parametrize("broken", [(), (0,), (3,), (2, 3, 4), (6, 0, 1), (1, 3, 5), tuple(range(6))])
def test_stand_ins_are_the_next_good_ones_in_whatever_order_they_are_asked_for(broken: tuple[int, ...]) -> None:
    expected = [next(j % 7 for j in range(i, i + 7) if j % 7 not in broken) for i in range(7)]
    for seed in range(20):
        some = crops(7, broken=broken)
        for i in np.random.default_rng(seed).integers(0, 7, 20).tolist():
            element = some[i]
            assert int(element["index"]) == int(element["image"][0, 0, 0]) == expected[i]
            assert int(element["broken"]) == (i if i in broken else -1)


def test_a_broken_image_is_read_once_however_many_lie_beside_it() -> None:
    half = elements.Crops(source=Noted(count=200, broken=tuple(range(100))), joints=np.arange(2), size=8)
    Noted.asked.clear()
    for i in range(200):
        half[i]
    assert len(Noted.asked) == 300  # 100 broken ones, 100 stand-ins, 100 good ones
    for i in range(200):
        half[i]
    assert len(Noted.asked) == 500


def test_memory_keeps_at_most_as_many_bytes_and_changes_nothing() -> None:
    plain, kept = crops(6), crops(6, memory=2 * 3 * 8 * 8)
    for i in (0, 1, 2, 0, 5):
        np.testing.assert_array_equal(plain[i]["image"], kept[i]["image"])
    assert len(kept.__dict__["_kept"]) == 2
    assert len(pickle.loads(pickle.dumps(kept)).__dict__["_kept"]) == 0


def test_memory_counts_the_frames_of_clips() -> None:
    source = clips_of(Numbers(count=9), "a" * 9)
    clips = dataclasses.replace(crops(9, memory=4 * 3 * 8 * 8), source=source, windows=windows(source, (0, 1, 2)))
    for i in range(len(clips)):
        clips[i]
    kept = clips.__dict__["_kept"].values()
    assert sum(element["image"].nbytes for element in kept) == 3 * 3 * 8 * 8


def test_worker_processes_share_the_memory() -> None:
    part = pipeline._stored(crops(6, memory=600), workers=3, show=False)
    assert isinstance(part, elements.Crops)
    assert part.memory == 200


def test_evaluation_sees_every_good_record_once() -> None:
    batches = list(pipeline.evaluation_batches(crops(10, broken=(4,)), SEEN, batch_size=4))
    assert len(batches) == 3
    rows = np.concatenate([batch["row"] for batch in batches])
    seen = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches])[rows]
    assert sorted(seen.tolist()) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_evaluation_of_two_processes_covers_the_same_rows() -> None:
    whole = list(pipeline.evaluation_batches(crops(10), SEEN, batch_size=4))
    parts = [list(pipeline.evaluation_batches(crops(10), SEEN, batch_size=4, process=i, processes=2)) for i in range(2)]
    for step, batch in enumerate(whole):
        for field in ("image", "row"):
            joined = np.concatenate([part[step][field] for part in parts])
            np.testing.assert_array_equal(joined, batch[field])


def test_crop_moves_keypoints_with_the_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        image = np.zeros((60, 90, 3), np.uint8)
        x, y = rng.integers(25, 60), rng.integers(15, 45)
        image[y - 1 : y + 2, x - 1 : x + 2] = 255
        box = np.array([x - rng.uniform(5, 20), y - rng.uniform(5, 12), 30, 24], np.float32)
        record: Record = {
            "image": image,
            "keypoints": np.array([[x, y]], np.float32),
            "visible": np.array([2], np.uint8),
            "bbox": box,
            "name": "one",
        }
        element = elements.crop(record, image, size=48, margin=1.25)
        weights = element["image"][..., 0].astype(float)
        found = [np.average(grid, weights=weights) for grid in np.mgrid[:48, :48]][::-1]
        np.testing.assert_allclose(found, element["keypoints"][0], atol=0.3)


def test_whole_images_are_letterboxed_and_outside_points_are_missing() -> None:
    image = np.full((30, 60, 3), 200, np.uint8)
    record: Record = {
        "image": image,
        "keypoints": np.array([[0, 0], [59, 29], [-5, 3], [np.nan, np.nan]], np.float32),
        "visible": np.array([2, 2, 2, 0], np.uint8),
        "name": "wide",
    }
    element = elements.crop(record, image, size=60, margin=1.25)
    assert (element["image"][:14] == 0).all()
    assert (element["image"][16:44] == 200).all()
    np.testing.assert_allclose(element["keypoints"][:2], [[0, 15], [59, 44]], atol=1e-4)
    np.testing.assert_array_equal(element["visible"], [2, 2, 0, 0])
    assert np.isfinite(element["keypoints"]).all()


def test_intrinsics_follow_the_crop_and_3d_joints_their_choice() -> None:
    rng = np.random.default_rng(0)
    camera = np.array([[300.0, 0, 70], [0, 310, 45], [0, 0, 1]], np.float32)
    points = np.column_stack([rng.uniform(-0.2, 0.2, (2, 2)), rng.uniform(1, 2, 2)]).astype(np.float32)
    projected = points @ camera.T
    record: Record = {
        "image": b"not decoded",
        "keypoints": (projected[:, :2] / projected[:, 2:]).astype(np.float32),
        "visible": np.array([2, 2], np.uint8),
        "name": "0",
        "bbox": np.array([20, 10, 70, 60], np.float32),
        "keypoints3d": points,
        "intrinsics": camera,
    }
    one = Listed(records=(record,))
    fields = ("keypoints", "keypoints3d", "intrinsics")  # for which no image is decoded
    element = elements.Crops(source=one, joints=np.array([1, 0]), size=48, margin=1.25, fields=fields)[0]
    assert set(element) == {*fields, "index", "broken"}
    again = element["keypoints3d"] @ element["intrinsics"].T
    np.testing.assert_allclose(again[:, :2] / again[:, 2:], element["keypoints"], atol=1e-3)
    np.testing.assert_array_equal(element["keypoints3d"], points[::-1])


def test_the_size_of_a_box_has_no_margin_and_is_the_images_where_there_is_none() -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    record = Record(image=image, keypoints=np.zeros((1, 2), np.float32), visible=np.ones(1, np.uint8), name="one")

    def size_of(found: Record, pixels: np.ndarray | None) -> float:
        return float(elements.crop(found, pixels, size=100, margin=1.25, fields=("box_size",))["box_size"])

    boxed = Record(**{**record, "bbox": np.array([5, 5, 20, 30], np.float32)})
    assert size_of(boxed, None) == pytest.approx(80)
    assert size_of(record, image) == size_of(record, None) == pytest.approx(100)


def test_records_of_one_image_have_one_id() -> None:
    def image_of(name: str) -> tuple[int, ...]:
        image = np.zeros((8, 8, 3), np.uint8)
        record = Record(image=image, keypoints=np.zeros((1, 2), np.float32), visible=np.ones(1, np.uint8), name=name)
        found = elements.crop(record, None, size=8, margin=1.0, fields=("image_id",))["image_id"]
        assert (found.dtype, found.shape) == (np.int32, (2,))
        return tuple(found.tolist())

    assert image_of("val/1.jpg#12") == image_of("val/1.jpg#7") == image_of("val/1.jpg")
    others = ("val/2.jpg#12", "val/1.jpg#a", "val/1.jp#12g", "\udce4.jpg")
    assert len({image_of(name) for name in ("val/1.jpg", *others)}) == 5
    assert image_of("a") == (966719552, 792880731)  # in any process


def test_everything_else_follows_the_crop_and_what_is_missing_is_named() -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    image[20:40, 30:60] = 200
    parts = cv2.imencode(".png", np.where(image[..., 0] > 0, 7, 0).astype(np.uint8))[1].tobytes()
    record = Record(
        image=image,
        keypoints=np.array([[30, 20], [59, 39]], np.float32),
        visible=np.array([2, 2], np.uint8),
        name="one",
        bbox=np.array([25.2, 10, 40, 40], np.float32),  # the part's edges lie between pixels of the crop, on none
        area=600.0,
        head_size=11.0,
        hand="left",
        segmentation=parts,
    )
    fields = ("image", "keypoints", "scale", "crop", "area", "head_size", "box_size", "hand", "mask")
    element = elements.crop(record, image, size=100, margin=1.0, fields=fields)
    scale = 100 / 40
    assert float(element["scale"]) == pytest.approx(scale)
    again = record["keypoints"] @ element["crop"][:, :2].T + element["crop"][:, 2]
    np.testing.assert_allclose(again, element["keypoints"], atol=1e-4)
    assert element["area"] == pytest.approx(600 * scale**2)
    assert element["head_size"] == pytest.approx(11 * scale)
    assert element["box_size"] == pytest.approx(100)
    assert element["hand"] == -1
    assert set(np.unique(element["mask"])) == {0, 7}
    inside = element["mask"] == 7
    assert inside.sum() == 30 * 20 * scale**2
    differ = inside != (element["image"][..., 0] > 100)
    assert differ.sum() <= 4  # corners, which are interpolated both ways
    with pytest.raises(ValueError, match="one: found no intrinsics, expected it"):
        elements.crop(record, image, size=100, margin=1.0, fields=("intrinsics",))
    broken = Record(**(dict(record) | {"segmentation": parts[:20]}))
    with pytest.raises(ValueError, match="one: the mask cannot be decoded"):
        elements.crop(broken, image, size=100, margin=1.0, fields=("mask",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listed:
    """Given records."""

    records: tuple[Record, ...]
    skeleton: Skeleton = SKELETON
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]


def test_frames_of_a_clip_share_one_crop() -> None:
    def frame(number: int, x: int, data: bytes | None = None) -> Record:
        image = np.full((40, 60, 3), 10, np.uint8)
        image[20, 30] = 255  # stands still
        return {
            "image": image if data is None else data,
            "keypoints": np.array([[x, 20], [x + 10, 20]], np.float32),
            "visible": np.array([2, 2], np.uint8),
            "name": str(number),
            "bbox": np.array([x, 15, 10, 10], np.float32),
        }

    records = (frame(2, 40, b"broken"), frame(0, 10), frame(1, 30))
    source = clips_of(Listed(records=records), "aaa", [4, 5, 6])
    pairs = windows(source, (0, 1))
    clips = elements.Crops(source=source, joints=np.arange(2), size=60, margin=1.0, windows=pairs)
    assert len(clips) == 2
    element = clips[1]
    assert element["image"].shape == (2, 60, 60, 3)
    peaks = [np.unravel_index(image[..., 0].argmax(), (60, 60)) for image in element["image"]]
    assert peaks[0] == peaks[1]
    # The union of the boxes is 30 pixels wide, enlarged to 60: the second frame's joints are 40 pixels further right.
    np.testing.assert_allclose(element["keypoints"][1] - element["keypoints"][0], [[40, 0], [40, 0]], atol=1e-4)
    replaced = clips[0]
    assert int(replaced["broken"]) == 0
    assert int(replaced["index"]) == 1
    np.testing.assert_array_equal(replaced["image"], element["image"])
    assert clips.name(0) == "2"


def test_boxes_without_extent_do_not_divide_by_zero() -> None:
    record = dict(Numbers(count=1)[0]) | {"bbox": np.array([3, 3, 0, 0], np.float32)}
    element = elements.crop(record, np.zeros((8, 8, 3), np.uint8), size=8, margin=1.25)
    assert np.isfinite(element["keypoints"]).all()


@pytest.mark.parametrize("box", [None, (0.0, 0.0, 6.0, 5.0)])
def test_labels_are_those_of_the_element_and_scale_leads_back(box: tuple[float, ...] | None) -> None:
    record = dict(Numbers(count=1)[0]) | {"keypoints": np.array([[1, 2], [7, 60]], np.float32)}
    if box is not None:
        record |= {"bbox": np.array(box, np.float32), "image": b"not decoded"}
    source = Listed(records=(Record(**record),))
    one = elements.Crops(source=source, joints=np.array([1, 0]), size=24, margin=1.25)
    keypoints, visible = one.labels(0)
    image = np.zeros((8, 8, 3), np.uint8)
    element = elements.crop(source[0], image, size=24, margin=1.25)
    np.testing.assert_array_equal(keypoints, element["keypoints"][::-1])
    np.testing.assert_array_equal(visible, element["visible"][::-1])
    np.testing.assert_array_equal(visible, [0, 2])
    np.testing.assert_allclose((keypoints[0] - keypoints[1]) / element["scale"], [6, 58], rtol=1e-5)


def test_a_misplaced_decimal_in_a_box_is_cheap() -> None:
    """The blur against aliasing would be as wide as the image."""
    record = Record(image=b"", keypoints=np.zeros((1, 2), np.float32), visible=np.array([2], np.uint8), name="a")
    image = np.full((1080, 1920, 3), 200, np.uint8)
    for width in (1e4, 1e5, 1e9):
        before = time.process_time()
        element = elements.crop(record, image, size=256, margin=1.25, box=np.array([0.0, 0.0, width, width]))
        assert time.process_time() - before < 1
        assert np.isfinite(element["keypoints"]).all()


@pytest.mark.parametrize("width", [1500.0, 2500.0, 6000.0])
def test_large_boxes_show_the_means_of_the_image(width: float) -> None:
    """As a Gaussian over the whole image would, and where the keypoints say."""
    y, x = np.mgrid[:400, :600]
    image = np.repeat((100 + 80 * np.sin(x / 90) * np.cos(y / 70))[..., None], 3, axis=2).astype(np.uint8)
    image[180:221, 280:341] = 255  # about (310, 200)
    record = Record(image=b"", keypoints=np.array([[310, 200]], np.float32), visible=np.array([2], np.uint8), name="a")
    size = 64
    box = np.array([310 - width / 2, 200 - width / 2, width, width])
    element = elements.crop(record, image, size=size, margin=1.0, box=box)
    scale = size / width
    blurred = scipy.ndimage.gaussian_filter(image[..., 0].astype(float), 0.25 / scale, mode="mirror")
    rows, columns = np.mgrid[:size, :size]
    offset = (size - 1) / 2 - scale * (box[:2] + (width - 1) / 2)
    places = [(rows - offset[1]) / scale, (columns - offset[0]) / scale]
    expected = scipy.ndimage.map_coordinates(blurred, places, order=1)
    inside = (places[0] > 30) & (places[0] < 369) & (places[1] > 30) & (places[1] < 569)
    assert inside.sum() > 10
    assert np.abs(element["image"][..., 0] - expected)[inside].max() < 8
    brightest = [np.unravel_index(shown.argmax(), (size, size)) for shown in (element["image"][..., 0], expected)]
    np.testing.assert_allclose(*brightest, atol=1)
