"""How a concept's energy is spread over images, real and generated, and the tilt of the real ones towards it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from engine.atlas import Atlas
from engine.atlas.schema import REAL
from engine.atlas.storage import CSR
from engine.klsc.law import effective_sample_size, expectation, kl, log_probabilities
from engine.klsc.tilt import tilt


@lru_cache(maxsize=256)
def image_energies(atlas: Atlas, source: str, concept: int) -> Float[np.ndarray, " n"]:
    """Energies of a concept in all images of a source, in their order; to be read only."""
    images = atlas.info.image_range(source)
    stored = CSR.open(atlas.path / "energy" / source, atlas.count, atlas.path)
    found = np.asarray(stored.column(concept, 0, len(images)), np.float64)
    found.flags.writeable = False
    return found


class TiltedImages(NamedTuple):
    """The real images under q ~ p exp(beta s), p uniform over them and s a concept's energy."""

    beta: float
    mean: float
    """E_q[s]."""
    prior_mean: float
    """E_p[s]."""
    effective: float
    """Effective number of images, (sum w)^2 / sum w^2."""
    kl: float
    """KL(q | p) in nats."""
    images: int
    drawn: list[int]
    """Images of the atlas, drawn from q without replacement; in order of their energy."""
    hardest: list[int]
    """As many images of the highest energies: where the tilt goes as beta grows."""


def tilt_images(atlas: Atlas, concept: int, strength: float, count: int = 8, seed: int = 0) -> TiltedImages | None:
    """Tilt the real images towards a concept.

    Parameters
    ----------
    strength
        beta in units of one over the standard deviation of the concept's energy; 0 is the prior.
    count, seed
        Images to draw by the Gumbel-top-k rule (arXiv:1903.06059): the same seed gives nested choices as beta grows.

    Returns
    -------
    None if the concept's energy is the same in all real images.
    """
    scores = image_energies(atlas, REAL, concept)
    spread = float(scores.std())
    if not spread > 0:
        return None
    log_q, uniform = tilt(scores, strength / spread), log_probabilities(len(scores))
    noise = np.random.default_rng(seed).gumbel(size=len(scores))
    first, count = atlas.info.image_range(REAL).start, min(count, len(scores))
    drawn = np.argsort(-(log_q + noise), kind="stable")[:count]
    drawn = drawn[np.argsort(-scores[drawn], kind="stable")]
    hardest = np.argsort(-scores, kind="stable")[:count]
    return TiltedImages(
        strength / spread, expectation(scores, log_q), float(scores.mean()), effective_sample_size(log_q),
        kl(log_q, uniform), len(scores), (first + drawn).tolist(), (first + hardest).tolist(),
    )  # fmt: skip
