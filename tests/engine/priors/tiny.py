"""Real diffusers and transformers models, built tiny and at random, and a prior whose samples are known exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from engine.priors.adm import ADMConfig, empty_adm, fill_adm
from engine.priors.base import DiffusionPrior
from engine.priors.schedule import Schedule
from tests.engine.priors.adm_reference import ADMUNet


def tiny_unet(out_channels: int = 3, size: int = 16) -> UNet2DModel:
    """An unconditional denoiser of 16 x 16 RGB images."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=out_channels,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    )


TINY_ADM = ADMConfig(image_size=16, channels=32, multipliers=(1, 2, 2), blocks=1, attention=(1,), head_channels=16)
"""An ADM network of 3 levels with attention of several heads in one of them."""


def tiny_adm(config: ADMConfig = TINY_ADM, classes: int | None = None) -> ADMUNet:
    """That network as guided-diffusion has it, with random weights everywhere, frozen."""
    torch.manual_seed(0)
    unet = ADMUNet(replace(config, classes=classes)).requires_grad_(False).eval()
    for parameter in unet.parameters():
        parameter += 0.05 * torch.randn(parameter.shape)
    return unet


def tiny_adm_unet(config: ADMConfig = TINY_ADM, classes: int | None = None) -> UNet2DModel:
    """The same network as diffusers has it."""
    reference = tiny_adm(config, classes)
    unet = empty_adm(reference.config)
    fill_adm(unet, reference.config, reference.state_dict(), "memory")
    return unet


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer that knows a few letters."""
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "adioy")]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


def tiny_autoencoder(kind: str) -> AutoencoderTiny | AutoencoderKL:
    """`tiny` (f4, as the demo's) or `kl` (f2, with a shift)."""
    torch.manual_seed(0)
    if kind == "tiny":
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
            latent_channels=4,
            scaling_factor=0.5,
        )
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.2,
        shift_factor=0.1,
    )


def tiny_text(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """A text encoder of width 8."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        projection_dim=8,
        bos_token_id=0,
        eos_token_id=1,
    )


def tiny_conditional_unet(**more: object) -> UNet2DConditionModel:
    """A denoiser of 4 x 8 x 8 latents that reads text of width 8, or of another with `cross_attention_dim`."""
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "layers_per_block": 1,
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "cross_attention_dim": 8,
            "attention_head_dim": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            **more,
        }
    )


def tiny_xl_pipeline(folder: Path, zeros: bool = True) -> Path:
    """Save a `StableDiffusionXLPipeline` of two text encoders; its folder. `zeros`: no prompt is all zeros."""
    tokenizer = tiny_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    torch.manual_seed(0)
    text = tiny_text(tokenizer)
    StableDiffusionXLPipeline(
        vae=tiny_autoencoder("kl"),
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=tiny_conditional_unet(
            cross_attention_dim=16,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=8 + 6 * 4,
        ),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def tiny_lcm_pipeline(folder: Path) -> Path:
    """Save a `LatentConsistencyModelPipeline` whose network is told the guidance scale; its folder."""
    tokenizer = tiny_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    torch.manual_seed(0)
    LatentConsistencyModelPipeline(
        vae=tiny_autoencoder("tiny"),
        text_encoder=CLIPTextModel(tiny_text(tokenizer)),
        tokenizer=tokenizer,
        unet=tiny_conditional_unet(time_cond_proj_dim=16),
        scheduler=LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def tiny_dit_pipeline(folder: Path, learned: bool = True) -> Path:
    """Save a `DiTPipeline` of 1000 classes; its folder. `learned`: with variance channels."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8 if learned else 4,
        num_layers=1,
        norm_num_groups=4,
        sample_size=8,
        patch_size=2,
    )
    for parameter in transformer.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    DiTPipeline(transformer, tiny_autoencoder("kl"), DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    return folder


ONE_LEVEL = {
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "mid_block_type": None,
}
"""Of a denoiser that reads text in one place and takes a third of the time, where many images are drawn."""


def tiny_pipeline(folder: Path, autoencoder: str = "tiny", **unet: object) -> Path:
    """Save a `StableDiffusionPipeline` with v-prediction and a cosine schedule; its folder. `unet`: of its denoiser."""
    tokenizer = tiny_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    torch.manual_seed(0)
    text = CLIPTextModel(tiny_text(tokenizer))
    pipeline = StableDiffusionPipeline(
        vae=tiny_autoencoder(autoencoder),
        text_encoder=text,
        tokenizer=tokenizer,
        unet=tiny_conditional_unet(**unet),
        scheduler=DDIMScheduler(
            beta_schedule="squaredcos_cap_v2",
            prediction_type="v_prediction",
            clip_sample=False,
            timestep_spacing="trailing",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def tiny_pixel_pipeline(folder: Path) -> Path:
    """Save a `DDPMPipeline`; its folder."""
    DDPMPipeline(tiny_unet(), DDPMScheduler()).save_pretrained(folder)
    return folder


class GaussianPrior(DiffusionPrior):
    """N(mean, variance) in every pixel of a small image, with its exact denoiser; images are the states themselves.

    `scheduler`: of prediction type "sample"; DDPM's if not given.
    """

    def __init__(
        self,
        mean: float = 0.0,
        variance: float = 1.0,
        eta: float = 1.0,
        size: int = 2,
        scheduler: SchedulerMixin | None = None,
    ):
        scheduler = scheduler or DDPMScheduler(prediction_type="sample", clip_sample=False, timestep_spacing="trailing")
        super().__init__(
            Schedule.from_scheduler(scheduler), (3, size, size), size, torch.device("cpu"), torch.float32, eta
        )
        self.mean, self.variance = mean, variance

    def network(self, x_t: torch.Tensor, t: int) -> torch.Tensor:
        """E[x0 | x_t]."""
        signal = self.schedule.signal(t)
        gain = signal**0.5 * self.variance / (signal * self.variance + 1 - signal)
        return self.mean + gain * (x_t - signal**0.5 * self.mean)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """The state itself."""
        return z
