"""Studies of drawn images as figures: strength against quality, growing activation, neurons, methods."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.figures.palette import CLUSTERS, EXAGGERATED, SUPPRESSED
from engine.figures.panels import HEAD, Panel, headed, panel_curves, panel_height

GREY = "#8d8590"
SWEEP = (
    Panel("score", "mean score", SUPPRESSED, "score_error"),
    Panel("diversity", "diversity (mean cosine distance)", CLUSTERS[2], zero=True),
    Panel("kid", "KID to the prior", EXAGGERATED),
    Panel("codes_score", "mean score of the final codes", CLUSTERS[5]),
    Panel("slope", "spectral slope", CLUSTERS[3]),
    Panel("frechet", "Fréchet distance to the prior", CLUSTERS[4], zero=True),
)
SWEEP_HOW = (
    "To the right the samples are pushed harder. Left: what that buys, with standard errors; the dotted line is what "
    "the best real images score. The other panels: what it costs. Samples that resemble each other lose diversity, a "
    "falling slope is fine detail that images do not have, and both distances compare with the prior's own samples."
)
LEVELS = (
    Panel("strength", "strength needed", CLUSTERS[2], zero=True),
    Panel("diversity", "diversity (mean cosine distance)", CLUSTERS[3], zero=True),
    Panel("kid", "KID to the prior", EXAGGERATED),
)
LEVELS_HOW = (
    "Each blue dot is a drawn image, each yellow one a real image of nearly the same score. The dotted lines are the "
    "mean scores that were aimed at; a level whose dots lie beside its line was out of reach. Without a push "
    "the samples are the prior's own."
)
NEURON_PANELS = (
    ("score_correlation", "correlation with the concept"),
    ("selectivity", "selectivity (sd)"),
    ("concept_share", "concept shown (share)"),
    ("diversity", "diversity"),
    ("kid", "KID to the prior"),
)
NEURONS_HOW = (
    "The concept in blue, neurons in plum, each drawn at the same share of what its own best real images score. "
    "Correlation: of scores over the real images. Selectivity: by how many standard deviations the best "
    "real images stand out. Concept shown: by a unit's drawing; 1 is what the concept's best real images show."
)
METHOD_PANELS = (
    ("of_target", "score / target"),
    ("frechet", "Fréchet distance"),
    ("kid", "KID to the prior"),
    ("diversity", "diversity"),
    ("slope", "spectral slope"),
    ("seconds", "seconds a sample"),
)
METHODS_HOW = (
    "Every method is pushed until its images score what the best real ones do; paler is one that did not get there. "
    "Both distances compare with the prior's own samples in the encoder that the methods climb, which they may fool: "
    "look at the images too. Real images have a spectral slope near that of the prior's samples."
)
FAINT = 0.45
BAR = 30
"""Pixels of a unit."""


def strength_curves(table: pd.DataFrame, *, concept: str, best: float, subtitle: str) -> go.Figure:
    """Draw score, diversity, slope and distances against strength.

    Parameters
    ----------
    table
        One row per strength: ``strength, score, score_error, codes_score, diversity, slope, kid, frechet``.
    concept
        What the concept is called.
    best
        Mean score of the best real images.
    subtitle
        Method and number of images.
    """
    figure = panel_curves(table, "strength", SWEEP, columns=3, axis="strength β", hover="β")
    figure.add_hline(y=best, line={"width": 1.5, "dash": "dot", "color": GREY}, row=1, col=1)
    return headed(
        figure, title=f"Pushing harder towards {concept}", subtitle=subtitle, how=SWEEP_HOW,
        height=panel_height(len(SWEEP), 3),
    )  # fmt: skip


def level_strips(table: pd.DataFrame, samples: pd.DataFrame, *, concept: str, subtitle: str) -> go.Figure:
    """Draw the scores of all samples at each level beside real ones, and what each level took.

    Parameters
    ----------
    table
        One row per level: ``share, target, strength, diversity, kid``.
    samples
        One row per drawn image: ``share, score, real_image, real_score``.
    concept, subtitle
        As in `strength_curves`.
    """
    figure = make_subplots(
        2, 3, specs=[[{"colspan": 3}, None, None], [{}, {}, {}]], vertical_spacing=0.2, horizontal_spacing=0.09,
        row_heights=[0.62, 0.38], subplot_titles=["score of each image", *(panel.title for panel in LEVELS)],
    )  # fmt: skip
    figure.add_traces(_strips(table, samples), 1, 1)
    for number, panel in enumerate(LEVELS, start=1):
        line = go.Scatter(
            x=table["share"], y=table[panel.column], mode="lines+markers", showlegend=False,
            line={"color": panel.colour, "width": 2}, hovertemplate="level %{x:.0%}: %{y:.4f}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(line, 2, number)
        figure.update_yaxes(rangemode="tozero" if panel.zero else "normal", row=2, col=number)
    names = [f"{share:.0%}" if share else "no push" for share in table["share"]]
    figure.update_xaxes(automargin=True, showgrid=False, zeroline=False, tickvals=list(table["share"]), ticktext=names)
    figure.update_yaxes(automargin=True, nticks=6)
    figure.update_xaxes(title_text="share of the best real images' mean score", row=2, col=2)
    return headed(
        figure, title=f"{concept} at growing activation", subtitle=subtitle, how=LEVELS_HOW, height=560,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom"},
    )  # fmt: skip


def _strips(table: pd.DataFrame, samples: pd.DataFrame) -> list[go.Scatter]:
    """A short line at each level's aim, and on either side of it a dot per drawn and per real image."""
    shares = table["share"]
    step = shares.diff().min() if len(shares) > 1 else 1.0
    ends = [end for share in shares for end in (share - 0.15 * step, share + 0.15 * step, None)]
    aims = [end for target in table["target"] for end in (target, target, None)]
    line = {"width": 1.5, "dash": "dot", "color": GREY}
    traces = [go.Scatter(x=ends, y=aims, mode="lines", line=line, name="aim", hoverinfo="skip")]
    for column, name, side, colour in (("score", "drawn", -1, SUPPRESSED), ("real_score", "real", 1, EXAGGERATED)):
        image = ", image %{customdata[1]}" if side > 0 else ""
        traces.append(
            go.Scatter(
                x=samples["share"] + 0.06 * side * step, y=samples[column], mode="markers", name=name,
                marker={"size": 9, "color": colour, "opacity": 0.85}, customdata=samples[["share", "real_image"]],
                hovertemplate=f"level %{{customdata[0]:.0%}}: %{{y:.4f}}{image}<extra>{name}</extra>",
            )
        )  # fmt: skip
    return traces


