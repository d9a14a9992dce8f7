import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from engine.errors import BlindspotError
from engine.priors.schedule import Schedule

SHAPE = (2, 3, 4, 4)


def draw(seed=0, channels=3):
    return torch.randn(2, channels, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("t", "t_prev"), [(999, 998), (500, 499), (500, 450), (37, 3), (1, 0)])
def test_mean_is_the_textbook_ddpm_posterior(t, t_prev):
    schedule = Schedule.from_scheduler(DDPMScheduler(clip_sample=False))
    x_t, output = draw(0), draw(1)
    x0, eps, _ = schedule.predict(output, x_t, t)

    abar, before = schedule.abar[t], schedule.abar[t_prev]
    alpha = abar / before
    expected = math.sqrt(alpha) * (1 - before) / (1 - abar) * x_t + math.sqrt(before) * (1 - alpha) / (1 - abar) * x0

    torch.testing.assert_close(schedule.mean(x0, eps, t, t_prev), expected, rtol=0, atol=1e-6)
    assert schedule.sigma(t, t_prev) ** 2 == pytest.approx((1 - alpha) * (1 - before) / (1 - abar), abs=1e-12)


RESPACED = [(999, 995), (500, 496), (741, 600), (37, 3), (4, 0), (1, 0)]


@pytest.mark.parametrize(("t", "t_prev"), RESPACED)
def test_a_respaced_step_is_bayes_rule(t, t_prev):
    """q(x_prev | x_t, x0) is proportional to q(x_t | x_prev) q(x_prev | x0): precisions add, means are weighed."""
    schedule = Schedule.from_scheduler(DDPMScheduler(clip_sample=False))
    x_t, output = draw(0), draw(1)
    x0, eps, _ = schedule.predict(output, x_t, t)

    before = schedule.abar[t_prev]
    alpha = schedule.abar[t] / before
    seen, assumed = alpha / (1 - alpha), 1 / (1 - before)
    variance = 1 / (seen + assumed)
    expected = variance * (seen * x_t / math.sqrt(alpha) + assumed * math.sqrt(before) * x0)

    torch.testing.assert_close(schedule.mean(x0, eps, t, t_prev), expected, rtol=0, atol=1e-6)
    assert schedule.sigma(t, t_prev) ** 2 == pytest.approx(variance, abs=1e-12)


@pytest.mark.parametrize(("t", "t_prev"), RESPACED)
def test_line_6_of_algorithm_1_needs_its_root_over_alpha_alone(t, t_prev):
    """Averaged over x_t ~ q(. | x0), a step must end in q(x_prev | x0); with the printed root it does not."""
    schedule = Schedule.from_scheduler(DDPMScheduler(clip_sample=False))
    after, before = schedule.abar[t], schedule.abar[t_prev]
    alpha, x0 = after / before, 0.8

    def marginal(coefficient):
        centre = coefficient * math.sqrt(after) * x0 + math.sqrt(before) * (1 - alpha) / (1 - after) * x0
        return centre, coefficient**2 * (1 - after) + schedule.sigma(t, t_prev) ** 2

    ours = schedule.mean(
        *(torch.tensor(value, dtype=torch.float64) for value in (0.0, 1 / math.sqrt(1 - after))), t, t_prev
    )
    printed = math.sqrt(alpha * (1 - before)) / (1 - after)
    true = pytest.approx((math.sqrt(before) * x0, 1 - before), abs=1e-9)
    assert marginal(ours.item()) == true
    assert marginal(printed) != true


@pytest.mark.parametrize(("t", "t_prev"), RESPACED)
def test_a_learned_variance_is_interpolated_on_a_log_scale(t, t_prev):
    """Improved DDPM, eq. 15: exp(v log beta + (1 - v) log beta~), v in [0, 1] from an output in [-1, 1]."""
    schedule = Schedule.from_scheduler(DDPMScheduler(variance_type="learned_range"))
    beta = 1 - schedule.abar[t] / schedule.abar[t_prev]
    tilde = beta * (1 - schedule.abar[t_prev]) / (1 - schedule.abar[t])
    spread = torch.tensor([-1.0, -0.2, 0.0, 1.0], dtype=torch.float64)
    expected = [beta ** ((v + 1) / 2) * tilde ** (1 - (v + 1) / 2) for v in spread.tolist()]
    assert (schedule.learned_sigma(spread, t, t_prev) ** 2).tolist() == pytest.approx(expected, rel=1e-9)


