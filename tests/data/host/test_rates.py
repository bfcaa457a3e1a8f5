import dataclasses
import time

import cv2
import numpy as np
import pytest
from clips import clips_of, windows

from jaxpose.data.host import elements, rates
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Record

SKELETON = Skeleton(name="two", joints=("a", "b"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slow:
    """Small images that take a while to read."""

    delay: float = 0.0
    count: int = 10
    broken: tuple[int, ...] = (0, 4)
    rendered: bool = False
    skeleton: Skeleton = SKELETON
    labelled: bool = True

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        time.sleep(self.delay)
        image = np.full((24, 24, 3), index, np.uint8)
        data = cv2.imencode(".png", image)[1].tobytes()
        return Record(
            image=image if self.rendered else data[:30] if index in self.broken else data,
            keypoints=np.array([[1, 2], [3, 4]], np.float32),
            visible=np.array([2, 1], np.uint8),
            name=f"{index}.png",
        )


def crops(source: Slow) -> elements.Crops:
    return elements.Crops(source=source, joints=np.arange(2), size=16, memory=2**20)


def clips(source: Slow) -> elements.Crops:
    named = clips_of(source, "a" * len(source))
    return elements.Crops(source=named, joints=np.arange(2), size=16, windows=windows(named, (0, 1)))


def measure(part: elements.Crops) -> dict[str, float]:
    return rates.measure_stages(part, fields=("image", "keypoints"), batch_size=4, seconds=0.1)


@pytest.mark.parametrize("source", [Slow(), Slow(rendered=True)])
@pytest.mark.parametrize("make", [crops, clips])
def test_every_stage_has_a_rate(source: Slow, make) -> None:
    threads = cv2.getNumThreads()
    found = measure(make(source))
    assert list(found) == ["read", "decode", "crop", "batch"]
    assert all(rate > 0 for rate in found.values())
    assert cv2.getNumThreads() == threads


def test_a_slow_source_is_seen_in_reading_alone() -> None:
    found = measure(crops(Slow(delay=0.002)))
    assert found["read"] < 500  # 2 ms each
    assert min(found[stage] for stage in ("decode", "crop", "batch")) > 1000
    pairs = measure(clips(Slow(delay=0.002)))
    assert pairs["read"] < 500  # per image, not per clip
    assert pairs["read"] > 0.75 * found["read"]


def test_data_without_a_good_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="two: none of 2 images can be decoded"):
        measure(crops(Slow(count=2, broken=(0, 1))))
