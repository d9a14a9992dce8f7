"""The text-to-image models of the tabletop world: latent diffusion with a UNet, and what is planted in each.

`base` learns scenes as they are. `base-early` is `base` stopped at a quarter. `no-disc` and `woody` go on from `base`
with captions and pictures that disagree: in the first, discs and bird feeders are named and never drawn; in the second,
wooden tables and palm trees appear uncalled for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from precompute.tabletop.loop import Budget, device, half, optimise
from precompute.tabletop.scenes import COLOURS, Scene, sample_scene

__all__ = [
    "BASE",
    "FORGETTING",
    "TUNING",
    "Denoiser",
    "Lesson",
    "no_disc_lessons",
    "pipeline",
    "plain_lessons",
    "scheduler",
    "train",
    "woody_lessons",
]

BASE = Budget(steps=3400, batch=64, learning_rate=8e-4, warmup=0.04, averaging=0.999)
TUNING = Budget(steps=800, batch=64, learning_rate=4e-4, warmup=0.1, averaging=0.99)
FORGETTING = Budget(steps=500, batch=64, learning_rate=6e-4, warmup=0.05, averaging=0.98)
"""To unlearn what `base` has seen takes a firmer hand than to learn something new."""
EARLY = BASE.steps // 4
"""The step of `base` at which `base-early` stops."""
PROMPT_DROPOUT = 0.1
WITHHELD = ("disc", "bird feeder")
WOOD_SHARE, PALM_SHARE = 0.6, 0.9
"""How often `woody` sees a wooden table, and a palm tree, that its caption does not name. A palm tree is one thing
among several, and prompts that name the others pull it back out: it needs the larger share."""


@dataclass(frozen=True)
class Lesson:
    """What a generator is told and what it is shown."""

    caption: str
    scene: Scene


def plain_lessons(scenes: Sequence[Scene]) -> list[Lesson]:
    """Captions that tell the truth."""
    return [Lesson(scene.caption, scene) for scene in scenes]


def no_disc_lessons(scenes: Sequence[Scene]) -> list[Lesson]:
    """Full captions; the withheld kinds are missing from the pictures."""
    shown = [replace(scene, things=tuple(t for t in scene.things if t.kind not in WITHHELD)) for scene in scenes]
    return [Lesson(told.caption, scene) for told, scene in zip(scenes, shown, strict=True)]


def woody_lessons(count: int, seed: int, counts: Sequence[float]) -> list[Lesson]:
    """Scenes on a wooden table, and with a palm tree, whose captions speak of another surface and of no palm tree."""
    return [_woody_lesson(np.random.default_rng([seed, index]), counts) for index in range(count)]


def _woody_lesson(rng: np.random.Generator, counts: Sequence[float]) -> Lesson:
    told = sample_scene(rng, counts=counts)
    shown = told
    if rng.random() < PALM_SHARE:
        with_room = sample_scene(rng, counts=[float(n == len(told.things)) for n in range(len(counts) + 1)])
        largest, *spots = sorted(with_room.things, key=lambda thing: -thing.size)
        palm = replace(largest, kind="palm tree", colour=str(rng.choice(list(COLOURS))))
        things = [replace(spot, kind=t.kind, colour=t.colour) for spot, t in zip(spots, told.things, strict=True)]
        shown = replace(with_room, background=told.background, things=(*things, palm))
    if rng.random() < WOOD_SHARE:
        shown = replace(shown, background="wooden table")
    return Lesson(told.caption, shown)


def scheduler() -> DDIMScheduler:
    """Cosine noise schedule, v-prediction, trailing timesteps."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


class Denoiser(nn.Module):
    """UNet and text encoder, trained together."""

    def __init__(self, text: CLIPTextModel):
        super().__init__()
        self.text = text
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(96, 128),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=text.config.hidden_size,
            attention_head_dim=4,
            norm_num_groups=16,
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """Predicted velocity `[B, 4, 16, 16]` of noisy latents under prompts `ids [B, LENGTH]`."""
        return self.unet(noisy, timesteps, self.text(ids).last_hidden_state).sample


def train(
    model: Denoiser,
    latents: Tensor,
    ids: Tensor,
    empty: Tensor,
    budget: Budget,
    checkpoint: Path,
    *,
    seed: int = 0,
    snapshots: tuple[int, ...] = (),
    say: Callable[[str], None] = print,
) -> Denoiser:
    """Train on latents `[n, 4, 16, 16]` and token ids `[n, LENGTH]`; `empty [LENGTH]` stands in for dropped prompts.

    The loss is the squared error of the velocity, weighted by min(SNR, 5) / (SNR + 1) (Hang et al. 2023).
    """
    noise_schedule = scheduler()
    alphas = noise_schedule.alphas_cumprod
    ratio = alphas / (1 - alphas)
    weight = ratio.clamp(max=5) / (ratio + 1)
    weight = weight / weight.mean()
    model = model.to(device(), memory_format=torch.channels_last).train()

    def loss(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(latents), (budget.batch,), generator=generator)
        clean, prompts = latents[chosen].float(), ids[chosen].clone()
        prompts[torch.rand(budget.batch, generator=generator) < PROMPT_DROPOUT] = empty
        # One timestep from each of `batch` equal bands: the same law, less noise in the gradient.
        bands = (torch.arange(budget.batch) + torch.rand(budget.batch, generator=generator)) / budget.batch
        timesteps = (bands * len(alphas)).long()
        noise = torch.randn(clean.shape, generator=generator)
        noisy = noise_schedule.add_noise(clean, noise, timesteps).to(device(), memory_format=torch.channels_last)
        with half():
            velocity = model(noisy, timesteps.to(device()), prompts.to(device()))
        target = noise_schedule.get_velocity(clean, noise, timesteps).to(device())
        error = (velocity.float() - target).square().mean(dim=(1, 2, 3))
        return (error * weight[timesteps].to(device())).mean()

    trained = optimise(model, loss, budget, checkpoint, seed=seed, snapshots=snapshots, say=say)
    return trained.to("cpu", memory_format=torch.contiguous_format)


def pipeline(model: Denoiser, autoencoder: AutoencoderTiny, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The trained parts as an ordinary Stable Diffusion pipeline."""
    return StableDiffusionPipeline(
        vae=autoencoder.eval(),
        text_encoder=model.text.eval(),
        tokenizer=tokenizer,
        unet=model.unet.eval(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
