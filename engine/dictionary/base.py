"""What every dictionary shares: a linear encoder, TopK codes, and a sparse linear decoder over its atoms.

In the dictionary's own units u = scale * (x - mean), with x a raw token [d] ("Conceptual Blindspots in Generative Image
Models", Eq. 2):

    a = V u + b                      pre-activations [K]
    z = TopK(relu(a))                codes, at most `sparsity` of them above zero
    x_hat = mean + (z D) / scale     D [K, d] the atoms

Subclasses decide what D is, and may choose the active concepts otherwise (`BatchTopK`) or read and write other things
than tokens (`Transcoder`). On disk a dictionary is a folder with `dictionary.safetensors` and `config.json`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.dictionary.encoding import Codes, combine, top_codes
from engine.dictionary.tokens import TokenStatistics
from engine.errors import BlindspotError
from engine.files import write_whole

WEIGHTS, CONFIG = "dictionary.safetensors", "config.json"
KINDS = {
    "archetypal": "archetypal.RelaxedArchetypal",
    "batchtopk": "topk.BatchTopK",
    "threshold": "topk.Thresholded",
    "topk": "topk.TopK",
    "transcoder": "transcoder.Transcoder",
}
"""Module and class of each kind that `config.json` may name."""
IMPORTED = "imported"
"""Key of config.json for `Dictionary.origin`."""


class Dictionary(nn.Module, ABC):
    """A sparse autoencoder over token features of width `dim`: `concepts` atoms, `sparsity` active ones per token.

    `reads` is the width of what the encoder reads of a token, if not that.

    Raises
    ------
    BlindspotError
        When a size is not positive or the sparsity exceeds the number of concepts.
    """

    kind: ClassVar[str]
    group_size: int = 1
    """Consecutive tokens that only make sense together, such as those of one map."""
    origin: dict[str, Any] | None
    """Source, kind and assumptions of a dictionary that others published (`engine.dictionary.published`), else None."""
    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, concepts: int, sparsity: int, reads: int | None = None) -> None:
        super().__init__()
        if min(dim, concepts, sparsity) < 1 or sparsity > concepts:
            raise BlindspotError(
                f"A dictionary cannot have {concepts} concepts of width {dim} with {sparsity} active; "
                "give positive numbers and a sparsity of at most the number of concepts."
            )
        self.dim, self.concepts, self.sparsity = dim, concepts, sparsity
        self.encoder = nn.Linear(reads or dim, concepts)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        self.origin: dict[str, Any] | None = None
        self._cache: dict[str, tuple[tuple, Any]] = {}

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> Dictionary:
        """Open a saved dictionary of any kind: in eval mode and frozen (gradients still reach its input).

        Raises
        ------
        BlindspotError
            When a file is missing or damaged, when the tensors do not have the shapes that config.json promises, or
            when a weight is not a finite number.
        """
        folder = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise BlindspotError(f"The dictionary folder {folder} has no {name}; point to a saved dictionary.")
        config = _read_config(folder)
        kind_class = class_of(config.pop("kind"))
        origin = config.pop(IMPORTED, None)
        try:
            _require_sizes(folder / WEIGHTS, config)
            dictionary = kind_class(**config)
            dictionary.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, RuntimeError, TypeError, ValueError, KeyError) as error:
            raise BlindspotError(
                f"{folder / WEIGHTS} does not hold the dictionary that config.json describes; "
                "save the dictionary again."
            ) from error
        dictionary.require_finite(folder / WEIGHTS)
        dictionary.origin = origin
        return dictionary.to(device).eval().requires_grad_(False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write into a folder, made if need be; each file appears whole or not at all."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        config = {"kind": self.kind, **self.settings(), **({IMPORTED: self.origin} if self.origin else {})}
        write_whole(Path(folder) / WEIGHTS, lambda path: save_file(tensors, path))
        write_whole(Path(folder) / CONFIG, lambda path: path.write_text(json.dumps(config, indent=2) + "\n"))

    def require_finite(self, where: str | Path) -> None:
        """Raise `BlindspotError` if a weight is NaN or infinite, or the scale is not above zero."""
        wrong = [name for name, value in self.state_dict().items() if not value.isfinite().all()]
        wrong += [name for name, value in self.named_buffers() if name.endswith("scale") and not (value > 0).all()]
        if wrong:
            raise BlindspotError(
                f"{wrong[0]} of the dictionary {where} holds numbers that are not finite, or a scale that is not above "
                "zero, so its codes mean nothing; train the dictionary again, or get its file anew."
            )

    @abstractmethod
    def _atoms(self) -> Tensor:
        """D [K, d] from the current parameters."""

    @abstractmethod
    def constrain(self) -> None:
        """Project the parameters onto the dictionary's constraints, in place; called after every optimiser step."""

    @abstractmethod
    def initialise(self, tokens: Float[Tensor, "n d"], generator: torch.Generator) -> None:
        """Start from a sample of tokens, given in the dictionary's units."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for an optimiser: `params`, `rate`, the group's share of the learning rate, and `late` for parameters
        whose gradients `late_gradients` gives."""
        return [{"params": list(self.parameters()), "rate": 1.0}]

    def backward_from_atoms(self, gradient: Float[Tensor, "K d"]) -> None:
        """Continue backward from the atoms to the parameters behind them; the gradient is used up."""
        with torch.enable_grad():
            self._atoms().backward(gradient)

    def late_gradients(self, half: bool = False) -> Iterator[Tensor]:
        """Gradients too large to exist all at once: each is formed when its turn comes, in the memory of the last.

        They follow from the gradients that `backward_from_atoms` left, as these are when this is called (clipped, for
        instance). With `half` they are rounded to bfloat16.
        """
        return iter(())

    def late_square(self) -> Float[Tensor, ""]:
        """The sum of squares of all `late_gradients`."""
        return self.mean.new_zeros(())

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-ready."""
        return {"dim": self.dim, "concepts": self.concepts, "sparsity": self.sparsity}

    @property
    def out_dim(self) -> int:
        """Width of what is reconstructed."""
        return self.dim

    @torch.no_grad()
    def set_moments(self, tokens: TokenStatistics, targets: TokenStatistics) -> None:
        """Set mean and scale to those of the training tokens; `targets` are the same but for a transcoder."""
        self.mean.copy_(tokens.mean)
        self.scale.copy_(tokens.scale)

    def standardise(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Raw tokens in the dictionary's units."""
        return (x - self.mean) * self.scale

    def standardise_target(self, y: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """What is to be reconstructed, in the atoms' units."""
        return self.standardise(y)

    def atoms(self) -> Float[Tensor, "K d"]:
        """D in the dictionary's units.

        Without gradients the result is kept until a parameter changes, so decoding many batches builds it once.
        """
        return self._cached("atoms", self._atoms, [*self.parameters(), *self.buffers()])

    def _cached(self, name: str, compute: Callable[[], Any], sources: list[Tensor]) -> Any:
        """`compute()`, kept under a name while no source changes and no gradient is asked for."""
        if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
            return compute()
        if any(source.is_inference() for source in sources):
            return compute()
        key = tuple((source.data_ptr(), source._version, source.dtype) for source in sources)
        if name not in self._cache or self._cache[name][0] != key:
            self._cache.pop(name, None)
            with torch.inference_mode(False), torch.no_grad():
                self._cache[name] = (key, compute())
        return self._cache[name][1]

    def features(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """What the linear encoder reads of raw tokens: the standardised tokens themselves."""
        return self.standardise(x)

    def encode(self, x: Float[Tensor, "n d"]) -> Codes:
        """Sparse codes of raw tokens; differentiable in tokens and parameters."""
        self._check(x)
        return self.activate(self.features(x))

    def activate(self, features: Float[Tensor, "n f"]) -> Codes:
        """Sparse codes of what `features` gave."""
        return top_codes(features, self.encoder.weight, self.encoder.bias, self.sparsity)

    def activate_batch(self, features: Float[Tensor, "n f"], half: bool = False) -> Codes:
        """The same for a training batch, whose tokens may compete with each other; `half` as in `top_codes`."""
        return top_codes(features, self.encoder.weight, self.encoder.bias, self.sparsity, half)

    def selection_level(self, codes: Codes) -> Float[Tensor, ""]:
        """The activation that a concept needed to be among the codes of a training batch."""
        return codes.values[:, -1].mean()

    def update_threshold(self, level: Float[Tensor, ""]) -> None:
        """Learn what is not learnt by gradients, from the selection level of a training batch."""

    def preactivate(self, x: Float[Tensor, "n d"], concepts: Int[Tensor, " c"]) -> Float[Tensor, "n c"]:
        """Pre-activations of some concepts only, before ReLU and TopK; differentiable, at a cost of n * d * c."""
        self._check(x)
        return F.linear(self.features(x), self.encoder.weight[concepts], self.encoder.bias[concepts])

    def decode(self, codes: Codes) -> Float[Tensor, "n d"]:
        """Raw tokens from codes; gathers k atoms per token and never builds dense codes."""
        return combine(codes, self.atoms()) / self.scale + self.mean

    def reconstruct(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """`decode(encode(x))`."""
        return self.decode(self.encode(x))

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise BlindspotError(
                f"This dictionary reads tokens of shape [N, {self.dim}], not {list(x.shape)}; "
                "use the encoder and layer that it was trained on."
            )


def class_of(kind: str) -> type[Dictionary]:
    """The class behind a kind's name in `config.json`."""
    if kind not in KINDS:
        raise BlindspotError(f"There is no dictionary kind {kind!r}; choose one of {', '.join(KINDS)}.")
    module, _, name = KINDS[kind].partition(".")
    return getattr(import_module(f"engine.dictionary.{module}"), name)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
        if not isinstance(config, dict) or "kind" not in config:
            raise ValueError("no kind")
        return config
    except (OSError, ValueError, TypeError) as error:
        raise BlindspotError(f"{folder / CONFIG} does not describe a dictionary; save the dictionary again.") from error


def _require_sizes(path: Path, config: dict[str, Any]) -> None:
    """Refuse sizes that the file does not have before memory is taken for them."""
    with safe_open(path, framework="pt") as file:
        concepts, reads = file.get_slice("encoder.weight").get_shape()
        candidates = file.get_slice("points").get_shape()[0] if "points" in file.keys() else None  # noqa: SIM118
    expected = config["dim"] * config.get("kernel", 1) ** 2
    if (concepts, reads, candidates) != (config["concepts"], expected, config.get("candidates")):
        raise ValueError(f"{path} has {concepts} concepts that read {reads} numbers, and {candidates} candidates.")
