"""What a recipe says of a dictionary: what is trained, how, and on which tokens. Importing this loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """How a dictionary is trained; the defaults suit anything from ten thousand to some ten million tokens."""

    epochs: Annotated[float, Field(gt=0)] = 20
    """Passes over the training tokens."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps, instead of epochs."""
    target_r2: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Explained variance (a running mean over some 20 batches) at which training ends early."""
    batch: Annotated[int, Field(ge=1)] = 4096
    """Tokens per step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak, after a linear warm-up over 5 % of the steps."""
    final_learning_rate: Annotated[float, Field(ge=0)] = 1e-6
    """Where the cosine ends."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    """Of AdamW."""
    revival: Annotated[float, Field(ge=0)] = 1 / 32
    """Weight of AuxK, the loss that brings dead concepts back; 0 leaves them alone."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the product that decides which concepts are active and of rasae's largest gradient; all else is float32 (TF32
    products on CUDA unless this is float32). `auto`: bfloat16 where the processor computes in it."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the shuffle and of the first atoms."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DictionarySpec(TrainConfig):
    """The sparse dictionary: one to train, or one to load."""

    kind: Literal["rasae", "topk", "batchtopk", "transcoder"] = "rasae"
    load: Path | str | None = None
    """A finished dictionary; the other fields are then ignored. Its folder, or the file, folder or Hugging Face id of
    one that others published (see `import-dictionary`)."""
    concepts: Annotated[int, Field(ge=4)] = 1024
    sparsity: Annotated[int, Field(ge=1)] = 5
    """Active concepts per token; for batchtopk on average."""
    candidates: Annotated[int, Field(ge=1)] | None = None
    """For rasae: data points whose convex hull holds the atoms; as many as concepts if not given."""
    delta: Annotated[float, Field(ge=0)] = 1.0
    """For rasae: how far an atom may leave that hull."""
    max_active: Annotated[int, Field(ge=1)] | None = None
    """For batchtopk: most active concepts of one token; 8 times the sparsity if not given."""
    kernel: Annotated[int, Field(ge=1)] = 3
    """For transcoder: side of the neighbourhood that a concept sees, in patches, odd."""
    tokens: Annotated[int, Field(ge=1)] = 1_000_000
    """At most this many tokens are trained on, drawn evenly over the images."""
    sources: Literal["real", "all"] = "real"
    """Whose tokens are trained on."""
    report_seeds: Annotated[int, Field(ge=1, le=20)] = 1
    """Trainings whose atoms the report compares for stability, this one included; 1 trains no other."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def settings(self) -> dict[str, Any]:
        """Constructor arguments that only this kind has."""
        own = {"rasae": ("candidates", "delta"), "batchtopk": ("max_active",), "transcoder": ("kernel",)}
        return {name: getattr(self, name) for name in own.get(self.kind, ())}
