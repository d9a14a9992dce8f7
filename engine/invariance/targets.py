"""What is held constant: responses of concepts, neurons and classifiers to images, behind one interface.

A target is f of IS(x*) = {x : f(x) = f(x*)} ("EquiDiff", eq. 3.1): images [n, 3, height, width] in [0, 1] to m
responses each, differentiable, row by row. `engine.invariance.parsing` reads the words that name one on the command
line and in the app.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from engine.errors import BlindspotError
from engine.invariance.classifier import Classifier
from engine.samplers.scores import ConceptScore, reduce_maps
from engine.vision.encoder import Encoder

if TYPE_CHECKING:
    from engine.dictionary.base import Dictionary


class Target(ABC):
    """A differentiable function of images with one name for each of its m responses."""

    names: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """m, the number of responses to an image."""
        return len(self.names)

    @abstractmethod
    def respond(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n m"]:
        """Responses to images in [0, 1]; differentiable."""

    def __call__(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n m"]:
        """The same in float32, once its shape is known to be [n, m]."""
        responses = self.respond(images).float()
        if responses.shape != (len(images), self.outputs):
            raise BlindspotError(
                f"The response {self} to {len(images)} images has shape {list(responses.shape)}, not "
                f"{[len(images), self.outputs]}: give a function of {self.outputs} numbers for each image."
            )
        return responses

    def target_of(
        self, image: Float[Tensor, "3 height width"] | Float[Tensor, "1 3 height width"]
    ) -> Float[Tensor, " m"]:
        """y* = f(x*), the responses to a query image ("EquiDiff", Algorithm 1, line 2).

        Raises
        ------
        BlindspotError
            If a response is not finite, or there is no gradient by which images could be led to it.
        """
        with torch.enable_grad():
            query = image.detach().reshape(1, *image.shape[-3:]).clone().requires_grad_()
            responses = self(query)
            # In a fixed random direction: responses that always add up to the same number have a sum without gradient.
            direction = torch.randn(self.outputs, generator=torch.Generator().manual_seed(0)).to(responses.device)
            if not responses.isfinite().all():
                raise BlindspotError(f"The response {self} to the query is not finite: choose another image.")
            gradient = (
                torch.autograd.grad((responses @ direction).sum(), query, allow_unused=True)[0]
                if responses.requires_grad
                else None
            )
        if gradient is None or not gradient.isfinite().all() or not gradient.abs().max() > 0:
            raise BlindspotError(
                f"The response {self} has no gradient at the query, so no image can be led to it: choose another "
                "image or response."
            )
        return responses.detach()[0]

    def value(self, numbers: Sequence[float]) -> Float[Tensor, " m"]:
        """y* given as numbers, one for each response.

        Raises
        ------
        BlindspotError
            If there are not as many, or one is not finite.
        """
        given = torch.tensor([float(number) for number in numbers])
        if len(given) != self.outputs or not given.isfinite().all():
            raise BlindspotError(f"The response {self} needs {self.outputs} finite numbers, not {list(numbers)}.")
        return given

    def __str__(self) -> str:
        """Its first names, for messages and titles."""
        return ", ".join(self.names[:3]) + (f" and {self.outputs - 3} more" if self.outputs > 3 else "")


class FunctionTarget(Target):
    """Any differentiable function of images, to [n] or [n, m].

    Parameters
    ----------
    names
        One for each of its m responses.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], names: Sequence[str] = ("response",)):
        self.function, self.names = function, tuple(names)

    def respond(self, images: Tensor) -> Tensor:
        responses = self.function(images)
        return responses.unsqueeze(1) if responses.ndim == 1 else responses


class ConceptTarget(Target):
    """Intrinsic scores of concepts (arXiv:2605.17504, eq. 213), one response each; see `ConceptScore`."""

    def __init__(self, encoder: Encoder, dictionary: Dictionary, concepts: Sequence[int]):
        self.score = ConceptScore(encoder, dictionary, concepts)
        if len(set(self.score.concepts)) < len(self.score.concepts):
            raise BlindspotError("A concept was named twice, whose responses are the same: name each once.")
        self.names = tuple(f"concept {concept}" for concept in self.score.concepts)

    def respond(self, images: Tensor) -> Tensor:
        return reduce_maps(self.score.maps(images), self.score.peak, self.score.mean)


class CodeTarget(Target):
    """The code of one concept at one patch token, read before ReLU and Top-K.

    Wherever the concept is active there, this is its code; elsewhere it still has a gradient, while the code is 0 on
    whole regions and has none. `active` says which images have the code itself.

    Parameters
    ----------
    token
        Number of the patch, row by row from 0.
    """

    def __init__(self, encoder: Encoder, dictionary: Dictionary, concept: int, token: int):
        self.score, self.token = ConceptScore(encoder, dictionary, [concept]), int(token)
        patches = encoder.spec.grid[0] * encoder.spec.grid[1]
        if not 0 <= self.token < patches:
            raise BlindspotError(f"There is no token {token}: the encoder has patches 0 to {patches - 1}.")
        self.names = (f"concept {concept} at token {token}",)

    def respond(self, images: Tensor) -> Tensor:
        return self.score.maps(images).flatten(1, 2)[:, self.token]

    @torch.no_grad()
    def active(self, images: Float[Tensor, "n 3 height width"]) -> Bool[Tensor, " n"]:
        """Whether the concept is among the active ones at the token."""
        patches = self.score.encoder(images).patches
        codes = self.score.dictionary.encode(patches.flatten(0, 2))
        fires = ((codes.indices == self.score.concepts[0]) & (codes.values > 0)).any(dim=1)
        return fires.view(len(images), -1)[:, self.token]

    def target_of(self, image: Tensor) -> Tensor:
        """y* of a query, as in `Target.target_of`; an error if the concept is not active at the token."""
        if not self.active(image.reshape(1, *image.shape[-3:])).all():
            raise BlindspotError(
                f"{self.names[0].capitalize()} is not active in the query: choose a token where it is."
            )
        return super().target_of(image)


