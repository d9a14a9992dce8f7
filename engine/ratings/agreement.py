"""How far raters agree: Krippendorff's alpha of their answers, and the weighted variance of what they write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from engine.errors import BlindspotError
from engine.ratings.statistics import LEVEL, SEED, CrossedRatings, IntervalEstimate

Level = Literal["nominal", "ordinal", "interval"]
RESAMPLES = 300
BUILT_IN = "TF-IDF of character n-grams and latent semantic analysis (scikit-learn)"
DIMENSIONS = 100
"""Of the built-in embedding, at most."""


def krippendorff_alpha(block: CrossedRatings, level: Level) -> float:
    """Agreement of raters: 1 where they all agree, 0 where they agree as chance does (K. Krippendorff, "Computing
    Krippendorff's Alpha-Reliability", 2011).

    Parameters
    ----------
    block
        Answers as numbers, rising for `ordinal` and `interval`; NaN where there is none. Units with fewer than two
        answers say nothing and are left out.
    level
        How far two answers differ: `nominal` by being different, `ordinal` by how many answers lie between them,
        `interval` by the square of their difference.

    Returns
    -------
    NaN where no two answers differ or no unit has two.
    """
    values, answers = np.unique(block[np.isfinite(block)]), []
    for value in values:
        answers.append((block == value).sum(axis=1))
    return _alpha(np.array(answers, float).reshape(len(values), len(block)), values, level)


def _alpha(counts: Float[np.ndarray, "values units"], values: np.ndarray, level: Level) -> float:
    """Alpha from how many raters gave a unit each value."""
    counts = counts[:, counts.sum(axis=0) >= 2]
    each = counts.sum(axis=0)
    coincidences = (counts / (each - 1)) @ counts.T - np.diag((counts / (each - 1)).sum(axis=1))
    totals = coincidences.sum(axis=1)
    n = totals.sum()
    distance = _distance(values, totals, level)
    expected = (np.outer(totals, totals) * distance).sum()
    if n <= 1 or expected == 0:
        return math.nan
    return float(1 - (n - 1) * (coincidences * distance).sum() / expected)


def _distance(values: np.ndarray, totals: np.ndarray, level: Level) -> Float[np.ndarray, "values values"]:
    """The squared difference of two values at a level of measurement."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return (values[:, None] - values[None, :]) ** 2
    up_to = np.cumsum(totals) - totals / 2
    return (up_to[:, None] - up_to[None, :]) ** 2


def alpha_interval(block: CrossedRatings, level: Level) -> IntervalEstimate:
    """Alpha with the percentile interval of a bootstrap over units."""
    value, rng = krippendorff_alpha(block, level), np.random.default_rng(SEED)
    values = np.unique(block[np.isfinite(block)])
    counts = np.array([(block == one).sum(axis=1) for one in values], float).reshape(len(values), len(block))
    counts = counts[:, counts.sum(axis=0) >= 2]
    units = counts.shape[1]
    if not math.isfinite(value) or units < 2:
        return IntervalEstimate(value, math.nan, math.nan, math.nan)
    draws = np.array([_alpha(counts[:, rng.integers(units, size=units)], values, level) for _ in range(RESAMPLES)])
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return IntervalEstimate(value, float(low), float(high), float(draws.std()))


def weighted_variance(embeddings: Float[np.ndarray, "n dim"], weights: Float[np.ndarray, " n"]) -> float:
    """Mean squared distance of unit embeddings from their mean, both weighted (arXiv:2605.17504, appendix K: by the
    scores); 0 where all raters wrote the same. NaN for fewer than two."""
    if len(embeddings) < 2 or not weights.sum() > 0:
        return math.nan
    share = weights / weights.sum()
    centre = share @ embeddings
    return float(share @ ((embeddings - centre) ** 2).sum(axis=1))


class Embedded(NamedTuple):
    """Texts as unit vectors."""

    vectors: Float[np.ndarray, "n dim"]
    """Rows of zeros for texts without any word."""
    space: str
    """Which embedding it is, in words."""


def embed_texts(texts: Sequence[str], model: str | None = None) -> Embedded:
    """Embed descriptions, so that those that mean the same are near each other.

    Parameters
    ----------
    texts
        The descriptions; the built-in embedding is fitted to them.
    model
        Folder or hub id of a model of `transformers`: the text tower of CLIP, SigLIP and their like (appendix K uses
        CLIP), or the mean token of a sentence encoder. None: the built-in embedding, which knows spelling alone.

    Raises
    ------
    BlindspotError
        If there is no such model.
    """
    if model is None:
        return Embedded(_unit(_latent_semantics(list(texts))), BUILT_IN)
    return Embedded(_unit(_by_model(list(texts), model)), f"the text embedding of {Path(model).name or model}")


def _latent_semantics(texts: list[str]) -> Float[np.ndarray, "n dim"]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        found = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True).fit_transform(texts)
    except ValueError:  # no text has a word
        return np.zeros((len(texts), 1))
    dimensions = min(DIMENSIONS, *(side - 1 for side in found.shape))
    if dimensions < 2:
        return found.toarray()
    return TruncatedSVD(dimensions, random_state=SEED).fit_transform(found)


def _by_model(texts: list[str], model: str) -> Float[np.ndarray, "n dim"]:
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from engine.hub import find_model, loading_options
    from engine.vision.text_image import TextImageEncoder

    found = find_model(model, f"There is no text model {model}: give a folder or a Hugging Face id.")
    try:
        both = hasattr(AutoConfig.from_pretrained(str(found)), "vision_config")
    except (OSError, ValueError) as error:
        raise BlindspotError(f"{model} holds no model of transformers that embeds texts: choose another.") from error
    with torch.no_grad():
        if both:
            return TextImageEncoder.from_pretrained(model).texts(texts).numpy()
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(found), trust_remote_code=False)
            encoder = AutoModel.from_pretrained(str(found), use_safetensors=True, **loading_options(found)).eval()
            words = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            tokens, mask = encoder(**words).last_hidden_state, words["attention_mask"][..., None]
        except Exception as error:  # whatever a model of another kind says of a text
            reason = " ".join(str(error).split())[:200]
            raise BlindspotError(f"The model {model} does not embed texts ({reason}): choose another.") from error
        return ((tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).float().numpy()


def _unit(vectors: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors, dtype=float), where=lengths > 1e-12)
