import math

import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.base import sample_generators
from engine.samplers.feature_visualization import MACO, PhaseParameterisation
from engine.samplers.fourier import mean_spectrum, to_coefficients
from tests.engine.samplers.peers import assert_batches_agree, assert_previews


@pytest.fixture(scope="module")
def spectrum():
    generator = torch.Generator().manual_seed(0)
    return mean_spectrum([torch.rand(12, 3, 16, 16, generator=generator).cumsum(-1).div(16)])


def stripes(images):
    """How much a wave of two cycles across the image stands out."""
    wave = torch.cos(4 * math.pi * torch.arange(16) / 16)
    return (images.mean(dim=1) * wave).mean(dim=(1, 2))


def test_the_magnitudes_are_the_corpus_s_whatever_the_phases(spectrum):
    sketch = PhaseParameterisation(spectrum, sample_generators(0, 2))
    for phases in (sketch.variables, 5 * torch.randn_like(sketch.variables)):
        found = to_coefficients(sketch.channels(phases)).abs()
        torch.testing.assert_close(found, spectrum.magnitudes.expand_as(found), atol=1e-5, rtol=1e-4)


def test_the_score_grows_and_the_mean_colour_stays(spectrum):
    drawn = MACO(spectrum, 60, 0.1).sample(stripes, 3)
    start = MACO(spectrum, 60, 0.0).sample(stripes, 3)
    assert (drawn.scores > start.scores + 0.02).all()
    torch.testing.assert_close(drawn.images.mean(dim=(0, 2, 3)), spectrum.mean, atol=0.01, rtol=0)


def test_a_sample_beyond_the_cap_stays_as_it_is(spectrum):
    capped, longer = (MACO(spectrum, steps, 0.05, score_cap=0.0).sample(stripes, 3) for steps in (80, 90))
    assert (capped.scores > 0).all() and (capped.scores < 0.02).all()
    assert torch.equal(capped.images, longer.images)
    assert (MACO(spectrum, 80, 0.05).sample(stripes, 3).scores > 0.03).all()


def test_same_seed_same_image_in_any_batch_with_previews(spectrum):
    assert_batches_agree(MACO(spectrum, 10, 0.1), stripes)
    assert_previews(MACO(spectrum, 5, 0.1), 5, stripes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "0 optimisation steps"),
        ({"strength": float("nan")}, "must be finite numbers, not 1.0 and nan"),
        ({"strength": -1.0}, "not 1.0 and -1.0"),
    ],
)
def test_senseless_settings_are_refused(spectrum, settings, message):
    with pytest.raises(BlindspotError, match=message):
        MACO(spectrum, **settings).sample(stripes, 1)
