"""The search for members: guided starts, Gauss-Newton at a middle noise level, and the walk, in groups of a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from engine.invariance.blocks import NoiseLevelSet
from engine.invariance.filters import Filtered, parse_low_pass
from engine.invariance.generator import CountedPrior, DeterministicGenerator
from engine.invariance.levelset import DENSE, LevelSet, descend, project
from engine.invariance.walk import walk
from engine.jobs import Cancelled
from engine.samplers.candidates import CandidateSelection
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.execution import parallel_map, samples_together

if TYPE_CHECKING:
    from engine.invariance.request import InvariantRequest
    from engine.invariance.targets import Target
    from engine.priors.base import DiffusionPrior
    from engine.samplers.base import StepEvent
    from engine.samplers.models import ModelBundle

START_STEPS, START_STRENGTH, START_CANDIDATES, START_APPROACH = 25, 0.6, 8, 3
"""Of the guided sample that a member starts from."""
START_WIDTH = 0.05
"""How near a start comes, as a share of |f(x*)|, before it is no longer guided."""
SELECTION_BETA = 8.0
"""Sharpness of the selection among a start's candidates, per |f(x*)|."""
PRECISION = 2e-4
"""Distance from the set, as a share of |f(x*)|, at which a walk's steps can be run backwards."""
ANGLE = 0.25
"""Length of a walk's step: about two in three are taken."""
KEPT_STEPS = 10
"""Steps of the sampler up to which its activations are kept for the backward pass instead of computed again."""
TRIES = 3
"""Starts of a member, one after the other, until one reaches the set."""
OnProgress = Callable[[int, int, "Tensor | None"], bool | None]
"""Called with the steps done, all steps, and images to show; returning False ends the search."""


