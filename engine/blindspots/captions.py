"""Is the caption to blame? A sheet of failures for a rater, and the shares with intervals (paper 004, appendix I).

Whoever rates (a person or a vision-language model) fills the column `rating`; nothing here guesses it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from engine.blindspots.divergence import failures
from engine.blindspots.significance import normal_quantile
from engine.errors import BlindspotError

RATINGS = {
    "noisy": "irrelevant, nonsense, or only meta-data such as a file name",
    "underspecified": "correct, but too vague to know the concepts in the image",
    "sufficient": "enough that a model should be expected to draw the main concepts",
}
"""Rating -> what the rater is told it means."""


def rating_sheet(l2: np.ndarray, captions: Sequence[str], count: int = 200) -> pd.DataFrame:
    """The pairs of largest divergence with an empty column for the rater.

    Returns
    -------
    DataFrame
        `pair` (position), `l2`, `caption`, and `rating`, a categorical of `RATINGS` with nothing filled in.

    Raises
    ------
    BlindspotError
        If there is not one caption per pair.
    """
    if len(captions) != len(l2):
        raise BlindspotError(f"There are {len(captions)} captions for {len(l2)} pairs: give one caption per pair.")
    worst = failures(l2, count)
    rating = pd.Categorical([None] * len(worst), categories=list(RATINGS))
    columns = {"pair": worst, "l2": np.asarray(l2)[worst], "caption": [captions[pair] for pair in worst]}
    return pd.DataFrame({**columns, "rating": rating})


def rating_shares(ratings: Sequence[str | None], level: float = 0.95) -> pd.DataFrame:
    """How often each rating was given, among the rated, with Wilson's interval.

    Returns
    -------
    DataFrame
        Indexed by rating: `count, share, low, high`.

    Raises
    ------
    BlindspotError
        If a rating is none of `RATINGS`, or nothing is rated.
    """
    given = pd.Series(list(ratings), dtype=object).dropna()
    unknown = sorted(set(given) - set(RATINGS))
    if unknown or given.empty:
        named = f"{unknown[0]!r} is no rating" if unknown else "Nothing is rated"
        raise BlindspotError(f"{named}: fill the sheet's column with {', '.join(RATINGS)}.")
    counts = given.value_counts().reindex(list(RATINGS), fill_value=0).to_numpy()
    total, z = counts.sum(), normal_quantile(level)
    share = counts / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    reach = z / (1 + z**2 / total) * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    table = {
        "count": counts,
        "share": share,
        "low": np.maximum(middle - reach, 0),
        "high": np.minimum(middle + reach, 1),
    }
    return pd.DataFrame(table, index=pd.Index(list(RATINGS), name="rating"))
