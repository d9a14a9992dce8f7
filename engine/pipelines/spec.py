"""What a recipe or an atlas says of a text-to-image pipeline: which one, what is changed in it, and how it draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from engine.devices import Device, Dtype
from engine.errors import BlindspotError

Side = Annotated[int, Field(ge=8, le=8192, multiple_of=8)]
"""Of an image, in pixels."""
SAID_ELSEWHERE = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "generator": "seed",
    "prompt": "the captions",
    "class_labels": "the captions",
    **{name: name for name in ("height", "width", "negative_prompt")},
    **dict.fromkeys(("batch_size", "num_images_per_prompt", "output_type", "return_dict"), "nothing: it is fixed"),
}
"""Arguments of pipelines that `call` cannot hold, and the key that says them."""


class Addition(BaseModel):
    """Weights that are added to a pipeline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    """A folder, a file, or a Hugging Face id."""
    file: str | None = None
    """Name of the weights in it, where there are several."""


class LoraSpec(Addition):
    """A LoRA adapter."""

    scale: float = 1.0
    """How much of it is added."""


class EmbeddingSpec(Addition):
    """The embedding of a new word, learned by textual inversion."""

    token: str | None = None
    """The word in captions that it stands for, if it is not the one that it was saved under."""


def _listed(value: Any) -> Any:
    """An id or a block as a list of one block."""
    blocks = value if isinstance(value, list | tuple) else [value]
    return [{"id": block} if isinstance(block, str) else block for block in blocks]


Loras = Annotated[tuple[LoraSpec, ...], BeforeValidator(_listed)]
Embeddings = Annotated[tuple[EmbeddingSpec, ...], BeforeValidator(_listed)]


class PipelineSpec(BaseModel):
    """A diffusers pipeline and its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: str
    """A folder, a single file of weights (.safetensors), or a Hugging Face id."""
    revision: str | None = None
    pipeline_class: str | None = None
    """Name of the diffusers class that draws; the text-to-image class of the model's family if not given."""
    config: str | None = None
    """Of a single file: a folder or Hugging Face id with the configs, tokenizers and scheduler of such a model."""
    variant: str | None = None
    """Of the weights, for example fp16; found if not given, where a folder holds nothing else."""
    unet: str | None = None
    """A folder or Hugging Face id with the UNet or transformer that replaces the pipeline's own, for example one tuned
    by DPO; in its subfolder of that name, or by itself."""
    lora: Loras = ()
    """LoRA adapters: an id or file, `{id, file, scale}`, or a list of these. Needs peft."""
    textual_inversion: Embeddings = ()
    """Learned words: an id or file, `{id, file, token}`, or a list of these."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    guidance: Annotated[float, Field(ge=0)] = 7.5
    """Classifier-free guidance scale."""
    height: Side | None = None
    """In pixels; the pipeline's own choice if not given."""
    width: Side | None = None
    negative_prompt: str | None = None
    """What guidance leads away from, the same for all captions."""
    scheduler: str | None = None
    """Name of a diffusers scheduler class that replaces the pipeline's own."""
    call: dict[str, Any] = {}
    """Further arguments of the pipeline's call, for example `{true_cfg_scale: 4.0}`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """With an image's index it seeds that image alone, whatever the batch."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Images drawn at once; halved while memory runs out."""
    dtype: Dtype = "float32"
    device: Device = "auto"

    @field_validator("call")
    @classmethod
    def _only_further_arguments(cls, call: dict[str, Any]) -> dict[str, Any]:
        if said := [name for name in call if name in SAID_ELSEWHERE]:
            raise ValueError(f"cannot hold {said[0]}, which is said by {SAID_ELSEWHERE[said[0]]}")
        return call

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
        """The settings that decide what is drawn, JSON-friendly; where and in which batches is left to the machine.

        Keys that version 0.2.0 did not have are there only if they say something: what was drawn before stays known.
        """
        said = self.model_dump(mode="json", include=set(PipelineSpec.model_fields), exclude={"device"})
        return {name: value for name, value in said.items() if name in FIRST_KEYS or value not in (None, {}, [])}

    def model_keys(self) -> dict[str, str]:
        """By key, the folders, files and ids that this names, for example `{"pipeline": ..., "lora.0.id": ...}`."""
        found: dict[str, str] = {}

        def note(key: str, ref: str) -> str:
            found[key] = ref
            return ref

        self.with_models(note)
        return found

    def with_models(self, change: Callable[[str, str], str]) -> PipelineSpec:
        """The same with `change(key, reference)` in the place of every folder, file and id."""
        said: dict[str, Any] = {
            name: change(name, ref) for name in ("pipeline", "config", "unet") if (ref := getattr(self, name))
        }
        for name in ("lora", "textual_inversion"):
            said[name] = tuple(
                one.model_copy(update={"id": change(f"{name}.{at}.id", one.id)})
                for at, one in enumerate(getattr(self, name))
            )
        return self.model_copy(update=said)


FIRST_KEYS = {"pipeline", "revision", "steps", "guidance", "scheduler", "seed", "batch", "dtype"}
