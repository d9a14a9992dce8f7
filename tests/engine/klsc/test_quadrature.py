"""The mixture's exact values: recorded ones, and an integration in the plane that shares no line with ours."""

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from engine.klsc.diagnosis import diagnose
from engine.klsc.law import expectation, log_probabilities
from engine.klsc.mixture import AngularConcept, Mixture, angle_density, score_law

ODD = Mixture(means=((1.0, 0.0), (-2.0, 0.5), (0.0, 3.0)), spread=0.6)


def test_the_angles_density_is_the_planes_integrated_over_the_radius():
    for theta in (-3.0, -0.4, 0.0, 1.1, 2.9):
        along = np.array([math.cos(theta), math.sin(theta)])
        found = quad(lambda r, along=along: r * math.exp(ODD.log_density(r * along)), 0, 12, epsabs=1e-12, limit=200)[0]
        assert angle_density(ODD, theta) == pytest.approx(found, abs=1e-9)
    circle = np.arange(400) * (2 * math.pi / 400)
    assert angle_density(ODD, circle).mean() * 2 * math.pi == pytest.approx(1, abs=1e-12)


def test_the_law_is_a_law_and_agrees_with_sampling():
    concept = AngularConcept(angle=0.3, height=1.5)
    law = score_law(ODD, concept, nodes=2000)
    assert np.exp(law.log_weights).mean() * math.pi == pytest.approx(1, abs=1e-9)
    drawn = concept(ODD.sample(200_000, np.random.default_rng(0)))
    log_p = log_probabilities(2000, law.log_weights)
    assert expectation(law.scores, log_p) == pytest.approx(drawn.mean(), abs=0.01)
    assert expectation(law.scores**2, log_p) == pytest.approx((drawn**2).mean(), abs=0.03)


@pytest.mark.parametrize(
    ("target", "threshold", "beta", "hard", "tilt"),
    [
        (5, 0.2866, 0.1284, (0.0105, 0.2030, 0.0168), (0.0055, 0.1500, 0.0126, 0.0633)),
        (6, 3.5234, 0.2815, (0.0141, 0.4183, 0.0321), (0.0063, 0.3138, 0.0148, 0.2647)),
        (7, 4.7263, 0.5259, (0.0186, 0.6199, 0.0347), (0.0048, 0.5096, 0.0188, 0.6544)),
    ],
)
def test_the_papers_table_2_with_its_error_corrected(toy, target, threshold, beta, hard, tilt):
    found = diagnose(toy.scores, target, toy.log_weights)
    assert (found.threshold, found.beta) == pytest.approx((threshold, beta), abs=2e-4)
    assert found.hard[:3] == pytest.approx(hard, abs=2e-4)
    assert found.tilt == pytest.approx(tilt, abs=1e-4)


class Plane:
    """Gauss-Legendre in radius and angle on the plane's own density, cut exactly where an integrand breaks."""

    def __init__(self) -> None:
        self.nodes, self.shares = np.polynomial.legendre.leggauss(60)

    def density(self, turn: float) -> float:
        """Density of the unsigned angle to the concept's direction."""
        radii, total = 5 * (self.nodes + 1), 0.0
        for theta in (math.pi / 4 + turn, math.pi / 4 - turn):
            x, y = radii * math.cos(theta), radii * math.sin(theta)
            bumps = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 1.28) for a in (-2, 2) for b in (-2, 2))
            total += 5 * (self.shares @ (radii * bumps)) / (8 * math.pi * 0.64)
        return float(total)

    def integral(self, integrand, low: float = 0.0, high: float = 8.0, breaks: tuple[float, ...] = ()) -> float:
        """Integral over the plane of p times integrand(s), over scores from low to high."""
        cuts = [math.acos(1 - s / 4) for s in sorted({low, high, *breaks})]
        total = 0.0
        for left, right in itertools.pairwise(cuts):
            turns = left + (right - left) * (self.nodes + 1) / 2
            values = [self.density(turn) * integrand(4 * (1 - math.cos(turn))) for turn in turns]
            total += (right - left) / 2 * float(self.shares @ values)
        return total


@pytest.mark.parametrize("target", [4.3, 5.7, 6.6, 7.85])
def test_any_other_target_agrees_with_an_independent_integration(toy, target):
    plane = Plane()

    def root(miss, low, high):
        return brentq(miss, low, high, xtol=1e-7)

    def survival(cut):
        return plane.integral(lambda s: 1.0, low=cut)

    def cut_for(mean):
        return root(lambda cut: plane.integral(lambda s: s, low=cut) / survival(cut) - mean, 1e-4, 7.99)

    def beta_for(mean):
        return root(lambda beta: plane.integral(lambda s: (s - mean) * math.exp(beta * (s - 8))), 0, 20)

    cut, after, beta, steeper = cut_for(target), cut_for(target + 0.08), beta_for(target), beta_for(target + 0.08)
    whole, next_whole = (plane.integral(lambda s, b=b: math.exp(b * s)) for b in (beta, steeper))
    equal = math.log(whole) / beta
    crossing = math.log(next_whole / whole) / (steeper - beta)
    expected_hard = (
        plane.integral(lambda s: 1.0, cut, min(cut + 0.05, 8.0)) / survival(cut),
        1 - survival(cut),
        1 - survival(after) / survival(cut),
        -math.log(survival(cut)),
    )
    expected_tilt = (
        plane.integral(lambda s: math.exp(beta * s), cut, min(cut + 0.05, 8.0))
        / plane.integral(lambda s: math.exp(beta * s), cut),
        plane.integral(lambda s: abs(math.exp(beta * s) / whole - 1), breaks=(equal,)) / 2,
        plane.integral(
            lambda s: abs(math.exp(beta * s) / whole - math.exp(steeper * s) / next_whole), breaks=(crossing,)
        )
        / 2,
        beta * target - math.log(whole),
    )
    found = diagnose(toy.scores, target, toy.log_weights)
    assert (found.threshold, found.beta) == pytest.approx((cut, beta), abs=2e-4)
    assert found.hard == pytest.approx(expected_hard, abs=3e-4)
    assert found.tilt == pytest.approx(expected_tilt, abs=1e-4)
