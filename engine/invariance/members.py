"""Which members of an invariant set to show, and what they have in common.

"EquiDiff", section 5.2.2, leaves open how to pick the interesting members of a set. Both choices here want embeddings
of an encoder that f does not use, or one that sees more than f: farthest-first takes extremes, a k-DPP draws at random,
with sets of different members more likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import BlindspotError

FEWEST_MEMBERS = 8
"""With fewer members, a variance inside the set says too little."""
CONSTANT, PRESENT = 0.1, 0.9
"""A concept counts as needed up to this ratio of variances, and from this share of members on that show it."""
CHANCE = 0.01
"""How probable it may be at most that a concept is in no member by chance, for it to count as excluded."""


def farthest_first(embeddings: npt.ArrayLike, count: int, query: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
    """Choose members one after the other, each as far as possible from those before (Gonzalez 1985).

    Their smallest distance is at least half of the largest possible one.

    Parameters
    ----------
    embeddings
        [n, d], of any length; distances are those of their directions.
    count
        Members to choose.
    query
        [d], the query's embedding: the first member is the farthest from it. Without one, from the members' mean.

    Returns
    -------
    Rows, in the order they were chosen.

    Raises
    ------
    BlindspotError
        If there are not so many members, or an embedding has no direction.
    """
    units = _directions(embeddings)
    _require_members(count, len(units))
    centre = units.mean(axis=0) if query is None else _directions(np.asarray(query)[None])[0]
    distances, chosen = np.linalg.norm(units - centre, axis=1), []
    for _ in range(count):
        chosen.append(int(np.argmax(distances)))
        step = np.linalg.norm(units - units[chosen[-1]], axis=1)
        distances = step if len(chosen) == 1 else np.minimum(distances, step)
        distances[chosen] = -1.0
    return np.array(chosen, np.int64)


def similarity(embeddings: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A kernel [n, n] for `k_dpp`: exp(-|a - b|^2 / (2 m^2)) of directions a and b, m their median distance.

    Raises
    ------
    BlindspotError
        If an embedding has no direction.
    """
    units = _directions(embeddings)
    squared = np.maximum(2 - 2 * units @ units.T, 0)
    apart = squared[np.triu_indices(len(units), 1)]
    return np.exp(-squared / (2 * float(np.median(apart) if len(apart) else 1) or 1.0))


