import shutil

import pytest
import torch
from diffusers import DDPMPipeline, EulerDiscreteScheduler, StableDiffusionPipeline

from engine.errors import BlindspotError
from engine.hub import variant_of
from engine.priors.adm import ADMPrior
from engine.priors.adm_conversion import save_adm
from engine.priors.dit import DiTPrior
from engine.priors.latent import LatentPrior
from engine.priors.loading import load_prior
from engine.priors.pixel import PixelPrior
from tests.engine.priors.tiny import (
    TINY_ADM,
    tiny_adm,
    tiny_dit_pipeline,
    tiny_lcm_pipeline,
    tiny_pipeline,
    tiny_pixel_pipeline,
    tiny_unet,
)


def test_each_kind_loads_from_its_folder(tmp_path):
    assert isinstance(load_prior(tiny_pixel_pipeline(tmp_path / "pixel"), "pixel"), PixelPrior)
    assert isinstance(load_prior(str(tiny_pipeline(tmp_path / "latent"))), LatentPrior)
    assert isinstance(load_prior(tiny_dit_pipeline(tmp_path / "dit"), "dit"), DiTPrior)
    save_adm(tiny_adm().state_dict(), TINY_ADM, "linear", tmp_path / "adm")
    assert isinstance(load_prior(tmp_path / "adm", "adm", dtype=torch.bfloat16), ADMPrior)


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
    with pytest.raises(BlindspotError, match="kind: Input should be 'latent', 'pixel', 'dit' or 'adm'"):
        load_prior(tmp_path, "voxel")


def test_a_latent_folder_is_no_pixel_prior(tmp_path):
    with pytest.raises(BlindspotError, match="StableDiffusionPipeline, but a pixel prior needs a DDPMPipeline"):
        load_prior(tiny_pipeline(tmp_path / "base"), "pixel")


def test_a_folder_in_half_precision_computes_in_full(tmp_path):
    folder = tiny_pipeline(tmp_path / "base")
    StableDiffusionPipeline.from_pretrained(folder).to(torch.float16).save_pretrained(tmp_path / "half")
    prior = load_prior(tmp_path / "half")
    assert prior.dtype == prior.vae.dtype == prior.context.dtype == torch.float32


@pytest.mark.parametrize("shards", ["10GB", "40KB"])
@pytest.mark.parametrize("parts", [("unet",), ("unet", "text_encoder"), ("unet", "text_encoder", "vae")])
def test_parts_that_are_there_as_a_variant_alone_are_read(tmp_path, parts, shards):
    folder = tiny_pipeline(tmp_path / "base")
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    for part in parts:
        shutil.rmtree(folder / part)
        getattr(pipeline, part).save_pretrained(folder / part, variant="fp16", max_shard_size=shards)
    assert variant_of(folder) == "fp16"
    prior = load_prior(folder)
    for name, tensor in pipeline.unet.state_dict().items():
        assert torch.equal(prior.unet.state_dict()[name], tensor)


def test_plain_weights_are_preferred_to_a_variant(tmp_path):
    folder = tiny_pipeline(tmp_path / "base")
    StableDiffusionPipeline.from_pretrained(folder).to(torch.float16).save_pretrained(folder, variant="fp16")
    assert variant_of(folder) is None


@pytest.mark.parametrize(
    ("files", "variant"),
    [
        (["model.fp16.safetensors"], "fp16"),
        (["model.bf16.safetensors", "model.fp16.safetensors"], "fp16"),
        (["diffusion_pytorch_model.non_ema.safetensors"], "non_ema"),
        (["diffusion_pytorch_model.non_ema.safetensors", "diffusion_pytorch_model.bf16.safetensors"], "bf16"),
        (["pytorch_model.fp16.bin"], "fp16"),
        (["pytorch_model.bin", "model.fp16.safetensors"], "fp16"),
        (["model.safetensors", "model.fp16.safetensors"], None),
        (["model-00001-of-00002.fp16.safetensors", "model.safetensors.index.fp16.json"], "fp16"),
        (["model.fp16-00001-of-00002.safetensors", "model.safetensors.index.fp16.json"], "fp16"),
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"], None),
        (["model.onnx", "notes.fp16.txt", "model.fp16.safetensors.partial"], None),
        ([], None),
    ],
)
def test_the_variant_of_a_folder(tmp_path, files, variant):
    for file in files:
        (tmp_path / file).touch()
    assert variant_of(tmp_path) == variant


def test_a_single_file_is_named_as_such(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(BlindspotError, match="is a single file, but a model is a folder"):
        load_prior(tmp_path / "model.safetensors")


def test_an_adm_folder_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(BlindspotError, match=r"python -m precompute convert-adm CHECKPOINT --out .*nowhere"):
        load_prior(tmp_path / "nowhere", "adm")


@pytest.mark.parametrize(("kind", "given"), [
    ("latent", {"label": 3}),
    ("pixel", {"prompt": "a"}),
    ("pixel", {"label": 3}),
    ("dit", {"prompt": "a"}),
    ("adm", {"scheduler": "DDIMScheduler"}),
])  # fmt: skip
def test_what_a_kind_could_only_ignore_is_refused(tmp_path, kind, given):
    with pytest.raises(BlindspotError, match=f"The {kind} prior .* takes no {next(iter(given))}"):
        load_prior(tmp_path, kind, **given)


def test_the_noise_of_a_step_follows_the_named_scheduler(tmp_path):
    folder = tiny_pipeline(tmp_path / "base")
    assert load_prior(folder).eta == 1.0
    euler = load_prior(folder, scheduler="EulerDiscreteScheduler")
    assert euler.eta == 0.0 and euler.schedule.prediction == "v_prediction"
    assert load_prior(folder, scheduler="EulerDiscreteScheduler", eta=0.5).eta == 0.5
    assert load_prior(folder, scheduler="LCMScheduler").schedule.distilled == 50


def test_a_distilled_pipeline_s_own_scheduler_is_kept(tmp_path):
    prior = load_prior(tiny_lcm_pipeline(tmp_path / "lcm"))
    assert prior.timesteps(4).tolist() == [999, 759, 499, 259]


def test_a_scheduler_that_cannot_be_guided_is_refused(tmp_path):
    with pytest.raises(BlindspotError, match="HeunDiscreteScheduler cannot be guided: choose one of DDPMScheduler"):
        load_prior(tiny_pipeline(tmp_path / "base"), scheduler="HeunDiscreteScheduler")


def test_a_pixel_pipeline_of_any_guidable_scheduler_loads(tmp_path):
    DDPMPipeline(tiny_unet(), EulerDiscreteScheduler()).save_pretrained(tmp_path / "pixel")
    assert load_prior(tmp_path / "pixel", "pixel").schedule.scheduler.config.timestep_spacing == "linspace"
