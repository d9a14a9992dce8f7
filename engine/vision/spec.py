"""Which encoder an atlas uses, and what it expects and returns, as plain data; needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from engine.devices import Device, Dtype
from engine.errors import BlindspotError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Resize = Literal["square", "crop", "square-crop"]
"""`square` squeezes the image to the encoder's size; `crop` scales the shorter side and cuts the centre out;
`square-crop` squeezes to a larger square and cuts its centre out, as DeiT's and BEiT's processors do."""
Interpolation = Literal["bicubic", "bilinear"]
"""How the image is resampled, always with antialiasing."""


def _storable(dtype: str) -> str:
    if dtype == "bfloat16":
        raise ValueError("must be float16 or float32")
    return dtype


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class EncoderConfig:
    """Any image backbone of transformers: which one, what is read of it and how it runs; a recipe's block `encoder`."""

    id: str
    """A folder or a Hugging Face id."""
    revision: str | None = None
    """Hub commit, tag or branch."""
    layer: int | None = None
    """Hidden layer to read, normalised by the model's final layer norm; the last one if not given."""
    hook: str | None = None
    """Instead of a layer: the inner module whose output is read, for example `model.stages.2.layers.20`."""
    image_size: Annotated[int, Field(ge=14)] | None = None
    """Side in pixels that the backbone sees; position embeddings are interpolated when it differs from training."""
    resize: Resize | None = None
    """Replaces the checkpoint's own way of making images square."""
    device: Device = "auto"
    dtype: Dtype = "float32"
    """Precision of the weights; tokens are computed as float32 in any case."""
    batch: Annotated[int, Field(ge=1)] = 32
    """Images encoded at once."""
    store: Annotated[Dtype, AfterValidator(_storable)] = "float16"
    """Precision of the tokens kept between stages: float16, or float32 for twice the disk and exact energies."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class JudgeSpec:
    """The image classifier that says whether a drawing shows its concept; a recipe's block `judge`."""

    id: str
    """A folder or a Hugging Face id: any image classifier of transformers, of one label or several."""
    revision: str | None = None
    """Hub commit, tag or branch."""

    def to_dict(self) -> dict[str, Any]:
        """Return what an atlas's header stores: the id, and the revision if there is one."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JudgeSpec:
        """Return the inverse of `to_dict`; keys that this version does not know are ignored."""
        return cls(id=str(data["id"]), revision=data.get("revision"))


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """Everything that decides which tokens an image gives; an atlas's header stores it."""

    id: str
    """Folder or hub id."""
    revision: str | None
    """Hub commit or branch; None for a folder."""
    layer: int | None
    """None for the model's output; n for `hidden_states[n]`, see `Encoder`."""
    image_size: int
    """Side, in pixels, of the square image that the backbone sees."""
    patch: int
    """Side, in pixels, of the square that one patch token stands for."""
    grid: tuple[int, int]
    """Height and width of the patch grid."""
    prefix_tokens: int
    """Tokens in front of the patches: the class token, then the registers."""
    dim: int
    """Width of a token."""
    resize: Resize
    interpolation: Interpolation
    mean: tuple[float, float, float]
    """Per-channel mean that is subtracted from images in [0, 1]."""
    std: tuple[float, float, float]
    """Per-channel standard deviation that they are divided by."""
    crop_fraction: float = 0.875
    """With `crop` and `square-crop`: the crop's share of the shorter side (224 of 256 for DINOv2)."""
    hook: str | None = None
    """Inner module whose output is read instead of a layer, see `Encoder`."""
    eight_bits: bool = False
    """Whether pictures are resized in 8 bits per channel, as Pillow and most processors of transformers do; in atlases
    that do not say so they were resized as floats."""

    @property
    def tokens(self) -> int:
        """Tokens of one image, prefix included."""
        return self.prefix_tokens + self.grid[0] * self.grid[1]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; it also names `tokens`, for readers without this class."""
        fields = dataclasses.asdict(self)
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return {**plain, "tokens": self.tokens}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EncoderSpec:
        """Return the inverse of `to_dict`; keys that this version does not know are ignored.

        Raises
        ------
        BlindspotError
            When a field is missing.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items() if name in known
        }
        try:
            return cls(**given)
        except TypeError as error:
            missing = sorted(known - set(given) - {"crop_fraction", "hook", "eight_bits"})
            raise BlindspotError(f"The encoder's description lacks {', '.join(missing)}; rebuild the atlas.") from error
