"""Members of an invariant set behind an atlas: IS(x*) = {x : f(x) = f(x*)}, drawn through its prior.

Each member starts as a guided sample of the prior that answers nearly as f(x*), is noised to a middle level and led
onto the set by Gauss-Newton there, and walks along it (`engine.invariance.blocks`). `method="descent"` is the thesis's
Algorithm 1 instead ("EquiDiff", Sadlej 2025), through all steps of the sampler from draws of the prior's noise.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from engine.errors import BlindspotError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from engine.atlas.reader import Atlas
    from engine.invariance.generator import DeterministicGenerator
    from engine.invariance.targets import Target
    from engine.priors.base import DiffusionPrior
    from engine.samplers.base import StepEvent
    from engine.samplers.models import ModelBundle

METHODS = ("walk", "projection", "descent")
MAX_MEMBERS, MAX_STEPS = 256, 250
START_STEPS, START_STRENGTH, START_CANDIDATES = 25, 0.6, 16
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
CUTOFFS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the low-pass filters of a member's response curve, as shares of the Nyquist frequency."""
REFERENCES, NAMED = 96, 8
"""Real images whose concepts the members' are compared with, and how many concepts of each group are named."""

OnProgress = Callable[[int, int, "Tensor | None"], bool | None]
"""Called with the steps done, all steps, and images to show; returning False ends the search."""


@dataclass(frozen=True)
class InvariantRequest:
    """Which members to draw.

    Raises
    ------
    BlindspotError
        For what makes no sense.
    """

    target: str
    """Words for f, see `engine.invariance.parsing.FORMS`."""
    image: int | None = None
    """Query x*: an image of the atlas."""
    values: tuple[float, ...] = ()
    """f(x*) as numbers, where there is no query."""
    count: int = 4
    """How many members."""
    seed: int = 0
    steps: int = 10
    """Steps of the ODE sampler, were it to start from pure noise."""
    signal: float = 0.7
    """Share of variance that is signal at the level where members are led onto the set and walk; `descent` starts from
    pure noise."""
    method: str = "walk"
    """One of `METHODS`."""
    tolerance: float = 0.01
    """Largest |f(x) - f(x*)| of a member, as a share of |f(x*)|."""
    walk_steps: int = 2
    """Steps along the set, after a member was found."""
    iterations: int = 16
    """Most Gauss-Newton steps; of the descent 32 times as many."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BlindspotError(f"There is no method {self.method!r}: choose one of {', '.join(METHODS)}.")
        if not 1 <= self.count <= MAX_MEMBERS:
            raise BlindspotError(f"{self.count} members were asked for: ask for 1 to {MAX_MEMBERS}.")
        if not 1 <= self.steps <= MAX_STEPS:
            raise BlindspotError(f"The sampler cannot go {self.steps} steps: choose 1 to {MAX_STEPS}.")
        if not 0 <= self.signal < 1:
            raise BlindspotError(f"A level with a signal of {self.signal:g} makes no sense: choose 0 up to below 1.")
        if self.seed < 0:
            raise BlindspotError(f"The seed {self.seed} is negative: choose 0 or more.")
        if not (math.isfinite(self.tolerance) and 0 < self.tolerance < 1):
            raise BlindspotError(f"The tolerance {self.tolerance} is no share between 0 and 1.")
        if not 0 <= self.walk_steps <= 1000 or not 1 <= self.iterations <= 1000:
            raise BlindspotError("Choose 0 to 1000 steps of the walk and 1 to 1000 iterations.")
        if (self.image is None) == (not self.values):
            raise BlindspotError("Give either a query image or the values to reach, not both.")


class Member(NamedTuple):
    """One image of an invariant set."""

    responses: tuple[float, ...]
    """f(x)."""
    residual: float
    """|f(x) - f(x*)|."""
    converged: bool
    """Whether that is within the tolerance."""
    curve: tuple[float, ...]
    """|f(low-pass(x)) - f(x*)| / |f(x*)| at each of `CUTOFFS`."""


class InvariantResult(NamedTuple):
    """Members of an invariant set, and what finding them took."""

    request: InvariantRequest
    images: Tensor
    """[n, 3, height, width] in [0, 1]."""
    names: tuple[str, ...]
    """Of the responses."""
    wanted: tuple[float, ...]
    """f(x*)."""
    members: tuple[Member, ...]
    evaluations: int
    """Evaluations of the prior's network, those of backward passes included."""
    acceptance: float | None
    """Share of the walk's steps that were taken."""
    varies: Any
    """Which concepts vary most and least among the members (`engine.invariance.members`), or None."""
    seconds: float
    query_curve: tuple[float, ...] | None = None
    """The query's own curve at the members' size, as `Member.curve`; None without a query."""

    def record(self) -> dict[str, Any]:
        """Everything but the images, as JSON."""
        return {
            "request": asdict(self.request),
            "images": [f"{number:02d}.png" for number in range(len(self.members))],
            "responses": list(self.names),
            "wanted": list(self.wanted),
            "cutoffs": list(CUTOFFS),
            "members": [member._asdict() for member in self.members],
            "query_curve": self.query_curve,
            "evaluations": self.evaluations,
            "acceptance": self.acceptance,
            "varies": self.varies,
            "seconds": round(self.seconds, 3),
        }


