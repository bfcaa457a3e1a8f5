"""Contact sheets."""

import numpy as np

from jaxpose.data.embedded import EmbeddedSource
from jaxpose.report import browse


def test_a_contact_sheet_shows_the_chosen_records_in_rows() -> None:
    source = EmbeddedSource(kind="body", style="studio", split="train", size=8, image_size=32, seed=0)
    sheet = browse.contact_sheet(source, [0, 7, 3], columns=2, size=64)
    assert sheet.shape == (128, 128, 3)
    assert not sheet[64:, 64:].any()
    alone = browse.contact_sheet(source, [7], columns=1, size=64)
    np.testing.assert_array_equal(sheet[:64, 64:], alone)
    assert (sheet[:64, :64] != alone).any()
