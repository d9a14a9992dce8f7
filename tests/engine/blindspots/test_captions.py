import numpy as np
import pytest
from scipy import stats

from engine.blindspots.captions import RATINGS, rating_shares, rating_sheet
from engine.errors import BlindspotError


def test_the_sheet_lists_the_failures_and_leaves_the_rating_to_the_rater():
    sheet = rating_sheet(np.array([1.0, 7, 3]), ["a", "b", "c"], 2)
    assert sheet["pair"].tolist() == [1, 2] and sheet["caption"].tolist() == ["b", "c"]
    assert sheet["rating"].isna().all() and list(sheet["rating"].cat.categories) == list(RATINGS)
    sheet.loc[0, "rating"] = "noisy"
    assert rating_shares(sheet["rating"]).loc["noisy", "count"] == 1


def test_the_papers_shares_with_wilsons_interval():
    """76 noisy and 112 sufficient of 199; the paper prints "1 (5.5 %)" underspecified, which must be 11."""
    shares = rating_shares(["noisy"] * 76 + ["underspecified"] * 11 + ["sufficient"] * 112)
    assert shares["share"].round(3).tolist() == [0.382, 0.055, 0.563]
    for row in shares.itertuples():
        wilson = stats.binomtest(int(row.count), 199).proportion_ci(method="wilson")
        np.testing.assert_allclose([row.low, row.high], wilson)


def test_what_is_not_rated_does_not_count_and_what_is_no_rating_is_refused():
    assert rating_shares(["noisy", None, None]).loc["noisy", "share"] == 1
    with pytest.raises(BlindspotError, match="'bad' is no rating: fill the sheet's column with noisy, underspec"):
        rating_shares(["bad", "noisy"])
    with pytest.raises(BlindspotError, match="Nothing is rated"):
        rating_shares([None])
    with pytest.raises(BlindspotError, match="1 captions for 2 pairs"):
        rating_sheet(np.ones(2), ["a"])
