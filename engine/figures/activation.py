"""How strongly images show one concept: the real ones against each model's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.figures.style import GREY, apply_layout, axis, delta_colour

HOW = (
    "Images in which the concept is active, by how much (its energy), real ones grey and the model's coloured; the "
    "share of active images stands at the right. A model may show a concept less often, or less of it where it does."
)
BINS = 30


def activation_histograms(
    real: np.ndarray, models: Mapping[str, np.ndarray], deltas: Mapping[str, float], *, concept: int
) -> go.Figure:
    """Draw the energies of a concept in the images of each model over those in the real images.

    Parameters
    ----------
    real
        [n], energies in the real images; an image of energy 0 does not show the concept.
    models, deltas
        By model: energies in its images, and its delta.
    concept
        Its number.
    """
    highest = max(float(energies.max(initial=0)) for energies in (real, *models.values())) or 1.0
    edges = np.linspace(0, highest, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    figure = make_subplots(rows=len(models), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    reference = _shares(real, edges)
    for row, (model, energies) in enumerate(models.items(), 1):
        for name, shares, colour, opacity in (
            ("real", reference, GREY, 0.45), (model, _shares(energies, edges), delta_colour(deltas[model]), 0.85)
        ):  # fmt: skip
            figure.add_bar(
                x=centres, y=shares, width=highest / BINS, name=name, marker={"color": colour, "line": {"width": 0}},
                opacity=opacity, showlegend=False, row=row, col=1,
                hovertemplate=f"%{{y:.1%}} of {name} images at an energy of %{{x:.3g}}<extra></extra>",
            )  # fmt: skip
        said = f"{model}: active in {np.mean(energies > 0):.0%}, real {np.mean(real > 0):.0%}"
        figure.add_annotation(x=1, y=1, xref="x domain", yref="y domain", text=said, showarrow=False, xanchor="right",
                              yanchor="top", font={"size": 12}, row=row, col=1)  # fmt: skip
    figure.update_yaxes(tickformat=".0%", nticks=3, rangemode="tozero", automargin=True)
    figure.update_xaxes(showgrid=False)
    apply_layout(
        figure, title=f"Concept {concept}: energy in images", subtitle=f"{len(real):,} real images", how=HOW,
        height=70 + 95 * len(models), barmode="overlay", bargap=0,
    )  # fmt: skip
    figure.update_xaxes(axis("energy"), row=len(models), col=1)
    return figure


def _shares(energies: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of all images in each bin, those of energy 0 left out."""
    return np.histogram(energies[energies > 0], edges)[0] / max(len(energies), 1)
