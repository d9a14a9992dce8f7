"""Targets by the words that name them on the command line and in the app."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float

from engine.errors import BlindspotError

if TYPE_CHECKING:
    from torch import Tensor

    from engine.atlas.reader import Atlas
    from engine.invariance.request import InvariantRequest
    from engine.invariance.targets import Target
    from engine.samplers.models import ModelBundle

FORMS = {
    "concept": ("concept:54 or concept:54,60", r"(?P<concepts>\d{1,9}(,\d{1,9})*)"),
    "code": ("code:54@12", r"(?P<concepts>\d{1,9})@(?P<token>\d{1,9})"),
    "codes": ("codes or codes:all", r"(?P<everything>all)?"),
    "neuron": (
        "neuron:LAYER:CHANNEL or neuron:PATH:LAYER:CHANNEL",
        r"((?P<source>.+):)?(?P<layer>[^:]+):(?P<channel>\d{1,9})",
    ),
    "logit": ("logit:PATH:CLASS", r"(?P<source>.+):(?P<label>[^:]+)"),
    "probability": ("probability:PATH:CLASS", r"(?P<source>.+):(?P<label>[^:]+)"),
    "logits": ("logits:PATH", r"(?P<source>.+)"),
}
"""How each kind of target is written, and as a pattern."""


@dataclass(frozen=True)
class TargetSpec:
    """What a target is named by; `parse_target` reads it, `build` makes the target."""

    text: str
    """As it was written."""
    kind: str
    """One of `FORMS`."""
    concepts: tuple[int, ...] = ()
    token: int = 0
    everything: bool = False
    """Whether all concepts count, not only those that are active in the query."""
    source: str | None = None
    """Folder or hub id of a classifier; None for the atlas's encoder."""
    layer: str = ""
    channel: int = 0
    label: str | None = None
    """Name or number of a class; None for all."""

    def build(
        self, models: ModelBundle, query: Float[Tensor, "1 3 height width"] | None = None, download: bool = False
    ) -> Target:
        """Make the target from an atlas's models.

        Parameters
        ----------
        query
            The query image, which `codes` needs.
        download
            Whether a classifier of the hub that is not on this machine is fetched.

        Raises
        ------
        BlindspotError
            If a concept, class, module or model does not exist, or a concept is dead.
        """
        from engine.invariance.classifier import Classifier
        from engine.invariance.targets import ClassifierTarget, CodesTarget, CodeTarget, ConceptTarget, NeuronTarget

        if self.source is not None:
            classifier = Classifier.from_pretrained(self.source, models.device, download=download)
            if self.kind == "neuron":
                return NeuronTarget(classifier, self.layer, self.channel)
            return ClassifierTarget(classifier, self.label, self.kind == "probability")
        if self.kind == "neuron":
            return NeuronTarget(models.encoder, self.layer, self.channel)
        encoder, dictionary = models.encoder, models.dictionary
        if self.kind == "codes":
            if self.everything:
                return CodesTarget(encoder, dictionary)
            if query is None:
                raise BlindspotError("The codes of an image need a query image: give one, or name concepts.")
            return CodesTarget.active_in(encoder, dictionary, query)
        if self.kind == "concept":
            target: Target = ConceptTarget(encoder, dictionary, self.concepts)
        else:
            target = CodeTarget(encoder, dictionary, self.concepts[0], self.token)
        self.check(models.atlas)
        return target

    def check(self, atlas: Atlas) -> None:
        """Raise `BlindspotError` if the atlas has not the concepts, or they are dead; loads nothing."""
        dead = atlas.concepts["dead"].to_numpy(bool)
        for concept in self.concepts:
            if concept >= len(dead):
                raise BlindspotError(f"There is no concept {concept}: choose from 0 to {len(dead) - 1}.")
            if dead[concept]:
                raise BlindspotError(f"Concept {concept} is dead, no image excites it: choose another one.")


def parse_target(text: str) -> TargetSpec:
    """Read the words for a target, such as `concept:54`; see `FORMS`.

    Raises
    ------
    BlindspotError
        If they name none.
    """
    kind, _, rest = text.strip().partition(":")
    if kind not in FORMS:
        raise BlindspotError(f"There is no target {text!r}: write {', '.join(form for form, _ in FORMS.values())}.")
    form, pattern = FORMS[kind]
    match = re.fullmatch(pattern, rest, re.ASCII)
    if match is None or (":" in text and not rest):
        raise BlindspotError(f"The target {text!r} cannot be read: write {form}.")
    found = match.groupdict()
    return TargetSpec(
        text.strip(),
        kind,
        tuple(int(number) for number in (found.get("concepts") or "").split(",") if number),
        int(found.get("token") or 0),
        bool(found.get("everything")),
        found.get("source"),
        found.get("layer") or "",
        int(found.get("channel") or 0),
        found.get("label"),
    )


def check_request(atlas: Atlas, request: InvariantRequest) -> None:
    """Raise `BlindspotError` if a request names what cannot be read or what the atlas has not; loads nothing."""
    parse_target(request.target).check(atlas)
    if request.image is not None and not 0 <= request.image < atlas.info.images:
        raise BlindspotError(f"There is no image {request.image}: choose from 0 to {atlas.info.images - 1}.")
