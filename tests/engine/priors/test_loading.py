import pytest
import torch
from diffusers import StableDiffusionPipeline

from engine.errors import BlindspotError
from engine.priors.latent import LatentPrior
from engine.priors.loading import load_prior
from engine.priors.pixel import PixelPrior
from tests.engine.priors.tiny import tiny_pipeline, tiny_pixel_pipeline


def test_each_kind_loads_from_its_folder(tmp_path):
    assert isinstance(load_prior(tiny_pixel_pipeline(tmp_path / "pixel"), "pixel"), PixelPrior)
    assert isinstance(load_prior(str(tiny_pipeline(tmp_path / "latent"))), LatentPrior)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BlindspotError, match=r"no diffusion pipeline at .*nowhere"):
        load_prior(tmp_path / "nowhere")


def test_a_folder_without_a_pipeline_is_named(tmp_path):
    with pytest.raises(BlindspotError, match=r"is not a diffusion pipeline: it has no model_index\.json"):
        load_prior(tmp_path)


def test_missing_weights_are_one_sentence(tmp_path):
    folder = tiny_pipeline(tmp_path / "base")
    for file in (folder / "unet").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(BlindspotError, match="cannot be loaded") as caught:
        load_prior(folder)
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(BlindspotError, match="Unknown kind of prior 'voxel': choose one of latent, pixel"):
        load_prior(tmp_path, "voxel")


def test_a_latent_folder_is_no_pixel_prior(tmp_path):
    with pytest.raises(BlindspotError, match="a pixel prior needs an UNet2DModel"):
        load_prior(tiny_pipeline(tmp_path / "base"), "pixel")


def test_a_folder_in_half_precision_computes_in_full(tmp_path):
    folder = tiny_pipeline(tmp_path / "base")
    StableDiffusionPipeline.from_pretrained(folder).to(torch.float16).save_pretrained(tmp_path / "half")
    prior = load_prior(tmp_path / "half")
    assert prior.dtype == prior.vae.dtype == prior.context.dtype == torch.float32