class CodesTarget(Target):
    """The code vector of an image, its codes' mean over the patches, restricted to some concepts.

    Parameters
    ----------
    concepts
        Their ids; all if None. An image in which one of them is nowhere active gives that response no gradient.
    """

    def __init__(self, encoder: Encoder, dictionary: Dictionary, concepts: Sequence[int] | None = None):
        self.encoder, self.dictionary = encoder, dictionary
        self.concepts = (
            list(range(dictionary.concepts))
            if concepts is None
            else ConceptScore(encoder, dictionary, concepts).concepts
        )
        self.names = tuple(f"concept {concept}" for concept in self.concepts)

    @classmethod
    def active_in(
        cls, encoder: Encoder, dictionary: Dictionary, image: Float[Tensor, "1 3 height width"]
    ) -> CodesTarget:
        """Restrict to the concepts that are active in a query image.

        Raises
        ------
        BlindspotError
            If none is.
        """
        with torch.no_grad():
            active = image_codes(encoder, dictionary, image)[0].nonzero().flatten().tolist()
        if not active:
            raise BlindspotError("No concept is active in the query: choose another image.")
        return cls(encoder, dictionary, active)

    def respond(self, images: Tensor) -> Tensor:
        return image_codes(self.encoder, self.dictionary, images)[:, self.concepts]


def image_codes(
    encoder: Encoder, dictionary: Dictionary, images: Float[Tensor, "n 3 height width"]
) -> Float[Tensor, "n concepts"]:
    """Sparse codes of images, averaged over their patch tokens; differentiable where a concept is active."""
    patches = encoder(images).patches
    codes = dictionary.encode(patches.flatten(0, 2))
    indices, values = (part.reshape(len(images), -1) for part in codes)
    tokens = patches.shape[1] * patches.shape[2]
    return values.new_zeros(len(images), dictionary.concepts).scatter_add(1, indices, values) / tokens


class NeuronTarget(Target):
    """One channel of the output of an inner module, its mean over positions.

    Parameters
    ----------
    network
        An `Encoder`, a `Classifier`, or any module that takes images in [0, 1].
    layer
        Name of the inner module, as `named_modules` gives it for the network (the encoder's `backbone`, the
        classifier's `model`). Its output is [n, channels], tokens [n, tokens, channels] of which an encoder's prefix
        does not count, or maps [n, channels, h, w].
    channel
        Number of the neuron.

    Raises
    ------
    BlindspotError
        If there is no such module; when called, if it has no such channel.
    """

    def __init__(self, network: nn.Module, layer: str, channel: int):
        inner: Any = {Encoder: "backbone", Classifier: "model"}.get(type(network))  # type: ignore[call-overload]
        modules = dict((getattr(network, inner) if inner else network).named_modules())
        if not layer or layer not in modules:
            close = [name for name in modules if layer and layer.split(".")[-1] in name] or [*modules][1:]
            raise BlindspotError(f"There is no module {layer!r}: name one such as {', '.join(close[:3])}.")
        self.network, self.module, self.layer, self.channel = network, modules[layer], layer, int(channel)
        self.names = (f"neuron {channel} of {layer}",)

    def respond(self, images: Tensor) -> Tensor:
        found: list[Tensor] = []
        here = get_ident()

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            if get_ident() == here:  # another thread may be looking at other images
                found.append(self._channel(output if isinstance(output, Tensor) else output[0]))

        handle = self.module.register_forward_hook(keep)
        try:
            self.network(images)
        finally:
            handle.remove()
        if not found:
            raise BlindspotError(f"The module {self.layer} takes no part in looking at an image: name another one.")
        return found[-1].unsqueeze(1)

    def _channel(self, output: Tensor) -> Tensor:
        """The neuron's mean response [n]."""
        spec = self.network.spec if isinstance(self.network, Encoder) else None
        if output.ndim == 3:
            skipped = spec.prefix_tokens if spec is not None and output.shape[1] == spec.tokens else 0
            output = output[:, skipped:].mean(dim=1)
        elif output.ndim == 4:
            output = output.mean(dim=(2, 3))
        if output.ndim != 2 or not 0 <= self.channel < output.shape[1]:
            has = f"channels 0 to {output.shape[1] - 1}" if output.ndim == 2 else "no channels"
            raise BlindspotError(f"There is no neuron {self.channel} of {self.layer}: it has {has}.")
        return output[:, self.channel]


class ClassifierTarget(Target):
    """Logits of a classifier, or the softmax probability of a class.

    Parameters
    ----------
    label
        Number or name of the class; None for all classes.
    probability
        Whether the class's probability is meant. Where it is close to 0 or 1 its gradient vanishes: prefer logits.
    """

    def __init__(self, classifier: Classifier, label: str | int | None = None, probability: bool = False):
        self.classifier, self.probability = classifier, probability
        self.classes = [*range(len(classifier.labels))] if label is None else [classifier.class_number(label)]
        kind = "probability" if probability else "logit"
        self.names = tuple(f"{kind} of {classifier.labels[number]}" for number in self.classes)

    def respond(self, images: Tensor) -> Tensor:
        logits = self.classifier(images)
        return (logits.softmax(dim=1) if self.probability else logits)[:, self.classes]
