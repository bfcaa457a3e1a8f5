"""What the tests of the builders of 2D data sets share."""

import pickle

import cv2
import numpy as np

from jaxpose.data.formats import shards
from jaxpose.data.readers import tfds_source
from jaxpose.datasets import prepare


def picture(width=80, height=60, value=90, suffix=".jpg"):
    return cv2.imencode(suffix, np.full((height, width, 3), value, np.uint8))[1].tobytes()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def splits(builder_class, root):
    """All items by split, through pickled shards as other processes get them."""
    builder = builder_class(data_dir=str(root / "unused"), file_format="array_record")
    found = builder.shards(root)
    return {s: [item for shard in parts for item in pickle.loads(pickle.dumps(shard))()] for s, parts in found.items()}


def records(items):
    return [item for item in items if not isinstance(item, shards.Skipped)]


def reasons(items):
    return {item.name: item.reason for item in items if isinstance(item, shards.Skipped)}


def joint(skeleton, record, name):
    """Where a joint is and how visible."""
    i = skeleton.joints.index(name)
    return (*record["keypoints"][i].tolist(), int(record["visible"][i]))


def check_prepared(builder_class, root, data_dir, split):
    """Prepares the data set and compares a split with what the builder yields; returns its records."""
    folder = prepare.prepare(builder_class, root, data_dir)
    source = tfds_source.TfdsSource(folder=folder, split=split)
    assert source.skeleton == builder_class.SKELETON
    expected = records(splits(builder_class, root)[split])
    assert len(source) == len(expected)
    for found, record in zip((source[i] for i in range(len(source))), expected, strict=True):
        assert set(found) == set(record)
        for field, value in record.items():
            if isinstance(value, np.ndarray | float):
                np.testing.assert_array_equal(found[field], np.float32(value))
            else:
                assert found[field] == value
    return expected
