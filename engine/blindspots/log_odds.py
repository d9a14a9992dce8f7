"""Which words are over-represented in one set of texts: weighted log-odds with an informative Dirichlet prior.

Monroe, Colaresi and Quinn (2008), "Fightin' Words", equations 16, 19, 20 and 22. The prior shrinks the odds of rare
words, and dividing by the standard deviation ranks a word by how sure its difference is and not by how large.
"""

from __future__ import annotations

import numpy as np


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
