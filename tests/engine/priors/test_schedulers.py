"""Diffusers' schedulers as our schedule: the same levels, the same steps, and exact samples of a Gaussian."""

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
)

from engine.errors import BlindspotError
from engine.priors.schedule import GUIDABLE, Schedule, named_scheduler
from tests.engine.priors.sampling import run
from tests.engine.priors.tiny import GaussianPrior

SHAPE = (2, 3, 4, 4)
SDE = {"algorithm_type": "sde-dpmsolver++", "solver_order": 1}


def draw(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("scheduler", "eta"), [
    (EulerDiscreteScheduler(timestep_spacing="trailing"), 0.0),
    (EulerAncestralDiscreteScheduler(timestep_spacing="trailing"), 1.0),
    (EulerAncestralDiscreteScheduler(timestep_spacing="leading", prediction_type="v_prediction"), 1.0),
])  # fmt: skip
def test_euler_s_steps_are_ours_in_other_units(scheduler, eta):
    """Euler's state is ours over sqrt(abar): noise of standard deviation sigma on a clean image of full size."""
    schedule = Schedule.from_scheduler(scheduler)
    scheduler.set_timesteps(10)
    t, t_prev = schedule.timesteps(10).tolist()[:2]
    x_t, output, signal = draw(0), draw(1), schedule.signal(t)

    scaled = x_t / signal**0.5
    torch.testing.assert_close(scheduler.scale_model_input(scaled, scheduler.timesteps[0]), x_t, rtol=1e-4, atol=1e-4)
    expected = scheduler.step(output, scheduler.timesteps[0], scaled, generator=torch.Generator().manual_seed(3))
    x0, eps, _ = schedule.predict(output, x_t, t)
    found = schedule.mean(x0, eps, t, t_prev, eta) + eta * schedule.sigma(t, t_prev) * draw(3)
    torch.testing.assert_close(found, expected.prev_sample * schedule.signal(t_prev) ** 0.5, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(("settings", "eta"), [({"solver_order": 1}, 0.0), (SDE, 1.0)])
def test_dpm_solver_s_first_order_steps_are_ours(settings, eta):
    scheduler = DPMSolverMultistepScheduler(**settings)
    schedule = Schedule.from_scheduler(scheduler)
    scheduler.set_timesteps(10)
    t, t_prev = schedule.timesteps(10).tolist()[:2]
    x_t, output = draw(0), draw(1)
    expected = scheduler.step(output, scheduler.timesteps[0], x_t, generator=torch.Generator().manual_seed(3))
    x0, eps, _ = schedule.predict(output, x_t, t)
    found = schedule.mean(x0, eps, t, t_prev, eta) + eta * schedule.sigma(t, t_prev) * draw(3)
    torch.testing.assert_close(found, expected.prev_sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at", [0, 2, 3])
def test_a_consistency_model_s_steps_are_lcm_s(at):
    scheduler = LCMScheduler()
    schedule = Schedule.from_scheduler(scheduler)
    scheduler.set_timesteps(4)
    levels = [*schedule.timesteps(4).tolist(), -1]
    x_t, output = draw(0), draw(1)
    expected = scheduler.step(output, levels[at], x_t, generator=torch.Generator().manual_seed(3))
    x0, eps, _ = schedule.predict(output, x_t, levels[at])
    found = schedule.mean(x0, eps, *levels[at : at + 2])
    if at < 3:
        found = found + schedule.sigma(*levels[at : at + 2]) * draw(3)
    torch.testing.assert_close(found, expected.prev_sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheduler", [
    EulerDiscreteScheduler(timestep_spacing="trailing"),
    EulerAncestralDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
    DPMSolverMultistepScheduler(),
    DPMSolverMultistepScheduler(timestep_spacing="leading"),
    DPMSolverMultistepScheduler(timestep_spacing="trailing"),
    DPMSolverMultistepScheduler(use_karras_sigmas=True, beta_schedule="scaled_linear"),
    LCMScheduler(),
    DDPMScheduler(timestep_spacing="linspace"),
], ids=lambda scheduler: type(scheduler).__name__)  # fmt: skip
@pytest.mark.parametrize("n", [1, 2, 4, 13, 25])
def test_levels_are_those_that_diffusers_chooses(scheduler, n):
    scheduler.set_timesteps(n)
    assert Schedule.from_scheduler(scheduler).timesteps(n).tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler(), DDIMScheduler(), DDPMScheduler(steps_offset=1)])