class MemberSearch:
    """Draws members in groups that share a kernel: one by one on a CPU, where threads share them.

    Where a request names low-pass filters, the responses to the filtered images are held at f(x*) too.
    """

    def __init__(
        self,
        models: ModelBundle,
        target: Target,
        wanted: Tensor,
        request: InvariantRequest,
        on_progress: OnProgress | None,
    ):
        self.prior, self.target, self.wanted, self.request = models.prior, target, wanted, request
        self.scale = float(wanted.norm()) or 1.0
        self.filtered, self.plain = Filtered(target, *parse_low_pass(request.low_pass)), Filtered(target)
        self.on_progress, self.evaluations = on_progress, 0
        self.walks = request.walk_steps if request.method == "walk" and len(wanted) <= DENSE else 0
        self.each = START_STEPS + request.iterations + self.walks
        if request.method == "descent":
            self.each = 32 * request.iterations
        self._lock, self._done, self._acceptance = threading.Lock(), {}, []  # type: ignore[var-annotated]
        self._shown: dict[int, Tensor] = {}
        self._stopped = False

    def run(self) -> tuple[Tensor, float | None]:
        """Images of members, or of what came nearest, and the share of walk steps that were taken."""
        count = self.request.count
        group = samples_together("auto", self.prior.device) or count
        firsts = range(0, count, group)
        try:
            parts = parallel_map(lambda first: self._group(first, min(group, count - first)), firsts)
        except BaseException:
            self._stopped = True  # other threads end at their next step
            raise
        rates = self._acceptance
        return torch.cat(parts).cpu(), sum(rates) / len(rates) if rates else None

    def _group(self, first: int, n: int) -> Tensor:
        """Images of members first .. first + n - 1, which no other group changes."""
        random = torch.Generator("cpu").manual_seed(self.request.seed * 1_000_003 + first)
        if self.request.method == "descent":
            return self._descend(first, n)
        best: Tensor | None = None
        left = torch.arange(n, device=self.wanted.device)
        for attempt in range(TRIES):
            images, residuals = self._attempt(first, left, attempt, random)
            if best is None:
                best, off = images, residuals
            else:
                better = residuals < off[left]
                best[left[better]], off[left[better]] = images[better], residuals[better]
            left = (off > self.request.tolerance * self.scale).nonzero().flatten()
            if not len(left):
                break
        assert best is not None
        return best

    def _attempt(self, first: int, rows: Tensor, attempt: int, random: Any) -> tuple[Tensor, Tensor]:
        """Images of these members of the group, and how far their responses are from the target."""
        n, request = len(rows), self.request
        held = self._held(attempt)
        goal, seen = held.target(self.wanted), self._seen(first, held)
        clean = self._starts(first, n, attempt, held)
        generator = self._generator(request.signal)
        level = NoiseLevelSet(generator, seen, goal, clean)
        noise = torch.randn(n, *self.prior.shape, generator=random).to(clean)
        tolerance = min(PRECISION, request.tolerance / 2) * self.scale
        reached = project(
            level, noise, tolerance, request.iterations,
            on_iteration=partial(self._report, first, START_STEPS),
        )  # fmt: skip
        latents, found = reached.latents, reached.converged
        if self.walks and len(goal) <= DENSE and found.any():
            inside = NoiseLevelSet(generator, seen, goal, clean[found])
            walked = walk(
                inside, latents[found], self.walks, random, angle=ANGLE, tolerance=tolerance, refresh=inside.refresh,
                on_iteration=partial(self._report, first, START_STEPS + request.iterations),
            )  # fmt: skip
            assert inside.context is not None
            latents[found], clean[found] = walked.latents, inside.context
            with self._lock:
                self._acceptance.append(walked.acceptance)
        with torch.no_grad():
            images = generator(level.states(latents, clean))
            residuals = (self.target(images) - self.wanted).norm(dim=1)
        with self._lock:
            self.evaluations += generator.evaluations + generator.recomputed
        return images, residuals

    def _held(self, attempt: int) -> Filtered:
        """What is held constant in a try: f after the filters too, or f alone where `auto` gives them up."""
        automatic, descends = self.request.low_pass == "auto", self.request.method == "descent"
        last = attempt == TRIES - 1
        return self.plain if automatic and (last or descends or self._too_many_to_walk()) else self.filtered

    def _too_many_to_walk(self) -> bool:
        """Whether a walk could hold the responses, but not those to the filtered images besides."""
        return len(self.wanted) <= DENSE < len(self.filtered.target(self.wanted))

    def _starts(self, first: int, n: int, attempt: int, held: Filtered) -> Tensor:
        """Clean states of guided samples whose response is near the target."""
        counted = CountedPrior(self.prior)
        sampler = EnergyDPS(
            cast("DiffusionPrior", counted), START_STEPS, START_STRENGTH, score_cap=-START_WIDTH,
            selection=CandidateSelection(SELECTION_BETA, START_CANDIDATES, approach=START_APPROACH),
        )  # fmt: skip
        goal = held.target(self.wanted)

        def nearness(images: Tensor) -> Tensor:
            return -(held(images) - goal).norm(dim=1) / float(goal.norm() or 1.0)

        def on_step(event: StepEvent) -> bool:
            self._report(first, 0, event.step, event.steps, -event.scores, event.images)
            return True

        seed = self.request.seed + attempt * 1_000_003
        states = sampler.sample(nearness, n, seed, on_step, first).states
        assert states is not None
        with self._lock:
            self.evaluations += counted.evaluations
        return states

    def _descend(self, first: int, n: int) -> Tensor:
        generator, request = self._generator(0.0), self.request
        held = self._held(0)
        seen = self._seen(first, held)
        level = LevelSet(lambda latents: seen(generator(latents)), held.target(self.wanted))
        noise = generator.noise(request.seed, first + n)[first:]
        reached = descend(
            level, noise, threshold=(request.tolerance * self.scale) ** 2, steps=self.each,
            keep_norm=request.keep_norm, optimiser=request.optimiser, learning_rate=request.learning_rate,
            on_iteration=partial(self._report, first, 0),
        )  # fmt: skip
        with torch.no_grad():
            images = generator(reached.latents)
        with self._lock:
            self.evaluations += generator.evaluations + generator.recomputed
        return images

    def _generator(self, signal: float) -> DeterministicGenerator:
        return DeterministicGenerator(
            self.prior, self.request.steps, checkpointing=self.request.steps > KEPT_STEPS, signal=signal
        )

    def _seen(self, first: int, held: Filtered) -> Callable[[Tensor], Tensor]:
        """What is held constant, remembering the images it was last asked for."""

        def respond(images: Tensor) -> Tensor:
            self._shown[first] = images.detach()
            return held(images)

        return respond

    def _report(
        self, first: int, before: int, done: int, total: int, residuals: Tensor, images: Tensor | None = None
    ) -> bool:
        """Tell the progress of all groups; raises `Cancelled` when that is answered by False."""
        with self._lock:
            self._done[first] = max(before + done, self._done.get(first, 0))
            if images is not None:
                self._shown[first] = images
            groups = -(-self.request.count // max(1, len(residuals)))
            shown = self._previews()
            done, total = sum(self._done.values()), self.each * max(groups, len(self._done))
            goes_on = self.on_progress is None or self.on_progress(min(done, total), total, shown) is not False
            if self._stopped or not goes_on:
                raise Cancelled
        return True

    def _previews(self) -> Tensor | None:
        return torch.cat([self._shown[first].cpu() for first in sorted(self._shown)]) if self._shown else None
