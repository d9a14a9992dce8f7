import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from engine.errors import BlindspotError
from engine.priors.pixel import PixelPrior
from tests.engine.priors.tiny import tiny_unet


def test_denoise_agrees_with_diffusers_own_step():
    unet, scheduler = tiny_unet(), DDPMScheduler(clip_sample=True)
    prior = PixelPrior(unet, scheduler)
    x_t = torch.randn(2, *prior.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = scheduler.step(unet(x_t, 400).sample, 400, x_t).pred_original_sample
        torch.testing.assert_close(prior.denoise(x_t, 400).x0, expected, rtol=1e-5, atol=1e-5)


def test_a_learned_variance_moves_the_noise_between_its_bounds():
    prior = PixelPrior(tiny_unet(out_channels=6), DDPMScheduler(variance_type="learned_range"))
    x_t = torch.randn(1, *prior.shape, generator=torch.Generator().manual_seed(0))
    prediction = prior.denoise(x_t, 400)
    still = prior.schedule.mean(prediction.x0, prediction.eps, 400, 380)

    def noise(spread):
        source = torch.Generator().manual_seed(1)
        given = prediction._replace(spread=torch.full_like(x_t, spread))
        return (prior.step(given, 400, 380, x_t, [source]) - still).std().item()

    assert prediction.spread.shape == x_t.shape
    ratio = (prior.schedule.beta(400, 380) ** 0.5) / prior.sigma(400, 380)
    assert noise(1.0) / noise(-1.0) == pytest.approx(ratio, rel=1e-3)


def test_decode_maps_the_networks_range_to_images():
    prior = PixelPrior(tiny_unet(), DDPMScheduler())
    state = torch.tensor([-2.0, -1.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    assert prior.decode(state).flatten().tolist() == [0.0, 0.0, 0.5, 1.0]
    assert prior.shape == (3, 16, 16) and prior.image_size == 16


def test_a_network_of_other_channels_is_refused():
    unet = UNet2DModel(
        8,
        1,
        1,
        layers_per_block=1,
        block_out_channels=(4,),
        norm_num_groups=2,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(BlindspotError, match="3 input channels, this one has 1"):
        PixelPrior(unet, DDPMScheduler())
