"""A diffusion prior in pixel space: an ADM network of OpenAI's guided-diffusion (Dhariwal & Nichol 2021).

The network is diffusers' `UNet2DModel`, which computes the same function. On disk it is a folder of adm.json (its shape
and noise schedule) and adm.safetensors, whose tensors keep guided-diffusion's names and are renamed when it is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.checkpoints import refuse_unusable
from engine.errors import BlindspotError
from engine.priors.base import States, class_label
from engine.priors.pixel import PixelPrior
from engine.priors.spec import PriorSpec

CONFIG, WEIGHTS = "adm.json", "adm.safetensors"
NOISES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
"""Noise schedules of guided-diffusion, and diffusers' names for them."""
SHOWN = 3
"""Misfitting tensors that an error names."""
CONVOLUTION_1D = 3
"""Dimensions of the weight of a one-dimensional convolution."""
RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
"""Layers of a residual block: guided-diffusion's names and diffusers'."""
ATTENTION = {"norm": "group_norm", "qkv": "to_q to_k to_v", "proj_out": "to_out.0"}
"""The same of an attention; one layer gives queries, keys and values."""
OUTER = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
"""The same of the layers outside all blocks."""


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
    qkv: Literal["legacy", "new"] = "legacy"
    """How the 3 C channels of queries, keys and values lie. `legacy`: head by head, each head's q, k, v in a row; `new`
    (only the 64 x 64 model): all queries, then all keys, then all values, each of them head by head."""
    classes: int | None = None
    """Number of classes; None for an unconditional model."""
    learned_variance: bool = True
    """Whether 3 more output channels say where the reverse variance lies."""


class ADMPrior(PixelPrior):
    """The images of an ADM network, of one class if it is conditional.

    Parameters
    ----------
    unet
        A `UNet2DModel`, as `build_adm` makes it.
    noise
        Its noise schedule, one of `NOISES`, over 1000 levels.
    label
        The class to draw, for a class-conditional network, which has no class for "any".
    eta
        Noise of a reverse step, see `DiffusionPrior`.

    Raises
    ------
    BlindspotError
        If a class is missing, out of range, or given to a network without classes.
    """

    options = ("label",)

    def __init__(self, unet: Any, noise: str = "linear", label: int | None = None, eta: float = 1.0):
        from diffusers import DDPMScheduler

        config = unet.config
        variance = "learned_range" if config.out_channels == 2 * config.in_channels else "fixed_small"
        scheduler = DDPMScheduler(beta_schedule=NOISES[noise], variance_type=variance, timestep_spacing="linspace")
        super().__init__(unet, scheduler, eta)
        self.label = class_label(label, config.num_class_embeds, "ADM network")
        if config.num_class_embeds is not None and label is None:
            raise BlindspotError(
                f"This ADM network draws one of {config.num_class_embeds} classes: say which by `label`."
            )

    @classmethod
    def check(cls, spec: PriorSpec) -> None:
        """Raise `BlindspotError` if a folder is not of `python -m precompute convert-adm`."""
        folder = Path(spec.id)
        if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
            raise BlindspotError(
                f"{folder} is no converted ADM network: make one with `python -m precompute convert-adm CHECKPOINT "
                f"--out {folder}`."
            )

    @classmethod
    def from_pretrained(
        cls,
        spec: PriorSpec,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        eta: float | None = None,
    ) -> ADMPrior:
        """Open a folder that `python -m precompute convert-adm` wrote.

        Raises
        ------
        BlindspotError
            If it is missing or damaged, or the class does not fit.
        """
        cls.check(spec)
        folder = Path(spec.id)
        try:
            described: dict[str, Any] = json.loads((folder / CONFIG).read_text())
            noise = described.pop("noise")
            if noise not in NOISES or not set(described) <= {field.name for field in fields(ADMConfig)}:
                raise ValueError(f"unknown keys or noise schedule {noise!r}")
            lists: dict[str, Any] = {name: tuple(value) for name, value in described.items() if isinstance(value, list)}
            config = ADMConfig(**described | lists)
            unet = empty_adm(config)
            state = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BlindspotError(
                f"The ADM network in {folder} cannot be read ({str(error)[:100]}): convert its checkpoint again."
            ) from error
        fill_adm(unet, config, state, folder)
        return cls(unet.to(device, dtype), noise, spec.label, 1.0 if eta is None else eta)

    def network(self, x_t: States, t: int) -> Tensor:
        """The predicted noise and the variance's place at level t, in 3 or 6 channels."""
        labels = None if self.label is None else torch.full((len(x_t),), self.label, device=self.device)
        return self.unet(x_t, torch.tensor(t, device=self.device), class_labels=labels).sample