def k_dpp(kernel: npt.ArrayLike, count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Draw a set S of `count` members with probability proportional to det L_S, exactly.

    Kulesza & Taskar, "k-DPPs: Fixed-Size Determinantal Point Processes" (2011): eigenvectors are chosen by elementary
    symmetric polynomials of the eigenvalues (their algorithm 2, here with logarithms), then members by the projection
    on those, whose squared lengths are lowered by each choice as in a pivoted Cholesky factorisation.

    Parameters
    ----------
    kernel
        L [n, n], symmetric and positive semi-definite, such as `similarity`.

    Returns
    -------
    Rows, ascending.

    Raises
    ------
    BlindspotError
        If there are not so many different members.
    """
    matrix = np.asarray(kernel, np.float64)
    _require_members(count, len(matrix))
    values, vectors = np.linalg.eigh(matrix)
    positive = values > len(values) * np.finfo(np.float64).eps * values[-1]
    if positive.sum() < count:
        raise BlindspotError(f"Of {len(values)} members only {positive.sum()} differ: choose at most so many.")
    rng = np.random.default_rng(seed)
    space = vectors[:, positive][:, _eigenvectors(np.log(values[positive]), count, rng)]
    lengths, factor, chosen = (space**2).sum(axis=1), np.zeros((count, len(space))), []
    for place in range(count):
        row = int(rng.choice(len(lengths), p=lengths / lengths.sum()))
        chosen.append(row)
        rest = space @ space[row] - factor[:place].T @ factor[:place, row]
        factor[place] = rest / np.sqrt(lengths[row])
        lengths = np.maximum(lengths - factor[place] ** 2, 0)
        lengths[chosen] = 0
    return np.sort(np.array(chosen, np.int64))


def _eigenvectors(logs: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Draw `count` of n eigenvectors with probability proportional to the product of their eigenvalues exp(logs)."""
    polynomials = np.full((len(logs) + 1, count + 1), -np.inf)  # log e_l of the first j eigenvalues at [j, l]
    polynomials[:, 0] = 0
    for j, log in enumerate(logs):
        polynomials[j + 1, 1:] = np.logaddexp(polynomials[j, 1:], log + polynomials[j, :-1])
    chosen: list[int] = []
    for j in range(len(logs), 0, -1):
        left = count - len(chosen)
        if left == 0:
            break
        log_share = logs[j - 1] + polynomials[j - 1, left - 1] - polynomials[j, left]
        if left == j or rng.random() < np.exp(log_share):
            chosen.append(j - 1)
    return chosen


class ConceptSpread(NamedTuple):
    """How a concept behaves inside an invariant set."""

    concept: int
    name: str
    ratio: float | None
    """Its variance inside the set over that of the reference; None if it never varies there."""
    mean: float
    """Its mean code in the members."""
    present: float
    """Share of members that show it."""


class Variation(NamedTuple):
    """What the members of an invariant set differ in and what they share."""

    varies: list[ConceptSpread]
    """What f is blind to: the largest ratios of variances first."""
    needed: list[ConceptSpread]
    """What f needs: shown by (nearly) all members and almost constant, the smallest ratios first."""
    excluded: list[ConceptSpread]
    """What f forbids: in no member, although the reference shows it too often for chance; the commonest first."""


def what_varies(
    codes: npt.ArrayLike,
    reference: npt.ArrayLike,
    names: Sequence[str] | None = None,
    count: int = 12,
    fewest: int = FEWEST_MEMBERS,
) -> Variation | None:
    """Compare the spread of each concept inside a set with its spread over images at large.

    Real images as the reference say what the set lacks, whether because of f or of the prior; samples of the prior
    alone, drawn without f, say what f does.

    Parameters
    ----------
    codes, reference
        Code vectors of the members [n, K] and of reference images [r, K], not negative; see `image_codes`.
    names
        A name for each concept; its number if not given or empty.
    count
        Concepts to list at most in each group.
    fewest
        Members that are needed.

    Returns
    -------
    None if there are fewer members or no two reference images.

    Raises
    ------
    BlindspotError
        If the concepts of both are not the same, or a code is not finite.
    """
    inside, outside = np.asarray(codes, np.float64), np.asarray(reference, np.float64)
    if inside.ndim != 2 or outside.ndim != 2 or inside.shape[1] != outside.shape[1]:
        raise BlindspotError(
            f"Members and reference need codes of the same concepts, not {inside.shape} and {outside.shape}."
        )
    if not (np.isfinite(inside).all() and np.isfinite(outside).all()):
        raise BlindspotError("Some codes are not finite: leave those images out.")
    if len(inside) < max(fewest, 2) or len(outside) < 2:
        return None
    spread, usual = inside.var(axis=0, ddof=1), outside.var(axis=0, ddof=1)
    ratios = np.divide(spread, usual, out=np.full(len(usual), np.nan), where=usual > 0)
    present, common = (inside > 0).mean(axis=0), (outside > 0).mean(axis=0)

    def listed(chosen: np.ndarray, order: np.ndarray) -> list[ConceptSpread]:
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(order[rows], kind="stable")][:count]
        return [
            ConceptSpread(
                int(row),
                (names[int(row)] if names is not None else "") or f"concept {row}",
                None if np.isnan(ratios[row]) else float(ratios[row]),
                float(inside[:, row].mean()),
                float(present[row]),
            )
            for row in rows
        ]

    absent = (present == 0) & ((1 - common) ** len(inside) < CHANCE)
    return Variation(
        listed(ratios > CONSTANT, -ratios),
        listed((ratios <= CONSTANT) & (present >= PRESENT), ratios),
        listed(absent, -common),
    )


def _directions(embeddings: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Embeddings [n, d] at length 1."""
    given = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise BlindspotError("An embedding is zero or not finite and has no direction: leave that image out.")
    return given / lengths


def _require_members(count: int, members: int) -> None:
    if not 1 <= count <= members:
        raise BlindspotError(f"{count} of {members} members were asked for: choose 1 to {members}.")
