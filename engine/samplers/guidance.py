"""Guidance: what a noisy state will show, how it scores, and the gradient of that score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.priors.base import DiffusionPrior, Prediction
from engine.samplers.base import Score
from engine.samplers.execution import MicroBatches

GUIDANCES = ("full", "light")


class DenoisedState(NamedTuple):
    """What one denoising step predicts for a batch of states; nothing in it carries a graph."""

    prediction: Prediction
    images: Float[Tensor, "n 3 height width"]
    """The predicted clean images."""
    scores: Float[Tensor, " n"]
    """The scores of `images`."""
    gradient: Float[Tensor, "n *shape"] | None
    """The score's gradient; None when it was not asked for."""

    def rows(self, index: Tensor) -> DenoisedState:
        """The same for the states of these rows only."""
        gradient = None if self.gradient is None else self.gradient[index]
        prediction = map_prediction(lambda part: part[index], self.prediction)
        return DenoisedState(prediction, self.images[index], self.scores[index], gradient)


class GuidedDenoiser:
    """Denoises states with a prior, scores the predicted images and differentiates the score, in micro-batches.

    Parameters
    ----------
    prior, score
        The denoiser and the score of its predicted images.
    guidance
        `full`: gradients with respect to the noisy state, back through the denoiser; `light`: with respect to the
        predicted clean state.
    bf16
        Compute in bfloat16 where autocast considers it safe; states, scores and gradients stay float32.
    checkpointing
        Recompute activations in the backward pass: less memory, about a third more time.
    batches
        Which states are computed together; each alone when None.
    """

    def __init__(
        self,
        prior: DiffusionPrior,
        score: Score,
        guidance: str = "full",
        bf16: bool = False,
        checkpointing: bool = False,
        batches: MicroBatches | None = None,
    ):
        self.prior, self.score, self.guidance = prior, score, guidance
        self.bf16, self.checkpointing = bf16, checkpointing
        self.batches = batches or MicroBatches(group=1)

    def evaluate(self, state: Float[Tensor, "n *shape"], t: int, guided: bool) -> DenoisedState:
        """Denoise, decode and score states at level t; with the gradient if guided."""
        with checkpointed(self.prior, self.checkpointing and guided):
            parts = self.batches.map(lambda part: self._evaluate(part, t, guided), state)
        if len(parts) == 1:
            return parts[0]
        predictions, images, scores, gradients = zip(*parts, strict=True)
        gradient = torch.cat(gradients) if guided else None
        return DenoisedState(_concatenate(predictions), torch.cat(images), torch.cat(scores), gradient)

    @torch.no_grad()
    def denoise(self, state: Float[Tensor, "n *shape"], t: int) -> Prediction:
        """Predictions for states at level t, neither decoded nor scored."""

        def predict(part: Tensor) -> Prediction:
            with self._autocast(part):
                return self.prior.denoise(part, t)

        return _concatenate(self.batches.map(predict, state))

    @torch.no_grad()
    def decode(self, state: Float[Tensor, "n *shape"]) -> tuple[Float[Tensor, "n 3 height width"], Float[Tensor, " n"]]:
        """Images and scores of clean states, in full precision."""
        images = torch.cat(self.batches.map(self.prior.decode, state))
        return images, torch.cat(self.batches.map(self.score, images)).float()

    def _evaluate(self, state: Tensor, t: int, guided: bool) -> DenoisedState:
        light = guided and self.guidance == "light"
        with self._autocast(state):
            with torch.set_grad_enabled(guided and not light):
                variable = state.detach().requires_grad_(guided)
                prediction = self.prior.denoise(variable, t)
            if light:
                variable = prediction.x0.detach().requires_grad_()
                prediction = prediction._replace(x0=variable)
            with torch.set_grad_enabled(guided):
                images = self._checkpoint(self.prior.decode, prediction.x0)
                scores = self._checkpoint(self.score, images).float()
        gradient = torch.autograd.grad(scores.sum(), variable)[0] if guided else None
        return DenoisedState(map_prediction(Tensor.detach, prediction), images.detach(), scores.detach(), gradient)

    def _autocast(self, state: Tensor) -> torch.autocast:
        return torch.autocast(state.device.type, torch.bfloat16, enabled=self.bf16)

    def _checkpoint(self, function: Callable[[Tensor], Tensor], part: Tensor) -> Tensor:
        if self.checkpointing and part.requires_grad:
            return checkpoint(function, part, use_reentrant=False)
        return function(part)


@contextmanager
def checkpointed(prior: Any, enabled: bool) -> Iterator[None]:
    """Inside, a prior's diffusers networks recompute their blocks' activations; afterwards they are as before."""
    networks: list[Any] = [part for part in vars(prior).values() if isinstance(part, nn.Module)] if enabled else []
    changed = [
        network
        for network in networks
        if getattr(network, "_supports_gradient_checkpointing", False) and not network.is_gradient_checkpointing
    ]
    for network in changed:
        network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for network in changed:
            network.disable_gradient_checkpointing()


def map_prediction(function: Callable[[Tensor], Tensor], prediction: Prediction) -> Prediction:
    """Apply a function to each tensor of a prediction."""
    x0, eps, spread = prediction
    return Prediction(function(x0), function(eps), None if spread is None else function(spread))


def _concatenate(predictions: Sequence[Prediction]) -> Prediction:
    if len(predictions) == 1:
        return predictions[0]
    x0, eps, spread = zip(*predictions, strict=True)
    return Prediction(torch.cat(x0), torch.cat(eps), None if spread[0] is None else torch.cat(spread))