def build_adm(config: ADMConfig) -> Any:
    """Build diffusers' `UNet2DModel` of that shape, with random weights.

    Raises
    ------
    ValueError
        If a width is no multiple of its attention's heads.
    """
    from diffusers import UNet2DModel
    from diffusers.models.attention_processor import Attention
    from diffusers.models.embeddings import TimestepEmbedding, Timesteps

    attentive = [level in config.attention for level in range(len(config.multipliers))]
    unet: Any = UNet2DModel(
        sample_size=config.image_size,
        in_channels=3,
        out_channels=6 if config.learned_variance else 3,
        layers_per_block=config.blocks,
        block_out_channels=tuple(int(config.channels * multiplier) for multiplier in config.multipliers),
        attention_head_dim=1,  # divides every width; the heads are set below
        down_block_types=tuple("AttnDownBlock2D" if it else "ResnetDownsampleBlock2D" for it in attentive),
        up_block_types=tuple("AttnUpBlock2D" if it else "ResnetUpsampleBlock2D" for it in reversed(attentive)),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attn_norm_num_groups=32,
        norm_num_groups=32,
        norm_eps=1e-5,
        freq_shift=0,
        flip_sin_to_cos=True,
        num_class_embeds=config.classes,
        time_embedding_dim=4 * config.channels,
    )
    # What UNet2DModel's arguments cannot say: a time embedding of another width than the finest level's (the 512 x 512
    # models), and one number of heads for all widths (the 128 x 128 model).
    unet.time_proj = Timesteps(config.channels, flip_sin_to_cos=True, downscale_freq_shift=0)
    unet.time_embedding = TimestepEmbedding(config.channels, 4 * config.channels)
    for module in unet.modules():
        if isinstance(module, Attention):
            module.heads = config.heads or module.inner_dim // config.head_channels
            if module.heads < 1 or module.inner_dim % module.heads:
                raise ValueError(f"an attention over {module.inner_dim} channels cannot have {module.heads} heads")
            module.scale = (module.inner_dim // module.heads) ** -0.5
    return unet


def empty_adm(config: ADMConfig) -> Any:
    """Build the network without memory for its weights, to be given some by `fill_adm`."""
    with torch.device("meta"):
        return build_adm(config).requires_grad_(False).eval()


def fill_adm(unet: Any, config: ADMConfig, state: Mapping[str, Tensor], where: str | Path) -> None:
    """Give a network the tensors of guided-diffusion's state dict, all of them and no others.

    Only queries, keys and values are copied.

    Raises
    ------
    BlindspotError
        If a tensor is missing, left over, or of another shape; the first few are named.
    """
    places = tensor_places(config, unet)
    wrong = [f"{name} is missing" for name in places if name not in state]
    wrong += [f"{name} has no place" for name in state if name not in places]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)} instead of {place.shape}"
        for name, place in places.items()
        if name in state and tuple(state[name].shape) != place.shape
    ]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise BlindspotError(
            f"The weights of {where} do not fit an ADM network of that shape ({', '.join(wrong[:SHOWN])}{more}): "
            "get an intact guided-diffusion checkpoint with scale-shift norms and residual up- and downsampling."
        )
    renamed: dict[str, Tensor] = {}
    for name, (targets, shape) in places.items():
        refuse_unusable(name, state[name], where)
        parts = [state[name][..., 0] if len(shape) == CONVOLUTION_1D else state[name]]
        if len(targets) > 1:
            heads = unet.get_submodule(targets[0].rsplit(".", 2)[0]).heads if config.qkv == "legacy" else 1
            parts = [part.flatten(0, 1) for part in parts[0].unflatten(0, (heads, len(targets), -1)).unbind(1)]
        renamed |= dict(zip(targets, parts, strict=True))
    unet.load_state_dict(renamed, strict=True, assign=True)
    unet.requires_grad_(False)


class Place(NamedTuple):
    """Where a tensor of guided-diffusion's checkpoint goes."""

    names: list[str]
    """In `UNet2DModel`; three for queries, keys and values, which the checkpoint holds as one."""
    shape: tuple[int, ...]
    """In the checkpoint."""


def tensor_places(config: ADMConfig, unet: Any) -> dict[str, Place]:
    """Return the place of every tensor of a network's checkpoint, under guided-diffusion's names."""
    state = unet.state_dict()
    found: dict[str, Place] = {}
    for source, target in _layers(config):
        for kind in ("weight", "bias"):
            names = [f"{name}.{kind}" for name in target.split()]
            if names[0] in state:
                rows, *rest = state[names[0]].shape
                if kind == "weight" and source.endswith((".qkv", ".proj_out")):
                    rest.append(1)  # a convolution of width 1, where diffusers has a linear layer
                found[f"{source}.{kind}"] = Place(names, (rows * len(names), *rest))
    return found


def _layers(config: ADMConfig) -> Iterator[tuple[str, str]]:
    """Guided-diffusion's name of each layer that there may be, and diffusers' name or three names."""

    def block(source: str, target: str, layers: dict[str, str]) -> Iterator[tuple[str, str]]:
        for ours, theirs in layers.items():
            yield f"{source}.{ours}", " ".join(f"{target}.{name}" for name in theirs.split())

    yield from OUTER.items()
    yield from block("middle_block.0", "mid_block.resnets.0", RESIDUAL)
    yield from block("middle_block.1", "mid_block.attentions.0", ATTENTION)
    yield from block("middle_block.2", "mid_block.resnets.1", RESIDUAL)
    period, last = config.blocks + 1, len(config.multipliers) - 1
    for level in range(last + 1):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        for index in range(config.blocks):
            source = f"input_blocks.{1 + level * period + index}"
            yield from block(f"{source}.0", f"{down}.resnets.{index}", RESIDUAL)
            yield from block(f"{source}.1", f"{down}.attentions.{index}", ATTENTION)
        for index in range(period):
            source = f"output_blocks.{level * period + index}"
            yield from block(f"{source}.0", f"{up}.resnets.{index}", RESIDUAL)
            yield from block(f"{source}.1", f"{up}.attentions.{index}", ATTENTION)
        yield from block(f"input_blocks.{(level + 1) * period}.0", f"{down}.downsamplers.0", RESIDUAL)
        upsampler = 2 if last - level in config.attention else 1
        yield from block(f"output_blocks.{level * period + config.blocks}.{upsampler}", f"{up}.upsamplers.0", RESIDUAL)