def test_every_level_can_be_visited(scheduler):
    assert Schedule.from_scheduler(scheduler).timesteps(1000).tolist() == list(range(999, -1, -1))


def test_more_steps_than_levels_that_differ_are_refused():
    with pytest.raises(BlindspotError, match="choose 1 to 50"):
        Schedule.from_scheduler(LCMScheduler()).timesteps(51)
    with pytest.raises(BlindspotError, match="too many for levels of spacing 'karras'"):
        Schedule.from_scheduler(DPMSolverMultistepScheduler(use_karras_sigmas=True)).timesteps(900)


@pytest.mark.parametrize("name", [name for name in GUIDABLE if name != "LCMScheduler"])
def test_a_gaussian_comes_out_with_its_mean_and_variance(name):
    scheduler, eta = named_scheduler(name, DDPMScheduler(prediction_type="sample", clip_sample=False))
    samples = run(GaussianPrior(mean=0.7, variance=0.25, eta=eta, scheduler=scheduler), range(400), 250)
    assert samples.mean().item() == pytest.approx(0.7, abs=0.04)
    assert samples.var().item() == pytest.approx(0.25, abs=0.03)


def test_an_sde_solver_draws_the_gaussian_as_well():
    scheduler, eta = named_scheduler("DPMSolverMultistepScheduler", DPMSolverMultistepScheduler(**SDE))
    assert eta == 1.0 and scheduler.config.algorithm_type == "sde-dpmsolver++"
    scheduler.register_to_config(prediction_type="sample")
    samples = run(GaussianPrior(mean=-0.5, variance=0.5, eta=eta, scheduler=scheduler), range(400), 250)
    assert samples.mean().item() == pytest.approx(-0.5, abs=0.06)
    assert samples.var().item() == pytest.approx(0.5, abs=0.05)


class ConsistencyGaussian(GaussianPrior):
    """The exact consistency function of N(mean, variance): where the probability flow from x_t ends."""

    def network(self, x_t, t):
        signal = self.schedule.signal(t)
        spread = (signal * self.variance + 1 - signal) ** 0.5
        return self.mean + self.variance**0.5 * (x_t - signal**0.5 * self.mean) / spread


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_few_steps_of_an_exact_consistency_model_draw_the_gaussian(steps):
    scheduler, eta = named_scheduler("LCMScheduler", DDPMScheduler(prediction_type="sample", clip_sample=False))
    samples = run(ConsistencyGaussian(0.7, 0.25, eta, scheduler=scheduler), range(400), steps)
    assert samples.mean().item() == pytest.approx(0.7, abs=0.04)
    assert samples.var().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "UniPCMultistepScheduler", "NoSuchScheduler"])
def test_a_scheduler_that_cannot_be_guided_is_refused_with_those_that_can(name):
    with pytest.raises(BlindspotError, match=rf"{name} cannot be guided: choose one of DDPMScheduler, .*LCMScheduler"):
        named_scheduler(name, DDIMScheduler())


@pytest.mark.parametrize("name", GUIDABLE)
def test_every_guidable_scheduler_is_one_of_diffusers(name):
    schedule = Schedule.from_scheduler(getattr(diffusers, name)())
    assert len(schedule.abar) == 1000 and schedule.prediction == "epsilon"


def test_the_constants_of_a_scheduler_of_higher_order_serve():
    assert Schedule.from_scheduler(PNDMScheduler(skip_prk_steps=True)).timesteps(50)[0] == 980


def test_levels_between_the_trained_ones_are_refused():
    with pytest.raises(BlindspotError, match="with use_beta_sigmas cannot serve as a prior"):
        Schedule.from_scheduler(EulerDiscreteScheduler(use_beta_sigmas=True))
