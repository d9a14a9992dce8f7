"""How good an invariant set is: true to the response, realistic, different from member to member.

Frechet distances are taken in a stated feature space, the embeddings of an encoder, not InceptionV3's; compare only
sets of equal size in the same space. `engine.samplers.metrics` has diversity and the spectral slope.
"""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from engine.blindspots.metrics import frechet_distance
from engine.errors import BlindspotError
from engine.samplers.metrics import diversity, embed, spectral_slope
from engine.vision.encoder import Encoder


class Fidelity(NamedTuple):
    """How far responses are from the target."""

    distance: Float[Tensor, " n"]
    """|f(x) - y*| ("EquiDiff", eq. 4.1)."""
    relative: Float[Tensor, " n"]
    """The same in units of |y*|; infinite (0 for an exact member) if that is 0."""

    def within(self, tolerance: float) -> float:
        """Share of members whose relative distance is at most this."""
        return float((self.relative <= tolerance).float().mean())


def fidelity(responses: Float[Tensor, "n m"], target: Float[Tensor, " m"]) -> Fidelity:
    """Distance of the responses of members to y*, "EquiDiff", eq. 4.1."""
    distance, length = (responses - target).norm(dim=1), target.norm()
    return Fidelity(distance, torch.where(distance > 0, distance / length, distance))


def split_frechet(
    queries: npt.ArrayLike, members: npt.ArrayLike, owners: npt.ArrayLike, folds: int = 2, seed: int = 0
) -> float:
    """Frechet distance of queries and members that come from other queries, "EquiDiff", section 4.1.2 (sFID).

    A member may look like its own query, which makes the plain distance too small. Queries are dealt into folds at
    random; the result is the mean distance of the queries of one fold to the members of the queries of another.

    Parameters
    ----------
    queries, members
        Embeddings [q, d] and [m, d].
    owners
        [m], the row of the query that each member comes from.

    Raises
    ------
    BlindspotError
        If there are fewer than two folds, or a fold has fewer than two queries or members.
    """
    real, made, of = np.asarray(queries), np.asarray(members), np.asarray(owners, np.int64)
    if folds < 2 or len(of) != len(made) or not ((of >= 0) & (of < len(real))).all():
        raise BlindspotError(
            f"A split Frechet distance needs two or more folds and a query for each member, not {folds}."
        )
    fold = np.empty(len(real), np.int64)
    fold[np.random.default_rng(seed).permutation(len(real))] = np.arange(len(real)) % folds
    pairs = permutations(range(folds), 2)
    return float(np.mean([frechet_distance(real[fold == a], made[fold[of] == b]).distance for a, b in pairs]))


class SetQuality(NamedTuple):
    """What one or more invariant sets are like; None where there are too few images to say."""

    fidelity: float
    """Mean of eq. 4.1 over the members (section 4.2.2)."""
    frechet: float | None
    """Of reference images and members."""
    split_frechet: float | None
    """See `split_frechet`."""
    diversity: float | None
    """Mean cosine distance of members of the same query, averaged over queries."""
    slope: float
    """Mean exponent of the members' power spectra."""
    space: str
    """The encoder in whose space distances were taken."""


def measure(
    members: Float[Tensor, "m 3 height width"],
    fidelities: Float[Tensor, " m"],
    queries: Float[Tensor, "q 3 height2 width2"],
    owners: npt.ArrayLike,
    encoder: Encoder,
    reference: npt.ArrayLike | None = None,
    folds: int = 2,
) -> SetQuality:
    """Measure the members of the invariant sets of some queries.

    Parameters
    ----------
    members, queries
        Square images in [0, 1].
    fidelities
        See `fidelity`; each member's, to the target of its own query.
    owners
        [m], the row of the query that each member belongs to.
    encoder
        One that f does not use; its embeddings are compared.
    reference
        Embeddings [r, d] of real images, see `engine.samplers.metrics.embed`; the queries' if not given.
    """
    of, made, real = np.asarray(owners, np.int64), embed(encoder, members), embed(encoder, queries)
    split = None
    if len(real) >= 2 * folds and all((of == row).sum() for row in range(len(real))):
        split = split_frechet(real, made, of, folds)
    known = real if reference is None else np.asarray(reference)
    each = [diversity(made[of == row]) for row in np.unique(of) if (of == row).sum() > 1]
    return SetQuality(
        float(fidelities.mean()),
        frechet_distance(known, made).distance if min(len(known), len(made)) > 1 else None,
        split,
        float(np.mean(each)) if each else None,
        float(spectral_slope(members).mean()),
        encoder.spec.id,
    )