def sample_invariants(
    atlas: Atlas,
    request: InvariantRequest,
    device: str | None = None,
    on_progress: OnProgress | None = None,
    download: bool = False,
) -> InvariantResult:
    """Draw images that give the same response as a query image.

    Parameters
    ----------
    atlas
        An open atlas with a prior; its models are loaded once per process.
    request
        What to hold constant, and how many members to draw.
    device
        "cpu", "cuda" ...; None takes the GPU if there is one.
    on_progress
        Called after every step; may cancel.
    download
        Whether a classifier that the target names may be fetched from the hub.

    Raises
    ------
    BlindspotError
        If the query or the target does not exist, has no gradient, or nothing in the prior's reach has the response.
    Cancelled
        If `on_progress` returned False.
    """
    from engine.invariance.parsing import parse_target
    from engine.samplers.models import ModelBundle, thumbnails

    began, spec = time.perf_counter(), parse_target(request.target)
    models = ModelBundle(atlas, device)
    query = None
    if request.image is not None:
        if not 0 <= request.image < len(atlas.images):
            raise BlindspotError(f"There is no image {request.image}: choose from 0 to {len(atlas.images) - 1}.")
        query = thumbnails(atlas, [request.image], models.encoder.spec).to(models.device)
    target = spec.build(models, query, download)
    wanted = target.target_of(query) if query is not None else target.value(request.values)
    search = _Search(models, target, wanted.to(models.device), request, on_progress)
    images, acceptance = search.run()
    images = (images * 255).round() / 255  # what a file holds: responses are said of that
    members = tuple(_members(target, images.to(models.device), search.wanted, request.tolerance))
    if not any(member.converged for member in members):
        nearest = min(member.residual for member in members)
        raise BlindspotError(
            f"No image was found whose response {target} is {_short(search.wanted)}; the nearest misses it by "
            f"{nearest:.3g}: choose another query, a larger tolerance or more iterations."
        )
    own = None if query is None else _own_curve(target, query, models.prior.image_size)
    return InvariantResult(
        request, images, target.names, tuple(search.wanted.tolist()), members,
        search.evaluations, acceptance, _what_varies(models, atlas, images), time.perf_counter() - began, own,
    )  # fmt: skip


