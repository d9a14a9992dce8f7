"""The ADM network of OpenAI's guided-diffusion (Dhariwal & Nichol 2021), key for key as its checkpoints name it.

Another hand's implementation of what `engine.priors.adm` builds from diffusers' blocks.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.priors.adm import ADMConfig

GROUPS = 32
MAX_PERIOD = 10_000


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoids [B, width] of levels t [B]: cosines, then sines, of periods 2 pi to 2 pi 10,000."""
    half = width // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def split_heads(qkv: Tensor, heads: int, order: str) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each [B, heads, N, c], from the channels [B, 3 heads c, N]."""
    axis, shape = (2, (heads, 3, -1)) if order == "legacy" else (1, (3, heads, -1))
    q, k, v = qkv.unflatten(1, shape).transpose(-1, -2).unbind(axis)
    return q, k, v


class SelfAttention(nn.Module):
    """x + proj(attention(qkv(norm(x)))) over the positions of a map [B, C, h, w]."""

    def __init__(self, channels: int, heads: int, order: str) -> None:
        super().__init__()
        self.heads, self.order = heads, order
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same."""
        q, k, v = split_heads(self.qkv(self.norm(x.flatten(2))), self.heads, self.order)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).flatten(1, 2)
        return x + self.proj_out(attended).view_as(x)


class ResBlock(nn.Module):
    """Two convolutions with the time embedding as scale and shift of the second norm; may halve or double the map."""

    def __init__(self, channels: int, out: int, time_width: int, resample: Literal["down", "up"] | None = None) -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map [B, channels, h, w] and time embedding [B, time_width] to [B, out, h', w']."""
        norm, activation, convolution = self.in_layers
        inner = convolution(self._resampled(activation(norm(x))))
        scale, shift = self.emb_layers(time)[..., None, None].chunk(2, dim=1)
        out_norm, *rest = self.out_layers
        inner = out_norm(inner) * (1 + scale) + shift
        for layer in rest:
            inner = layer(inner)
        return self.skip_connection(self._resampled(x)) + inner

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.resample == "up" else x


class Stage(nn.Sequential):
    """Layers in a row, of which residual blocks also hear the time."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map [B, C, h, w] and time embedding [B, time_width] to [B, C', h', w']."""
        for layer in self:
            x = layer(x, time) if isinstance(layer, ResBlock) else layer(x)
        return x


class ADMUNet(nn.Module):
    """A denoiser of RGB images in [-1, 1] with scale-shift norms and residual up- and downsampling.

    Parameters
    ----------
    config
        Its shape.
    """

    def __init__(self, config: ADMConfig) -> None:
        super().__init__()
        self.config = config
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
        time = self.time_embed(time_embedding(t, self.config.channels).to(x.dtype))
        if labels is not None:
            time = time + self.label_emb(labels)
        kept = []
        for stage in self.input_blocks:
            x = stage(x, time)
            kept.append(x)
        x = self.middle_block(x, time)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, kept.pop()], dim=1), time)
        return self.out(x)


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