def neuron_bars(table: pd.DataFrame, *, concept: str, subtitle: str) -> go.Figure:
    """Draw how selective a concept and single neurons are, a panel per number.

    Parameters
    ----------
    table
        One row per unit, the concept first: ``name, chosen_by`` and the columns in `NEURON_PANELS`.
    concept, subtitle
        As in `strength_curves`.
    """
    names = [f"{name} ({by})" if by else name for name, by in zip(table["name"], table["chosen_by"], strict=True)]
    marker = {"color": [SUPPRESSED] + [CLUSTERS[2]] * (len(table) - 1)}
    figure = _bars(table, names, NEURON_PANELS, marker)
    title = f"{concept} against single neurons"
    return headed(figure, title=title, subtitle=subtitle, how=NEURONS_HOW, height=figure.layout.height, bargap=0.35)


def method_bars(table: pd.DataFrame, *, concept: str, subtitle: str) -> go.Figure:
    """Draw what methods make of a concept at the same mean score, a panel per number.

    Parameters
    ----------
    table
        One row per method: ``method, matched`` and the columns in `METHOD_PANELS`.
    concept, subtitle
        As in `strength_curves`.
    """
    colours = [SUPPRESSED if name.startswith("energydps") else CLUSTERS[2] for name in table["method"]]
    marker = {"color": colours, "opacity": [1.0 if matched else FAINT for matched in table["matched"]]}
    figure = _bars(table, table["method"], METHOD_PANELS, marker)
    title = f"{concept} at equal activation"
    return headed(figure, title=title, subtitle=subtitle, how=METHODS_HOW, height=figure.layout.height, bargap=0.35)


def _bars(
    table: pd.DataFrame, names: Sequence[str], panels: Sequence[tuple[str, str]], marker: dict[str, list]
) -> go.Figure:
    """A row of horizontal bars per name, a panel per column."""
    titles = [title for _, title in panels]
    figure = make_subplots(1, len(titles), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.025)
    for number, (column, title) in enumerate(panels, start=1):
        bars = go.Bar(
            x=table[column], y=list(names), orientation="h", showlegend=False, marker=marker,
            texttemplate="%{x:.2f}" if column != "kid" else "%{x:.3f}", textposition="auto",
            hovertemplate=f"%{{y}}: {title} %{{x:.4f}}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(bars, 1, number)
    figure.update_xaxes(showgrid=False, zeroline=True, showticklabels=False, automargin=True)
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False, ticksuffix=" ")
    return figure.update_layout(height=HEAD + BAR * (len(table) + 1))
