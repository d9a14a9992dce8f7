import pytest
import torch

from engine.priors.base import Prediction
from tests.engine.priors.sampling import generators, run
from tests.engine.priors.tiny import GaussianPrior


def test_a_sample_depends_on_its_own_generator_alone():
    prior = GaussianPrior()
    together, alone = run(prior, [1, 2, 3], 10), run(prior, [2], 10)
    torch.testing.assert_close(together[1:2], alone)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_have_the_prior_s_mean_and_variance(eta):
    samples = run(GaussianPrior(mean=0.7, variance=0.25, eta=eta), range(200), 300)
    assert samples.mean().item() == pytest.approx(0.7, abs=0.04)
    assert samples.var().item() == pytest.approx(0.25, abs=0.04)


def test_ddim_draws_no_noise_after_the_start():
    prior = GaussianPrior(eta=0.0)
    prediction = Prediction(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2))
    first, second = (prior.step(prediction, 500, 400, torch.zeros(1, 3, 2, 2), generators(s)) for s in (1, 2))
    torch.testing.assert_close(first, second)


def test_a_prediction_explains_the_state_and_carries_a_gradient():
    prior = GaussianPrior(mean=0.3, variance=0.5)
    x_t = torch.randn(2, 3, 2, 2, requires_grad=True)
    prediction = prior.denoise(x_t, 400)
    signal = prior.schedule.signal(400)
    torch.testing.assert_close(signal**0.5 * prediction.x0 + (1 - signal) ** 0.5 * prediction.eps, x_t)
    (gradient,) = torch.autograd.grad(prediction.x0.sum(), x_t)
    assert (gradient > 0).all()
