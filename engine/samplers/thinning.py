"""Many beginnings, one end: states that the prior draws unguided and that grow fewer, until guidance finishes the last.

What an image is about is settled early, while the score of a blurred prediction has hardly a gradient: no push turns a
lawn into a brick wall. So a sample may begin as many states of the prior. At a few levels their predicted clean images
are scored, and half as many are drawn by their weights: those of twisted sequential Monte Carlo (Wu et al. 2023, arXiv
2306.17775) with the prior's own steps as proposal and the twist exp(beta_t s), beta_t = beta abar_t^tempering. Every
choice draws towards p exp(beta_t s); as the last ones are between few, the law stays on the prior's side of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior, Prediction
from engine.samplers.base import Score
from engine.samplers.look import Observer
from engine.samplers.memory import Pieces
from engine.samplers.resampling import systematic


@dataclass(frozen=True)
class Thinning:
    """How many states a sample begins as, and how they are chosen.

    Raises
    ------
    BlindspotError
        For settings that make no sense.
    """

    beta: float
    """Inverse temperature of the choice, in units of one over the score's; 0 chooses at random."""
    states: int = 32
    """States of a sample at the start, halved until one is left; 1 chooses nothing."""
    span: tuple[float, float] = (0.2, 0.5)
    """Where on the way, from noise (0) to image (1), states are first and last halved."""
    tempering: float = 0.5
    """How late the choice gets sharp, as in `EnergySMC.tempering`."""
    at_once: int = 4
    """States of a sample that are denoised in one go: fewer are slower and need less memory, more are hardly faster."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.beta) or self.states < 1 or self.tempering < 0 or self.at_once < 1:
            raise BlindspotError(
                f"Thinning {self.states} states, {self.at_once} at once, with beta {self.beta:g} and tempering "
                f"{self.tempering:g} makes no sense: at least 1 state, a finite beta and a tempering of at least 0."
            )
        if not 0 < self.span[0] <= self.span[1] < 1:
            raise BlindspotError(f"States are halved between 0 and 1 of the way, not in {self.span}.")

    def halvings(self, steps: int) -> dict[int, int]:
        """Step to the number of states that are left from it on, ending with 1 before the last guided step."""
        rounds = math.ceil(math.log2(self.states))
        first, last = (max(1, round(share * steps)) for share in self.span)
        places = torch.linspace(first, max(first, last), rounds).round().int().tolist()
        latest = max(min(1, steps - 1), steps - 2)
        return {min(place, latest): math.ceil(self.states / 2 ** (i + 1)) for i, place in enumerate(places)}


class Crowd:
    """The states of n samples, on their way to one each.

    Parameters
    ----------
    prior, score
        Whose samples are chosen, and by what.
    thinning
        How.
    generators
        One for each sample; all that happens to a sample is drawn from its own.
    bf16
        Denoise in bfloat16; scores are in full precision all the same.
    together
        Samples that go in one go, None for all; see `EnergyDPS.together`.
    """

    def __init__(
        self,
        prior: DiffusionPrior,
        score: Score,
        thinning: Thinning,
        generators: list[torch.Generator],
        bf16: bool = False,
        together: int | None = 1,
    ):
        self.prior, self.thinning, self.generators, self.count = prior, thinning, generators, thinning.states
        self.together = together or len(generators)
        self.pieces = Pieces(self.together * self.count, self.together * thinning.at_once)
        self.observer = Observer(prior, score, bf16=bf16, pieces=self.pieces)
        self.state = prior.noise(self._each())
        self.log_twist = self.state.new_zeros(len(generators), self.count)

    @torch.no_grad()
    def walk(self, levels: list[int], seen: Callable[[int, Tensor], None]) -> int:
        """Go on until one state of each sample is left, `state` [n, *shape]; returns the index of its level.

        Parameters
        ----------
        levels
            Noise levels from the start to the clean image, -1.
        seen
            Hears, at each step, of the index to which it leads and of a prediction for each sample [n, *shape].
        """
        halvings, index = self.thinning.halvings(len(levels) - 1), 0
        while self.count > 1:
            predicted = self.observer.denoise(self.state, levels[index])
            if index in halvings:
                predicted = self._thin(predicted, levels[index], halvings[index])
                if self.count == 1:
                    break
            self.state = self.prior.step(predicted, levels[index], levels[index + 1], self.state, self._each())
            index += 1
            seen(index, predicted.x0[:: self.count])
        return index

    def _thin(self, predicted: Prediction, t: int, count: int) -> Prediction:
        """Draw `count` states of each sample by their weights; the predictions for those."""
        _, scores = self.observer.finish(predicted.x0)
        fine = scores.view(self.log_twist.shape).isfinite().all(dim=1)
        if not fine.all():
            raise BlindspotError(
                f"The score of sample {int((~fine).nonzero()[0]) + 1} is no finite number at noise level {t}, where "
                "its states are chosen: check the score and the prior."
            )
        twist = self.thinning.beta * self.prior.schedule.signal(t) ** self.thinning.tempering
        log_twist = twist * scores.view(self.log_twist.shape)
        offsets = torch.stack([torch.rand((), generator=generator) for generator in self.generators])
        kept = systematic(log_twist - self.log_twist, offsets.to(log_twist.device), count)
        rows = (kept + self.count * torch.arange(len(kept), device=kept.device)[:, None]).flatten()
        self.state, self.log_twist, self.count = self.state[rows], log_twist.gather(1, kept), count
        self.pieces.group = self.together * count
        return Prediction(*(None if part is None else part[rows] for part in predicted))

    def _each(self) -> list[torch.Generator]:
        return [generator for generator in self.generators for _ in range(self.count)]
