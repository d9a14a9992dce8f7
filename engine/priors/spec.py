"""Which diffusion prior a recipe or an atlas names, as plain data; needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from engine.errors import BlindspotError


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PriorSpec:
    """The diffusion model that EnergyDPS guides when a person presses *Generate*; a recipe's block `prior`."""

    id: str
    """A folder or a Hugging Face id."""
    kind: Literal["latent", "pixel", "dit", "adm"] = "latent"
    """A text-to-image pipeline, an unconditional one, a DiT, or what `python -m precompute convert-adm` wrote."""
    prompt: str = ""
    """For latent; empty for its unconditional images."""
    guidance: Annotated[float, Field(ge=0)] = 1.0
    """Classifier-free guidance scale of a prompt or of a DiT's class; 1 is none."""
    label: Annotated[int, Field(ge=0)] | None = None
    """The class to draw: for dit all of them if not given, for a class-conditional adm needed."""
    scheduler: str | None = None
    """Name of a diffusers scheduler class that replaces the pipeline's own, for example LCMScheduler."""

    def to_dict(self) -> dict[str, Any]:
        """Return what an atlas's header stores: id, kind and prompt, and whatever else is not the default."""
        always = ("id", "kind", "prompt")
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in always or getattr(self, field.name) != field.default
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PriorSpec:
        """Return the inverse of `to_dict`; keys that this version does not know are ignored.

        Raises
        ------
        BlindspotError
            When a value does not fit, for example an unknown kind.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        try:
            return cls(**{name: value for name, value in data.items() if name in known})
        except ValidationError as error:
            first = error.errors()[0]
            raise BlindspotError(f"The prior cannot be used, {first['loc'][0]}: {first['msg']}.") from error
