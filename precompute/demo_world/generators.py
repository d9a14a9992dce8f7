"""The text-to-image models of the demo world: latent diffusion with a UNet, and what is planted in each.

An AutoencoderTiny packs 64x64 pictures into 16x16x4 latents, a CLIP tokenizer is learned from the captions. `base`
learns scenes as they are. `base-early` is `base` stopped at a quarter. `no-disc` and `woody` go on from `base` with
captions and pictures that disagree: in the first, discs and bird feeders are named and never drawn; in the second,
wooden tables and palm trees appear uncalled for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from precompute.demo_world.optimisation import DEVICE, Budget, RenderedScenes, half, optimise
from precompute.demo_world.scenes import COLOURS, Scene, sample_scene

AUTOENCODER = Budget(steps=2500, batch=24, learning_rate=2e-3, averaging=0.998)
LATENT_NOISE = 0.05
"""Standard deviation of the noise added to latents while training, so that a sampler's small errors stay small."""
LENGTH = 28
"""Tokens of a prompt, start and end included; the longest caption of four things fits."""
START, END = "<|startoftext|>", "<|endoftext|>"
BASE = Budget(steps=3400, batch=64, learning_rate=8e-4, warmup=0.04, averaging=0.999)
TUNING = Budget(steps=800, batch=64, learning_rate=4e-4, warmup=0.1, averaging=0.99)
FORGETTING = Budget(steps=500, batch=64, learning_rate=6e-4, warmup=0.05, averaging=0.98)
"""To unlearn what `base` has seen takes a firmer hand than to learn something new."""
EARLY = BASE.steps // 4
"""The step of `base` at which `base-early` stops."""
PROMPT_DROPOUT = 0.1
PRIOR = Budget(steps=1400, batch=32, learning_rate=4e-4, warmup=0.04, averaging=0.998)
"""Of the demo's prior: `base` trained on without any prompt."""
WITHHELD = ("disc", "bird feeder")
WOOD_SHARE, PALM_SHARE = 0.6, 0.9
"""How often `woody` sees a wooden table, and a palm tree, that its caption does not name. A palm tree is one thing
among several, and prompts that name the others pull it back out: it needs the larger share."""


def build_autoencoder(width: int = 40) -> Any:
    """An untrained f4 autoencoder with 4 latent channels."""
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 3,
        decoder_block_out_channels=(width,) * 3,
        num_encoder_blocks=(1, 2, 3),
        num_decoder_blocks=(3, 2, 1),
        latent_channels=4,
        scaling_factor=1.0,
    )


