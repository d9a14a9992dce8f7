import math

import numpy as np
import pytest

from engine.klsc.mixture import AngularConcept, Mixture, ScoreLaw, score_law


@pytest.fixture(scope="session")
def toy() -> ScoreLaw:
    """The score's law on the paper's mixture."""
    return score_law(Mixture(), AngularConcept())


@pytest.fixture(scope="session")
def gaussian() -> ScoreLaw:
    """s ~ N(0, 1) on a fine grid whose cells end at multiples of 1/1024."""
    scores = np.arange(-12, 16, 1 / 1024) + 1 / 2048
    return ScoreLaw(scores, -(scores**2) / 2 - math.log(2 * math.pi) / 2)
