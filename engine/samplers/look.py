"""What a noisy state is going to show: its predicted clean image, that image's score, and the score's gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.errors import BlindspotError
from engine.priors.base import Prediction, Prior
from engine.samplers.base import Score
from engine.samplers.memory import Pieces

GUIDANCES = ("full", "light")


class Look(NamedTuple):
    """What one denoising step shows; nothing in it carries a graph."""

    prediction: Prediction
    images: Tensor
    """[n, 3, H, W], the predicted clean images."""
    scores: Tensor
    """[n]."""
    gradient: Tensor | None
    """[n, *shape], the score's gradient; None when it was not asked for."""

    def rows(self, index: Tensor) -> Look:
        """The looks at the states of these rows."""
        prediction = Prediction(*(part if part is None else part[index] for part in self.prediction))
        gradient = self.gradient if self.gradient is None else self.gradient[index]
        return Look(prediction, self.images[index], self.scores[index], gradient)


class Observer:
    """Looks at states through a prior and a score, in smaller batches once memory has run out.

    Parameters
    ----------
    prior, score
        The denoiser and what its predictions are scored by.
    guidance
        `full`: gradients with respect to the noisy state, back through the denoiser; `light`: with respect to the
        predicted clean state.
    bf16
        Compute in bfloat16 where autocast finds it safe; states, scores and gradients stay float32.
    checkpointing
        Recompute activations on the way back: less memory, about a third more time.
    pieces
        Which states are looked at together; each for itself when None.
    """

    def __init__(
        self,
        prior: Prior,
        score: Score,
        guidance: str = "full",
        bf16: bool = False,
        checkpointing: bool = False,
        pieces: Pieces | None = None,
    ):
        self.prior, self.score, self.guidance = prior, score, guidance
        self.bf16, self.checkpointing = bf16, checkpointing
        self.pieces = pieces or Pieces(group=1)

    def look(self, state: Tensor, t: int, guided: bool) -> Look:
        """Denoise, decode and score states [n, *shape] at level t; with the gradient if guided."""
        with checkpointed(self.prior, self.checkpointing and guided):
            return _joined(self.pieces.map(lambda part: self._look(part, t, guided), state))

    @torch.no_grad()
    def denoise(self, state: Tensor, t: int) -> Prediction:
        """Predictions for states [n, *shape] at level t, not looked at."""
        return joined(self.pieces.map(lambda part: self._denoise(part, t), state))

    def finish(self, state: Tensor, score: Score | None = None) -> tuple[Tensor, Tensor]:
        """Images [n, 3, H, W] and scores [n] of clean states, in full precision, by this or the observer's score."""
        with torch.no_grad():
            images = torch.cat(self.pieces.map(self.prior.decode, state))
            return images, torch.cat(self.pieces.map(score or self.score, images)).float()

    def _denoise(self, state: Tensor, t: int) -> Prediction:
        with self._precision(state):
            return self.prior.denoise(state, t)

    def _look(self, state: Tensor, t: int, guided: bool) -> Look:
        light = guided and self.guidance == "light"
        with self._precision(state):
            with torch.set_grad_enabled(guided and not light):
                variable = state.detach().requires_grad_(guided)
                prediction = self.prior.denoise(variable, t)
            if light:
                variable = prediction.x0.detach().requires_grad_()
                prediction = prediction._replace(x0=variable)
            with torch.set_grad_enabled(guided):
                images = self._kept(self.prior.decode, prediction.x0)
                scores = self._kept(self.score, images).float()
        gradient = torch.autograd.grad(scores.sum(), variable)[0] if guided else None
        calm = Prediction(*(part if part is None else part.detach() for part in prediction))
        return Look(calm, images.detach(), scores.detach(), gradient)

    def _precision(self, state: Tensor) -> torch.autocast:
        return torch.autocast(state.device.type, torch.bfloat16, enabled=self.bf16)

    def _kept(self, function: Callable[[Tensor], Tensor], part: Tensor) -> Tensor:
        """A function's result, whose activations are kept for the way back or, checkpointed, made again there."""
        if self.checkpointing and part.requires_grad:
            return checkpoint(function, part, use_reentrant=False)
        return function(part)


@contextmanager
def checkpointed(prior: Prior, wanted: bool) -> Iterator[None]:
    """Let a prior's diffusers networks recompute their blocks' activations, then leave them as they were."""
    networks = [part for part in vars(prior).values() if isinstance(part, nn.Module)] if wanted else []
    changed: list[Any] = [
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


def require_finite(state: Tensor, scores: Tensor, when: str, remedy: str) -> None:
    """Stop at the first number that is not one.

    Parameters
    ----------
    state, scores
        [n, *shape] and [n].
    when, remedy
        Ends of the two halves of the sentence.

    Raises
    ------
    BlindspotError
        If a sample is infinite or not a number.
    """
    fine = state.flatten(1).isfinite().all(dim=1) & scores.isfinite()
    if not fine.all():
        raise BlindspotError(f"Sample {int((~fine).nonzero()[0]) + 1} became infinite {when}: {remedy}.")


def _joined(looks: list[Look]) -> Look:
    """The looks at the pieces of a batch as one."""
    if len(looks) == 1:
        return looks[0]
    predictions, *others = zip(*looks, strict=True)
    return Look(joined(predictions), *map(_join, others))


def joined(predictions: Sequence[Prediction]) -> Prediction:
    """The predictions for the pieces of a batch as one."""
    return predictions[0] if len(predictions) == 1 else Prediction(*map(_join, zip(*predictions, strict=True)))


def _join(parts: Sequence[Tensor | None]) -> Tensor | None:
    return None if parts[0] is None else torch.cat(parts)
