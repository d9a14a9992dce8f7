import math

import numpy as np
import pytest

from engine.errors import BlindspotError
from engine.klsc.diagnosis import diagnose


def test_at_the_priors_own_mean_nothing_changes(toy):
    found = diagnose(toy.scores, 4.0, toy.log_weights)
    assert found.beta == pytest.approx(0, abs=1e-9) and found.threshold < 1e-6
    assert found.hard.tv_prior == pytest.approx(0, abs=1e-9) and found.tilt.kl_prior == pytest.approx(0, abs=1e-9)


def test_a_small_pool_is_measured_as_it_is():
    found = diagnose(np.array([0.0, 1.0, 2.0, 3.0]), 2.5, step=0.4)
    assert found.threshold == 1.5 and found.hard.tv_prior == pytest.approx(0.5)
    assert found.hard.kl_prior == pytest.approx(math.log(2)) and found.hard.tv_step == pytest.approx(0.5)
    assert found.tilt.kl_prior < found.hard.kl_prior


@pytest.mark.parametrize("target", [3.9, 7.92, 9.0, math.nan, -math.inf])
def test_out_of_reach_is_one_sentence_with_the_range(toy, target):
    with pytest.raises(BlindspotError, match=r"choose at least 4, .* and less than 7\.92") as caught:
        diagnose(toy.scores, target, toy.log_weights)
    assert str(caught.value).count(". ") == 0


def test_the_document_has_both_laws(toy):
    document = diagnose(toy.scores, 6.0, toy.log_weights).as_document()
    shared = ["boundary_mass", "tv_prior", "tv_step", "kl_prior"]
    assert list(document) == ["target", "hard", "tilt"]
    assert list(document["hard"]) == ["threshold", *shared] and list(document["tilt"]) == ["beta", *shared]
