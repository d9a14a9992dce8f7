import numpy as np
import pytest

from engine.blindspots.words import RATINGS, rating_sheet
from engine.errors import BlindspotError


def test_the_sheet_lists_the_failures_and_leaves_the_rating_to_the_rater():
    sheet = rating_sheet(np.array([1.0, 7, 3]), ["a", "b", "c"], 2)
    assert sheet["pair"].tolist() == [1, 2] and sheet["caption"].tolist() == ["b", "c"]
    assert sheet["rating"].isna().all() and list(sheet["rating"].cat.categories) == list(RATINGS)


def test_a_sheet_needs_one_caption_per_pair():
    with pytest.raises(BlindspotError, match="1 captions for 2 pairs"):
        rating_sheet(np.ones(2), ["a"])