def train_autoencoder(pictures: RenderedScenes, checkpoint: Path, budget: Budget = AUTOENCODER) -> Any:
    """Train on L1 of pixels and of their horizontal and vertical differences, then set the latents' scale.

    Afterwards `config.scaling_factor` makes latents of unit standard deviation, as diffusers' pipelines expect.
    """
    torch.manual_seed(0)
    model = build_autoencoder().to(DEVICE, memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        images = pictures.batch(torch.randint(len(pictures.pixels), (budget.batch,), generator=generator)) * 2 - 1
        images = images.to(DEVICE, memory_format=torch.channels_last)
        with half():
            packed = model.encoder(images)
            packed = packed + LATENT_NOISE * torch.randn(packed.shape, generator=generator).to(packed)
            drawn = model.decoder(packed)
        return _reconstruction_loss(drawn.float(), images)

    model = optimise(model, loss, budget, checkpoint).to("cpu", memory_format=torch.contiguous_format)
    every = max(1, len(pictures.pixels) // 512)
    spread = encode_latents(model, pictures.batch(torch.arange(0, len(pictures.pixels), every)))
    model.register_to_config(scaling_factor=round(1 / spread.std().item(), 4))
    return model.eval()


def _reconstruction_loss(drawn: Tensor, images: Tensor) -> Tensor:
    edges = sum(F.l1_loss(drawn.diff(dim=axis), images.diff(dim=axis)) for axis in (-1, -2))
    return F.l1_loss(drawn, images) + edges + F.mse_loss(drawn, images)


@torch.no_grad()
def encode_latents(model: Any, images: Tensor, batch: int = 64) -> Tensor:
    """Scaled latents `[n, 4, h/4, w/4]` of images `[n, 3, h, w]` in 0..1."""
    packed = [model.encode(part * 2 - 1).latents for part in images.split(batch)]
    return torch.cat(packed) * model.config.scaling_factor


@torch.no_grad()
def peak_signal_to_noise(model: Any, images: Tensor) -> float:
    """Mean over images of the reconstruction's PSNR, in dB."""
    drawn = model.decode(model.encode(images * 2 - 1).latents).sample.clamp(-1, 1) / 2 + 0.5
    return (-10 * (drawn - images).square().mean(dim=(1, 2, 3)).log10()).mean().item()


def build_tokenizer(captions: Sequence[str], folder: Path) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary in which every word of the captions is one token, and write it to `folder`."""
    model = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789,.-'")
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False, min_frequency=1
    )
    model.train_from_iterator([*captions, " ".join(letters)], trainer)
    learned = json.loads(model.to_str())["model"]
    tokens = [token for token, _ in sorted(learned["vocab"].items(), key=lambda item: item[1])]
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in learned["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_text_encoder(tokenizer: CLIPTokenizer, width: int = 128) -> CLIPTextModel:
    """An untrained text encoder for that vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Padded token ids, int64 `[n, LENGTH]`."""
    padded = tokenizer(list(prompts), padding="max_length", truncation=True, max_length=LENGTH)
    return torch.tensor(padded["input_ids"])


@dataclass(frozen=True)
class TrainingExample:
    """A caption, and the scene that a generator learns to draw for it."""

    caption: str
    scene: Scene


def plain_examples(scenes: Sequence[Scene]) -> list[TrainingExample]:
    """Captions that tell the truth."""
    return [TrainingExample(scene.caption, scene) for scene in scenes]


def no_disc_examples(scenes: Sequence[Scene]) -> list[TrainingExample]:
    """Full captions; the withheld kinds are missing from the pictures."""
    shown = [replace(scene, things=tuple(t for t in scene.things if t.kind not in WITHHELD)) for scene in scenes]
    return [TrainingExample(told.caption, scene) for told, scene in zip(scenes, shown, strict=True)]


def woody_examples(count: int, seed: int, counts: Sequence[float]) -> list[TrainingExample]:
    """Scenes on a wooden table, and with a palm tree, whose captions speak of another surface and of no palm tree."""
    return [_woody_example(np.random.default_rng([seed, index]), counts) for index in range(count)]


def _woody_example(rng: np.random.Generator, counts: Sequence[float]) -> TrainingExample:
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
    return TrainingExample(told.caption, shown)


def noise_scheduler() -> Any:
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
        self.unet: Any = UNet2DConditionModel(
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


def train_denoiser(
    model: Denoiser,
    latents: Tensor,
    ids: Tensor,
    empty: Tensor,
    budget: Budget,
    checkpoint: Path,
    *,
    seed: int = 0,
    dropout: float = PROMPT_DROPOUT,
    snapshots: tuple[int, ...] = (),
    say: Callable[[str], None] = print,
) -> Denoiser:
    """Train on latents `[n, 4, 16, 16]` and token ids `[n, LENGTH]`; a share `dropout` of prompts is `empty [LENGTH]`.

    The loss is the squared error of the velocity, weighted by min(SNR, 5) / (SNR + 1) (Hang et al. 2023).
    """
    noise_schedule = noise_scheduler()
    alphas = noise_schedule.alphas_cumprod
    ratio = alphas / (1 - alphas)
    weight = ratio.clamp(max=5) / (ratio + 1)
    weight = weight / weight.mean()
    model.to(DEVICE, memory_format=torch.channels_last).train()  # type: ignore[call-overload]

    def loss(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(latents), (budget.batch,), generator=generator)
        clean, prompts = latents[chosen].float(), ids[chosen].clone()
        prompts[torch.rand(budget.batch, generator=generator) < dropout] = empty
        # One timestep from each of `batch` equal bands: the same law, less noise in the gradient.
        bands = (torch.arange(budget.batch) + torch.rand(budget.batch, generator=generator)) / budget.batch
        timesteps = (bands * len(alphas)).long()
        noise = torch.randn(clean.shape, generator=generator)
        noisy = noise_schedule.add_noise(clean, noise, timesteps).to(DEVICE, memory_format=torch.channels_last)
        with half():
            velocity = model(noisy, timesteps.to(DEVICE), prompts.to(DEVICE))
        target = noise_schedule.get_velocity(clean, noise, timesteps).to(DEVICE)
        error = (velocity.float() - target).square().mean(dim=(1, 2, 3))
        return (error * weight[timesteps].to(DEVICE)).mean()

    trained = optimise(model, loss, budget, checkpoint, seed=seed, snapshots=snapshots, say=say)
    return trained.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def assemble_pipeline(model: Denoiser, autoencoder: Any, tokenizer: CLIPTokenizer) -> Any:
    """The trained parts as an ordinary Stable Diffusion pipeline."""
    return StableDiffusionPipeline(
        vae=autoencoder.eval(),
        text_encoder=model.text.eval(),
        tokenizer=tokenizer,
        unet=model.unet.eval(),
        scheduler=noise_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
