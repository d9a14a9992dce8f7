"""What a concept is called on an axis: its label, and always its number, so that no two rows coincide."""

from __future__ import annotations

from collections.abc import Iterable


def concept_names(labels: Iterable[str | None], concepts: Iterable[int]) -> list[str]:
    """``label · number`` of every concept, or ``concept number`` where there is no label."""
    return [
        f"{label} · {concept}" if isinstance(label, str) and label else f"concept {concept}"
        for label, concept in zip(labels, concepts, strict=True)
    ]
