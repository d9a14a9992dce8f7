"""What a recipe or an atlas says of a text-to-image pipeline: which one, and how it draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.devices import Device, Dtype
from engine.errors import BlindspotError


class PipelineSpec(BaseModel):
    """A diffusers pipeline and its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: str
    """A folder or a Hugging Face id."""
    revision: str | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    guidance: Annotated[float, Field(ge=0)] = 7.5
    """Classifier-free guidance scale."""
    scheduler: str | None = None
    """Name of a diffusers scheduler class that replaces the pipeline's own."""
    seed: Annotated[int, Field(ge=0)] = 0
    """With an image's index it seeds that image alone, whatever the batch."""
    batch: Annotated[int, Field(ge=1)] = 8
    dtype: Dtype = "float32"
    device: Device = "auto"

    @classmethod
    def from_dict(cls, described: Mapping[str, Any], where: str) -> PipelineSpec:
        """Read what an atlas's header says of a pipeline; keys that are not known are left out.

        Raises
        ------
        BlindspotError
            If it is no pipeline's, naming `where`.
        """
        try:
            return cls.model_validate({name: value for name, value in described.items() if name in cls.model_fields})
        except ValidationError as error:
            first = error.errors()[0]
            raise BlindspotError(
                f"{where} is no pipeline ({'.'.join(map(str, first['loc']))}: {first['msg']}): build the atlas again."
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """The settings that decide what is drawn, JSON-friendly; where and in which batches is left to the machine."""
        return self.model_dump(mode="json", include=set(PipelineSpec.model_fields), exclude={"device"})
