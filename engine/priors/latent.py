"""A diffusion prior in the latent space of an autoencoder: Stable Diffusion, SDXL, their turbo and LCM descendants."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior, Images, States, frozen
from engine.priors.schedule import Schedule
from engine.priors.spec import PriorSpec


class LatentPrior(DiffusionPrior):
    """The images a text-to-image pipeline draws for one fixed prompt; the empty prompt makes it unconditional.

    Parameters
    ----------
    pipeline
        A `StableDiffusionPipeline`, `StableDiffusionXLPipeline` or `LatentConsistencyModelPipeline` with an
        `AutoencoderKL` or `AutoencoderTiny`. The prompt is encoded once, so the text encoder is not kept.
    prompt
        The prompt; "" for the unconditional prior.
    guidance
        Classifier-free guidance scale; 1 leaves it off and halves the cost. Without effect on the empty prompt.
    eta
        Noise of a reverse step, see `DiffusionPrior`.

    Raises
    ------
    BlindspotError
        If the network does not denoise the autoencoder's latents.
    """

    pipelines = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "LatentConsistencyModelPipeline")
    options = ("prompt", "scheduler")

    def __init__(self, pipeline: Any, prompt: str = "", guidance: float = 1.0, eta: float = 1.0):
        unet, vae = pipeline.unet, pipeline.vae
        if unet.config.in_channels != vae.config.latent_channels:
            raise BlindspotError(
                f"A latent prior needs a network of its autoencoder's {vae.config.latent_channels} channels, this one "
                f"has {unet.config.in_channels}: inpainting and upscaling models cannot serve."
            )
        size = int(unet.config.sample_size)
        super().__init__(
            Schedule.from_scheduler(pipeline.scheduler),
            (int(unet.config.in_channels), size, size),
            size * pipeline.vae_scale_factor,
            unet.device,
            unet.dtype,
            eta,
        )
        self.unet, self.vae = frozen(unet), frozen_autoencoder(vae)
        self.guidance = guidance
        self.context, self.added, self.embedded_guidance = encode_prompt(pipeline, prompt, guidance, self.image_size)

    @classmethod
    def from_pipeline(cls, pipeline: Any, spec: PriorSpec, eta: float) -> LatentPrior:
        """Make the prior of a pipeline's prompt."""
        return cls(pipeline, spec.prompt, spec.guidance, eta)

    def network(self, x_t: States, t: int) -> Tensor:
        """The network's raw output at level t, after classifier-free guidance."""
        copies, rows = len(self.context), len(x_t)
        output = self.unet(
            torch.cat([x_t] * copies),
            torch.tensor(t, device=self.device),
            encoder_hidden_states=self.context.repeat_interleave(rows, dim=0),
            timestep_cond=None if self.embedded_guidance is None else self.embedded_guidance.expand(rows, -1),
            added_cond_kwargs={key: value.repeat_interleave(rows, dim=0) for key, value in self.added.items()},
        ).sample
        if copies == 1:
            return output
        empty, prompted = output.chunk(2)
        return empty + self.guidance * (prompted - empty)

    def decode(self, z: States) -> Images:
        """Latents to images in [0, 1]."""
        return decode_latents(self.vae, z)


class Condition(NamedTuple):
    """What a network is given beside state and level for one prompt: a single row, or the empty prompt's before it."""

    context: Float[Tensor, "prompts tokens dim"]
    """What cross-attention reads."""
    added: dict[str, Tensor]
    """For SDXL, pooled `text_embeds` [1 or 2, d'] and sizes `time_ids` [1 or 2, 6]; empty otherwise."""
    guidance: Float[Tensor, "1 dim"] | None
    """The embedded guidance scale of a model distilled with it (LCM); None otherwise."""


@torch.no_grad()
def encode_prompt(pipeline: Any, prompt: str, guidance: float, image_size: int) -> Condition:
    """Encode a prompt for a pipeline of `LatentPrior.pipelines`.

    Parameters
    ----------
    pipeline
        Its text encoders are used here for the last time.
    prompt
        "" for what the model was trained to take as no prompt at all (zeros in SDXL).
    guidance
        Classifier-free guidance scale; 1 leaves it off. A model that was distilled with guidance is told the scale.
    image_size
        Side in pixels that an SDXL is told.
    """
    unet = pipeline.unet
    prompted, empty, *pooled = pipeline.encode_prompt(
        prompt=prompt, device=unet.device, num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    rows = [prompted] if prompt else [empty]
    pooled = pooled if prompt else pooled[::-1]
    width = unet.config.get("time_cond_proj_dim")
    both = bool(prompt) and guidance != 1 and width is None
    rows = [empty, *rows] if both else rows
    added = {}
    if pooled:
        sizes = torch.tensor([[image_size, image_size, 0, 0, image_size, image_size]], device=unet.device)
        added["text_embeds"] = torch.cat(pooled[::-1] if both else pooled[:1])
        added["time_ids"] = sizes.to(unet.dtype).expand(len(rows), -1)
    embedded = None
    if width is not None:
        embedded = pipeline.get_guidance_scale_embedding(torch.tensor([guidance - 1]), width)
        embedded = embedded.to(unet.device, unet.dtype)
    return Condition(torch.cat(rows), added, embedded)


def frozen_autoencoder(vae: Any) -> Any:
    """Freeze a diffusers autoencoder; in float32 if it is one whose decoder overflows in float16 (SDXL's)."""
    return frozen(vae.float() if vae.dtype == torch.float16 and vae.config.get("force_upcast") else vae)


def decode_latents(vae: Any, z: States) -> Images:
    """Decode latents to images in [0, 1]; undoes the autoencoder's scale, shift and moments."""
    config = vae.config
    latents = z / config.scaling_factor + (config.get("shift_factor") or 0.0)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        mean, std = (z.new_tensor(config[key])[:, None, None] for key in ("latents_mean", "latents_std"))
        latents = latents * std + mean
    return (vae.decode(latents.to(vae.dtype)).sample.float() / 2 + 0.5).clamp(0, 1)
