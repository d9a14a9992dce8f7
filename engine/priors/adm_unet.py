"""The ADM network of OpenAI's guided-diffusion (Dhariwal & Nichol 2021), key for key as its checkpoints name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.priors.adm_blocks import GROUPS, QkvOrder, ResBlock, SelfAttention, Stage, time_embedding


@dataclass(frozen=True)
class ADMConfig:
    """The shape of an ADM network; the defaults are the 256 x 256 unconditional model of 552,814,086 parameters."""

    image_size: int = 256
    """Side in pixels."""
    channels: int = 256
    """Width that the multipliers multiply."""
    multipliers: tuple[float, ...] = (1, 1, 2, 2, 4, 4)
    """Width of each level, finest first; each level halves the one before it."""
    blocks: int = 2
    """Residual blocks of a level on the way down; one more on the way up."""
    attention: tuple[int, ...] = (3, 4, 5)
    """Levels with self-attention."""
    head_channels: int = 64
    """Channels of an attention head."""
    heads: int | None = None
    """Heads of every attention, instead of `head_channels` (the 128 x 128 model has 4)."""
    qkv: QkvOrder = "legacy"
    """Order of the attention's channels; only the 64 x 64 model has the `new` one."""
    classes: int | None = None
    """Number of classes; None for an unconditional model."""
    learned_variance: bool = True
    """Whether 3 more output channels say where the reverse variance lies."""


class ADMUNet(nn.Module):
    """A denoiser of RGB images in [-1, 1] with scale-shift norms and residual up- and downsampling.

    Activations can be recomputed on the way back instead of kept, switched on and off as in diffusers' models.

    Parameters
    ----------
    config
        Its shape.
    """

    _supports_gradient_checkpointing = True

    def __init__(self, config: ADMConfig = ADMConfig()) -> None:
        super().__init__()
        self.config, self.is_gradient_checkpointing = config, False
        widths = [int(multiplier * config.channels) for multiplier in config.multipliers]
        time_width = 4 * config.channels
        self.time_embed = nn.Sequential(
            nn.Linear(config.channels, time_width), nn.SiLU(), nn.Linear(time_width, time_width)
        )
        if config.classes is not None:
            self.label_emb = nn.Embedding(config.classes, time_width)
        self.input_blocks, skipped = _descent(config, widths)
        deepest = widths[-1]
        self.middle_block = Stage(
            _residual(config, deepest, deepest), _attention(config, deepest), _residual(config, deepest, deepest)
        )
        self.output_blocks = _ascent(config, widths, skipped)
        channels = 6 if config.learned_variance else 3
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], channels, 3, padding=1)
        )

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.out[2].weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.out[2].weight.device

    def enable_gradient_checkpointing(self) -> None:
        """Recompute each stage's activations on the way back: less memory, about a third more time."""
        self.is_gradient_checkpointing = True

    def disable_gradient_checkpointing(self) -> None:
        """Keep activations again."""
        self.is_gradient_checkpointing = False

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predicted noise, and the variance's place between its bounds if it is learned.

        Parameters
        ----------
        x
            States [B, 3, H, W].
        t
            Levels [B].
        labels
            Classes int64 [B], for a conditional model.

        Returns
        -------
        [B, 3 or 6, H, W].
        """
        time = self.time_embed(time_embedding(t, self.config.channels).to(self.dtype))
        if labels is not None:
            time = time + self.label_emb(labels)
        kept = []
        for stage in self.input_blocks:
            x = self._run(stage, x, time)
            kept.append(x)
        x = self._run(self.middle_block, x, time)
        for stage in self.output_blocks:
            x = self._run(stage, torch.cat([x, kept.pop()], dim=1), time)
        return self.out(x)

    def _run(self, stage: Stage, x: Tensor, time: Tensor) -> Tensor:
        if self.is_gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, x, time, use_reentrant=False)
        return stage(x, time)


def _residual(config: ADMConfig, channels: int, out: int, resample: Literal["down", "up"] | None = None) -> ResBlock:
    return ResBlock(channels, out, 4 * config.channels, resample)


def _attention(config: ADMConfig, channels: int) -> SelfAttention:
    heads = config.heads or channels // config.head_channels
    if heads < 1 or channels % heads:
        raise ValueError(f"an attention over {channels} channels cannot have {heads} heads")
    return SelfAttention(channels, heads, config.qkv)


def _layers(config: ADMConfig, level: int, channels: int, out: int) -> list[nn.Module]:
    """A residual block and, on the levels that have it, attention."""
    attentive = level in config.attention
    return [_residual(config, channels, out), *([_attention(config, out)] if attentive else [])]


def _descent(config: ADMConfig, widths: list[int]) -> tuple[nn.ModuleList, list[int]]:
    """The stages from the image to the coarsest level, and the width of each one's output."""
    stages, skipped = [Stage(nn.Conv2d(3, widths[0], 3, padding=1))], [widths[0]]
    for level, out in enumerate(widths):
        if level:
            stages.append(Stage(_residual(config, skipped[-1], skipped[-1], "down")))
            skipped.append(skipped[-1])
        for _ in range(config.blocks):
            stages.append(Stage(*_layers(config, level, skipped[-1], out)))
            skipped.append(out)
    return nn.ModuleList(stages), skipped


def _ascent(config: ADMConfig, widths: list[int], skipped: list[int]) -> nn.ModuleList:
    """The stages back to the image; each also reads the output of its counterpart on the way down."""
    stages, waiting, width = [], list(skipped), widths[-1]
    for level, out in reversed(list(enumerate(widths))):
        for block in range(config.blocks + 1):
            layers = _layers(config, level, width + waiting.pop(), out)
            width = out
            if level and block == config.blocks:
                layers.append(_residual(config, width, width, "up"))
            stages.append(Stage(*layers))
    return nn.ModuleList(stages)
