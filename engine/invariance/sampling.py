"""Members of an invariant set behind an atlas: IS(x*) = {x : f(x) = f(x*)}, drawn through its prior.

Each member starts as a guided sample of the prior that answers nearly as f(x*), is noised to a middle level and led
onto the set by Gauss-Newton there, and walks along it (`engine.invariance.blocks`). `method="descent"` is the thesis's
Algorithm 1 instead ("EquiDiff", Sadlej 2025), through all steps of the sampler from draws of the prior's noise.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import BlindspotError
from engine.invariance.request import InvariantRequest

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from engine.atlas.reader import Atlas
    from engine.invariance.search import OnProgress
    from engine.invariance.targets import Target
    from engine.samplers.models import ModelBundle

CUTOFFS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the low-pass filters of a member's response curve, as shares of the Nyquist frequency."""
REFERENCES, NAMED = 96, 8
"""Real images whose concepts the members' are compared with, and how many concepts of each group are named."""


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
    chosen: tuple[int, ...] = ()
    """Members that differ most by the atlas's encoder, as many as were asked for and found."""

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
            "chosen": list(self.chosen),
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
    from engine.samplers.models import ModelBundle

    result = find_members(ModelBundle(atlas, device), request, on_progress, download)
    if not any(member.converged for member in result.members):
        nearest = min(member.residual for member in result.members)
        what = result.names[0] if len(result.names) == 1 else request.target
        raise BlindspotError(
            f"No image was found whose response {what} is {_short(result.wanted)}; the nearest misses it by "
            f"{nearest:.3g}: choose another query, a larger tolerance or more iterations."
        )
    return result


def find_members(
    models: ModelBundle, request: InvariantRequest, on_progress: OnProgress | None = None, download: bool = False
) -> InvariantResult:
    """Search as `sample_invariants` does, and return what was found even where no image is a member."""
    from engine.invariance.filters import parse_low_pass
    from engine.invariance.parsing import check_request, parse_target
    from engine.invariance.search import MemberSearch
    from engine.samplers.models import thumbnails

    check_request(models.atlas, request)
    parse_low_pass(request.low_pass)  # before models are loaded
    began, spec, atlas = time.perf_counter(), parse_target(request.target), models.atlas
    query = None
    if request.image is not None:
        query = thumbnails(atlas, [request.image], models.encoder.spec).to(models.device)
    target = spec.build(models, query, download)
    wanted = target.target_of(query) if query is not None else target.value(request.values)
    search = MemberSearch(models, target, wanted.to(models.device), request, on_progress)
    images, acceptance = search.run()
    images = (images * 255).round() / 255  # what a file holds: responses are said of that
    members = tuple(_members(target, images.to(models.device), search.wanted, request.tolerance))
    own = None if query is None else _own_curve(target, query, models.prior.image_size)
    return InvariantResult(
        request, images, target.names, tuple(search.wanted.tolist()), members,
        search.evaluations, acceptance, _what_varies(models, atlas, images), time.perf_counter() - began, own,
        _chosen(models, images, members, request),
    )  # fmt: skip


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


def _chosen(
    models: ModelBundle, images: Tensor, members: tuple[Member, ...], request: InvariantRequest
) -> tuple[int, ...]:
    """Members within the tolerance that differ most, by the class token of the atlas's encoder."""
    import numpy as np

    from engine.invariance.members import farthest_first, k_dpp, similarity
    from engine.samplers.metrics import embed

    found = np.flatnonzero([member.converged for member in members])
    count = min(request.choose, len(found))
    if not count:
        return ()
    embeddings = embed(models.encoder, images[found].to(models.device))
    if request.choice == "k-dpp":
        rows = k_dpp(similarity(embeddings), count, request.seed)
    else:
        rows = farthest_first(embeddings, count)
    return tuple(found[rows].tolist())


def _short(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:3])
    return shown if len(values) <= 3 else f"{shown} and {len(values) - 3} more"