class _Search:
    """Draws members in groups that share a kernel: one by one on a CPU, where threads share them."""

    def __init__(
        self,
        models: ModelBundle,
        target: Target,
        wanted: Tensor,
        request: InvariantRequest,
        on_progress: OnProgress | None,
    ):
        from engine.invariance.levelset import DENSE

        self.prior, self.target, self.wanted, self.request = models.prior, target, wanted, request
        self.scale = float(wanted.norm()) or 1.0
        self.on_progress, self.evaluations = on_progress, 0
        self.walks = request.walk_steps if request.method == "walk" and len(wanted) <= DENSE else 0
        self.each = START_STEPS + request.iterations + self.walks
        if request.method == "descent":
            self.each = 32 * request.iterations
        self._lock, self._done, self._acceptance = threading.Lock(), {}, []  # type: ignore[var-annotated]
        self._shown: dict[int, Tensor] = {}

    def run(self) -> tuple[Tensor, float | None]:
        """Images of members, or of what came nearest, and the share of walk steps that were taken."""
        import torch

        from engine.samplers.execution import parallel_map, samples_together

        count = self.request.count
        group = samples_together("auto", self.prior.device) or count
        firsts = range(0, count, group)
        parts = parallel_map(lambda first: self._group(first, min(group, count - first)), firsts)
        rates = self._acceptance
        return torch.cat(parts).cpu(), sum(rates) / len(rates) if rates else None

    def _group(self, first: int, n: int) -> Tensor:
        """Images of members first .. first + n - 1, which no other group changes."""
        import torch

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
        import torch

        from engine.invariance.blocks import NoiseLevelSet, walk_in_blocks
        from engine.invariance.levelset import project

        n, request = len(rows), self.request
        clean = self._starts(first, n, attempt)
        generator = self._generator(request.signal)
        level = NoiseLevelSet(generator, self._seen(first), self.wanted, clean)
        noise = torch.randn(n, *self.prior.shape, generator=random).to(clean)
        tolerance = min(PRECISION, request.tolerance / 2) * self.scale
        reached = project(
            level, noise, tolerance, request.iterations,
            on_iteration=partial(self._report, first, START_STEPS),
        )  # fmt: skip
        latents, found = reached.latents, reached.converged
        if self.walks and found.any():
            inside = NoiseLevelSet(generator, self._seen(first), self.wanted, clean[found])
            walked = walk_in_blocks(
                inside, latents[found], self.walks, random, angle=ANGLE, tolerance=tolerance,
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

    def _starts(self, first: int, n: int, attempt: int) -> Tensor:
        """Clean states of guided samples whose response is near the target."""
        from engine.invariance.generator import CountedPrior
        from engine.samplers.candidates import CandidateSelection
        from engine.samplers.energy_dps import EnergyDPS

        counted = CountedPrior(self.prior)
        sampler = EnergyDPS(
            cast("DiffusionPrior", counted), START_STEPS, START_STRENGTH, score_cap=-START_WIDTH,
            selection=CandidateSelection(SELECTION_BETA, START_CANDIDATES),
        )  # fmt: skip

        def nearness(images: Tensor) -> Tensor:
            return -(self.target(images) - self.wanted).norm(dim=1) / self.scale

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
        import torch

        from engine.invariance.levelset import LevelSet, descend

        generator = self._generator(0.0)
        seen = self._seen(first)
        level = LevelSet(lambda latents: seen(generator(latents)), self.wanted)
        noise = generator.noise(self.request.seed, first + n)[first:]
        reached = descend(
            level, noise, threshold=(self.request.tolerance * self.scale) ** 2, steps=self.each, keep_norm=True,
            scale=1 / self.scale**2, on_iteration=partial(self._report, first, 0),
        )  # fmt: skip
        with torch.no_grad():
            images = generator(reached.latents)
        with self._lock:
            self.evaluations += generator.evaluations + generator.recomputed
        return images

    def _generator(self, signal: float) -> DeterministicGenerator:
        from engine.invariance.generator import DeterministicGenerator

        return DeterministicGenerator(
            self.prior, self.request.steps, checkpointing=self.request.steps > KEPT_STEPS, signal=signal
        )

    def _seen(self, first: int) -> Callable[[Tensor], Tensor]:
        """The target, remembering the images it was last asked for."""

        def respond(images: Tensor) -> Tensor:
            self._shown[first] = images.detach()
            return self.target(images)

        return respond

    def _report(
        self, first: int, before: int, done: int, total: int, residuals: Tensor, images: Tensor | None = None
    ) -> bool:
        """Tell the progress of all groups; raises `Cancelled` when that is answered by False."""
        from engine.jobs import Cancelled

        with self._lock:
            self._done[first] = max(before + done, self._done.get(first, 0))
            if images is not None:
                self._shown[first] = images
            groups = -(-self.request.count // max(1, len(residuals)))
            shown = self._previews()
            done, total = sum(self._done.values()), self.each * max(groups, len(self._done))
            if self.on_progress is not None and self.on_progress(min(done, total), total, shown) is False:
                raise Cancelled
        return True

    def _previews(self) -> Tensor | None:
        import torch

        return torch.cat([self._shown[first].cpu() for first in sorted(self._shown)]) if self._shown else None


def _members(target: Target, images: Tensor, wanted: Tensor, tolerance: float) -> list[Member]:
    import torch

    from engine.invariance.filters import LowPass

    scale = float(wanted.norm()) or 1.0

    def responses(pictures: Tensor) -> Tensor:
        return torch.cat([target(part) for part in pictures.split(4)])

    with torch.no_grad():
        found = responses(images)
        filtered = [responses(LowPass("ideal", cutoff)(images)) for cutoff in CUTOFFS]
    curves = torch.stack([(each - wanted).norm(dim=1) / scale for each in filtered], dim=1)
    return [
        Member(tuple(row.tolist()), float(distance), bool(distance <= tolerance * scale), tuple(curve.tolist()))
        for row, distance, curve in zip(found, (found - wanted).norm(dim=1), curves, strict=True)
    ]


def _own_curve(target: Target, query: Tensor, size: int) -> tuple[float, ...]:
    """How much a query's own response changes after the filters, once the query has the members' size."""
    import torch
    from torch.nn.functional import interpolate

    if query.shape[-1] != size:
        query = interpolate(query, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        wanted = target(query)[0]
    return _members(target, query, wanted, 1.0)[0].curve


def _what_varies(models: ModelBundle, atlas: Atlas, images: Tensor) -> Any:
    """Concepts that vary most and least among members, beside real images; None where that cannot be said."""
    import torch

    from engine.invariance.members import FEWEST_MEMBERS, what_varies
    from engine.invariance.targets import image_codes
    from engine.samplers.models import real_images, thumbnails

    if len(images) < FEWEST_MEMBERS:
        return None
    encoder, dictionary = models.encoder, models.dictionary

    def codes(pictures: Tensor) -> np.ndarray:
        parts = [image_codes(encoder, dictionary, part.to(models.device)) for part in pictures.split(32)]
        return torch.cat(parts).cpu().numpy()

    with torch.no_grad():
        reference = codes(thumbnails(atlas, real_images(atlas, REFERENCES), encoder.spec))
        found = what_varies(codes(images), reference, atlas.concepts["label"].tolist(), NAMED)
    if found is None:
        return None
    return {group: [spread._asdict() for spread in rows] for group, rows in found._asdict().items()}


def _short(values: Tensor) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:3].tolist())
    return shown if len(values) <= 3 else f"{shown} and {len(values) - 3} more"
