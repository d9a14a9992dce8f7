"""What an encoder expects and returns, as plain data that an atlas can store; needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from engine.errors import BlindspotError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that decides which tokens an image gives."""

    id: str
    """Folder or hub id that `Encoder.from_pretrained` accepts."""

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

    resize: Literal["square", "crop"]
    """`square` squeezes the image to image_size; `crop` scales the shorter side and cuts the centre out."""

    interpolation: Literal["bicubic", "bilinear"]
    """How the image is resampled, always with antialiasing."""

    mean: tuple[float, float, float]
    """Per-channel mean that is subtracted from images in [0, 1]."""

    std: tuple[float, float, float]
    """Per-channel standard deviation that they are divided by."""

    crop_fraction: float = 0.875
    """With `crop`: the crop's share of the shorter side (224 of 256 for DINOv2)."""

    hook: str | None = None
    """Inner module whose output is read instead of a layer, see `Encoder`."""

    @property
    def tokens(self) -> int:
        """Tokens of one image, prefix included."""
        return self.prefix_tokens + self.grid[0] * self.grid[1]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; it also names `tokens`, for readers without this class."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {**plain, "tokens": self.tokens}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EncoderSpec:
        """The inverse of `to_dict`; keys that this version does not know are ignored.

        Raises
        ------
        BlindspotError
            When a field is missing.
        """
        known = {field.name for field in fields(cls)}
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        try:
            return cls(**{name: value for name, value in given.items() if name in known})
        except TypeError as error:
            missing = sorted(known - set(given) - {"crop_fraction", "hook"})
            raise BlindspotError(f"The encoder's description lacks {', '.join(missing)}; rebuild the atlas.") from error