def test_the_spread_is_the_second_half_of_the_output_and_only_of_a_learned_variance():
    x_t, output = draw(0), draw(1, channels=6)
    learned = Schedule.from_scheduler(DDPMScheduler(variance_type="learned_range", clip_sample=False))
    fixed = Schedule.from_scheduler(DDPMScheduler(clip_sample=False))
    assert torch.equal(learned.predict(output, x_t, 500)[1], output[:, :3])
    assert torch.equal(learned.predict(output, x_t, 500)[2], output[:, 3:])
    assert fixed.predict(output, x_t, 500)[2] is None


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip", [False, True])
def test_a_step_equals_diffusers_ddpm(prediction, clip):
    scheduler = DDPMScheduler(prediction_type=prediction, clip_sample=clip)
    scheduler.set_timesteps(20)
    schedule = Schedule.from_scheduler(scheduler)
    x_t, output = draw(0), draw(1)

    expected = scheduler.step(output, 600, x_t, generator=torch.Generator().manual_seed(3)).prev_sample
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x0, eps, _ = schedule.predict(output, x_t, 600)

    found = schedule.mean(x0, eps, 600, 550) + schedule.sigma(600, 550) * noise
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_learned_variance_equals_diffusers():
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    schedule = Schedule.from_scheduler(scheduler)
    scheduler.set_timesteps(20)
    x_t, output = draw(0), draw(1, channels=6).clamp(-1, 1)

    expected = scheduler.step(output, 600, x_t, generator=torch.Generator().manual_seed(3)).prev_sample
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x0, eps, spread = schedule.predict(output, x_t, 600)

    found = schedule.mean(x0, eps, 600, 550) + schedule.learned_sigma(spread, 600, 550) * noise
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_equals_diffusers_ddim(eta):
    scheduler = DDIMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2", clip_sample=False)
    scheduler.set_timesteps(50)
    schedule = Schedule.from_scheduler(scheduler)
    x_t, output, noise = draw(0), draw(1), draw(2)

    expected = scheduler.step(output, 600, x_t, eta=eta, variance_noise=noise if eta else None).prev_sample
    x0, eps, _ = schedule.predict(output, x_t, 600)

    found = schedule.mean(x0, eps, 600, 580, eta) + eta * schedule.sigma(600, 580) * noise
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_last_step_returns_the_clean_prediction_without_noise():
    schedule = Schedule.from_scheduler(DDPMScheduler())
    x0, eps = draw(0), draw(1)
    torch.testing.assert_close(schedule.mean(x0, eps, 40, -1), x0)
    assert schedule.sigma(40, -1) == 0


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n", [1, 7, 50, 1000])
def test_levels_are_spaced_as_diffusers_spaces_them(spacing, n):
    scheduler = DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(n)
    assert Schedule.from_scheduler(scheduler).timesteps(n).tolist() == scheduler.timesteps.tolist()


def test_an_offset_never_leaves_the_trained_levels():
    schedule = Schedule.from_scheduler(DDIMScheduler(steps_offset=1))
    assert schedule.timesteps(1000).max() == 999
    assert schedule.timesteps(50)[-1] == 1


def test_clipping_bounds_the_clean_image_and_keeps_the_noise_consistent():
    schedule = Schedule.from_scheduler(DDPMScheduler(clip_sample=True))
    x_t = 3 * draw(0)
    x0, eps, _ = schedule.predict(draw(1), x_t, 300)
    signal = schedule.signal(300)
    assert x0.abs().max() <= 1
    torch.testing.assert_close(signal**0.5 * x0 + (1 - signal) ** 0.5 * eps, x_t)


def test_any_variance_preserving_scheduler_serves():
    schedule = Schedule.from_scheduler(EulerDiscreteScheduler(beta_schedule="scaled_linear"))
    assert len(schedule.abar) == 1000 and schedule.clip is None


def test_a_flow_scheduler_is_refused_in_one_sentence():
    with pytest.raises(BlindspotError, match=r"FlowMatchEulerDiscreteScheduler .* cannot serve as a prior"):
        Schedule.from_scheduler(FlowMatchEulerDiscreteScheduler())


@pytest.mark.parametrize("n", [0, 1001])
def test_too_many_or_no_steps_are_refused(n):
    with pytest.raises(BlindspotError, match="choose 1 to 1000"):
        Schedule.from_scheduler(DDPMScheduler()).timesteps(n)
