"""Words: which are over-represented in one set of texts, and whether a caption is to blame for a failure.

`weighted_log_odds` is of Monroe, Colaresi and Quinn (2008), "Fightin' Words", equations 16, 19, 20 and 22. The prior
shrinks the odds of rare words, and dividing by the standard deviation ranks a word by how sure its difference is and
not by how large. `rating_sheet` is the sheet of failures of "Conceptual Blindspots in Generative Image Models",
appendix I: whoever rates (a person or a vision-language model) fills its column `rating`; nothing here guesses it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from engine.blindspots.divergence import failures
from engine.errors import BlindspotError

RATINGS = {
    "noisy": "irrelevant, nonsense, or only meta-data such as a file name",
    "underspecified": "correct, but too vague to know the concepts in the image",
    "sufficient": "enough that a model should be expected to draw the main concepts",
}
"""Rating -> what the rater is told it means."""


def weighted_log_odds(inside: np.ndarray, outside: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The z-score of each word's log-odds inside against outside.

    With y and y' the counts inside and outside, a the prior and n, n', a0 their sums over words,

        d = log (y + a) / (n + a0 - y - a) - log (y' + a) / (n' + a0 - y' - a),
        z = d / sqrt(1 / (y + a) + 1 / (y' + a)).

    Parameters
    ----------
    inside, outside : [..., W] counts of each word in the two sets of texts.
    prior : [W] pseudo-counts of each word, above zero: its counts in all texts, scaled to the strength wanted.

    Returns
    -------
    ndarray
        [..., W] z; positive for words over-represented inside, 0 for a word without counts and prior, and where there
        is no other word to compare it with.
    """
    prior = np.asarray(prior, np.float64)
    posteriors = [np.asarray(counts, np.float64) + prior for counts in (inside, outside)]
    others = [posterior.sum(axis=-1, keepdims=True) - posterior for posterior in posteriors]
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (np.log(own / other) for own, other in zip(posteriors, others, strict=True))
        z = (first - second) / np.sqrt(1 / posteriors[0] + 1 / posteriors[1])
    return np.where(np.isfinite(z), z, 0.0)


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
