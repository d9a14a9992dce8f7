"""Samplers and their studies: distance against diversity, strength against quality, levels, neurons, methods, tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.figures.style import CLUSTERS, DOTTED, EXAGGERATED, GREY, SUPPRESSED, SYMBOLS, apply_layout


class Panel(NamedTuple):
    """One number of a table, drawn on an axis of its own."""

    column: str
    title: str
    colour: str
    error: str | None = None
    """Column of its standard error."""
    zero: bool = False
    """Whether the vertical axis begins at 0."""


STRENGTH_PANELS = (
    Panel("score", "mean score", SUPPRESSED, "score_error"),
    Panel("diversity", "diversity (mean cosine distance)", CLUSTERS[2], zero=True),
    Panel("kid", "KID to the prior", EXAGGERATED),
    Panel("codes_score", "mean score of the final codes", CLUSTERS[5]),
    Panel("slope", "spectral slope", CLUSTERS[3]),
    Panel("frechet", "Fréchet distance to the prior", CLUSTERS[4], zero=True),
)
STRENGTH_HOW = (
    "To the right the samples are pushed harder. Left: what that buys, with standard errors; the dotted line is what "
    "the best real images score. The other panels: what it costs. Samples that resemble each other lose diversity, a "
    "falling slope is fine detail that images do not have, and both distances compare with the prior's own samples."
)
LEVEL_PANELS = (
    Panel("strength", "strength needed", CLUSTERS[2], zero=True),
    Panel("diversity", "diversity (mean cosine distance)", CLUSTERS[3], zero=True),
    Panel("kid", "KID to the prior", EXAGGERATED),
)
LEVELS_HOW = (
    "Each blue dot is a drawn image, each yellow one a real image of nearly the same score. The dotted lines are the "
    "mean scores that were aimed at; a level whose dots lie beside its line was out of reach. Without a push "
    "the samples are the prior's own."
)
NEURON_PANELS = {
    "score_correlation": "correlation with the concept",
    "selectivity": "selectivity (sd)",
    "concept_share": "concept shown (share)",
    "diversity": "diversity",
    "kid": "KID to the prior",
}
NEURONS_HOW = (
    "The concept in blue, neurons in plum, each drawn at the same share of what its own best real images score. "
    "Correlation: of scores over the real images. Selectivity: by how many standard deviations the best "
    "real images stand out. Concept shown: by a unit's drawing; 1 is what the concept's best real images show."
)
METHOD_PANELS = {
    "of_target": "score / target",
    "frechet": "Fréchet distance",
    "kid": "KID to the prior",
    "diversity": "diversity",
    "slope": "spectral slope",
    "seconds": "seconds a sample",
}
INVARIANT_PANELS = {
    "within": "share within the tolerance", "relative": "distance to f(x*), relative", "robust": "robust to blur",
    "diversity": "diversity", "evaluations": "evaluations a member", "seconds": "seconds a member",
}  # fmt: skip
INVARIANT_HOW = (
    "Means over the targets. Robust to blur: members whose response changes by less than a tenth after a low-pass "
    "filter at half of Nyquist. Evaluations are of the prior's network, those of backward passes included."
)
METHODS_HOW = (
    "Every method is pushed until its images score what the best real ones do; paler is one that did not get there. "
    "Both distances compare with the prior's own samples in the encoder that the methods climb, which they may fool: "
    "look at the images too. Real images have a spectral slope near that of the prior's samples."
)
DRIFT_PANELS = (
    Panel("score", "score s", SUPPRESSED, "score_error"),
    Panel("task", "task f", EXAGGERATED, "task_error"),
    Panel("drift", "drift of other concepts", CLUSTERS[2]),
    Panel("bound", "least KL to the tilt (nats)", CLUSTERS[3]),
)
DRIFT_HOW = (
    "To the right the task counts for more while the mean score is held. Drift: by how much the mean energies of all "
    "other concepts change, as a share of what they were; its first point is what other noise alone does. The last "
    "panel is a bound: no law with these two means is nearer to the concept's own."
)
DIVERSITY_HOW = (
    "Further left is nearer to the prior's own images, further up more varied within a concept. The dotted line is "
    "what fresh samples of the prior amount to, by chance alone."
)
DISTANCE, DIVERSITY = "Fréchet distance", "diversity"
NARROW_HEIGHT = 340
"""Pixels of a panel of `distance_diversity` on a phone, where they stand below each other."""
ROW, HEAD, BAR = 190, 112, 30
"""Pixels of a row of panels, of all that is above and below them, and of a bar."""
FAINT = 0.45
"""Opacity of a method that did not reach the target."""


def distance_diversity(rows: pd.DataFrame, chance: dict[str, float], *, concepts: int, count: int) -> go.Figure:
    """Draw Fréchet distance to the prior against diversity, a panel per judge and a mark per method.

    Parameters
    ----------
    rows
        One row per judge and method in the order to show: ``judge, method, matched`` (concepts that reached the
        target), ``frechet`` and ``diversity`` (mean cosine distance of two images of a concept).
    chance
        Judge to the Fréchet distance of fresh samples of the prior.
    concepts, count
        Concepts drawn, and images of each by a method.
    """
    judges, methods = list(chance), list(dict.fromkeys(rows["method"]))
    figure = make_subplots(1, len(judges), horizontal_spacing=0.11)
    narrow: dict[str, dict[str, Any]] = {}
    for i, judge in enumerate(judges):
        some = rows[rows["judge"] == judge].set_index("method")
        for number, method in enumerate(methods):
            mark = go.Scatter(
                x=[some.at[method, "frechet"]], y=[some.at[method, "diversity"]], name=method, mode="markers",
                legendgroup=method, showlegend=i == 0,
                marker={"size": 13, "color": CLUSTERS[number % len(CLUSTERS)], "symbol": SYMBOLS[number % len(SYMBOLS)],
                        "line": {"width": 1.2, "color": GREY}},
                hovertemplate=f"{DISTANCE} %{{x:.3f}}, {DIVERSITY} %{{y:.3f}}",
            )  # fmt: skip
            figure.add_trace(mark, 1, i + 1)
        figure.add_vline(
            x=chance[judge], line=DOTTED, row=1, col=i + 1,
            annotation={"text": "chance", "font": {"size": 11, "color": GREY}}, annotation_position="bottom right",
        )  # fmt: skip
        figure.update_xaxes(title_text=f"{DISTANCE}, seen by {judge}", row=1, col=i + 1)
        top, below = 1 - i / len(judges), 0.76 if i < len(judges) - 1 else 1
        narrow[f"xaxis{i + 1 if i else ''}"] = {"domain": [0, 1]}
        narrow[f"yaxis{i + 1 if i else ''}"] = {"domain": [top - below / len(judges), top]}
    figure.update_xaxes(title_standoff=8, automargin=True, rangemode="tozero", zeroline=False)
    figure.update_yaxes(title_text=DIVERSITY, automargin=True, rangemode="tozero", zeroline=False, nticks=6)
    return apply_layout(
        figure, title="Distance to the prior against diversity", how=f"{nearest(rows, concepts)} {DIVERSITY_HOW}",
        subtitle=f"equal activation, n = {concepts} concepts of the demo atlas x {count} images of each method",
        legend={"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom"}, height=400,
        meta={"narrow": narrow},
    )  # fmt: skip


def nearest(rows: pd.DataFrame, concepts: int) -> str:
    """Return, per judge, which method lies nearest to the prior, by how much, and how often it reached the target.

    Parameters
    ----------
    rows, concepts
        As in `distance_diversity`.
    """
    sentences = []
    for judge, some in rows.dropna(subset="frechet").groupby("judge", sort=False):
        ranked = some.sort_values("frechet", kind="stable")
        first = ranked.iloc[0]
        sentence = f"Lowest {DISTANCE} by {judge}: {first['method']} ({first['frechet']:.3f})"
        if len(ranked) > 1:
            second = ranked.iloc[1]
            less = second["frechet"] - first["frechet"]
            share = f"{100 * less / second['frechet']:.0f} %"
            sentence += f", {less:.3f} or {share} below the next, {second['method']} ({second['frechet']:.3f})"
        sentences.append(f"{sentence}; it reached the target for {first['matched']} of {concepts} concepts.")
    return " ".join(sentences)


def panel_curves(
    table: pd.DataFrame, x: str, panels: Sequence[Panel], *, columns: int, axis: str, hover: str
) -> go.Figure:
    """Draw a line with markers per panel over a common horizontal axis.

    Parameters
    ----------
    table
        One row per point.
    x
        Column of the horizontal axis.
    panels
        What to draw, row by row.
    columns
        Panels side by side.
    axis, hover
        Title of the horizontal axis, and its short name in a hover line.
    """
    rows = -(-len(panels) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[panel.title for panel in panels], vertical_spacing=0.24 / max(rows - 1, 1),
        horizontal_spacing=0.09,
    )  # fmt: skip
    for number, panel in enumerate(panels):
        row, column = number // columns + 1, number % columns + 1
        line = go.Scatter(
            x=table[x], y=table[panel.column], mode="lines+markers", name=panel.title, showlegend=False,
            line={"color": panel.colour, "width": 2},
            error_y=None if panel.error is None else {"array": table[panel.error], "thickness": 1, "width": 0},
            hovertemplate=f"{hover} = %{{x:.3g}}: %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(line, row, column)
        figure.update_yaxes(rangemode="tozero" if panel.zero else None, row=row, col=column)
        if number >= len(panels) - columns:
            figure.update_xaxes(title_text=axis, row=row, col=column)
    figure.update_xaxes(automargin=True, showgrid=False)
    return figure.update_yaxes(automargin=True, nticks=5)


def _panel_layout(figure: go.Figure, **layout: Any) -> go.Figure:
    """Apply the shared layout with the title at the upper edge, which leaves room for the panels' own titles."""
    figure.update_annotations(font_size=14)
    apply_layout(figure, **layout)
    return figure.update_layout(title={"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 12}}, margin_t=92)


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
    figure = panel_curves(table, "strength", STRENGTH_PANELS, columns=3, axis="strength β", hover="β")
    figure.add_hline(y=best, line={"width": 1.5, "dash": "dot", "color": GREY}, row=1, col=1)
    return _panel_layout(
        figure, title=f"Pushing harder towards {concept}", subtitle=subtitle, how=STRENGTH_HOW, height=HEAD + 2 * ROW
    )


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
        row_heights=[0.62, 0.38], subplot_titles=["score of each image", *(panel.title for panel in LEVEL_PANELS)],
    )  # fmt: skip
    figure.add_traces(_strips(table, samples), 1, 1)
    for number, panel in enumerate(LEVEL_PANELS, start=1):
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
    return _panel_layout(
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
    marker: dict[str, Any] = {"color": [SUPPRESSED] + [CLUSTERS[2]] * (len(table) - 1)}
    return _bars(
        table, names, NEURON_PANELS, marker, title=f"{concept} against single neurons", subtitle=subtitle,
        how=NEURONS_HOW,
    )  # fmt: skip


def method_bars(table: pd.DataFrame, *, concept: str, subtitle: str) -> go.Figure:
    """Draw what methods make of a concept at the same mean score, a panel per number.

    Parameters
    ----------
    table
        One row per method: ``method, matched`` and the columns in `METHOD_PANELS`.
    concept, subtitle
        As in `strength_curves`.
    """
    colours = [SUPPRESSED if name.startswith("energy") else CLUSTERS[2] for name in table["method"]]
    marker = {"color": colours, "opacity": [1.0 if matched else FAINT for matched in table["matched"]]}
    return _bars(
        table, list(table["method"]), METHOD_PANELS, marker, title=f"{concept} at equal activation",
        subtitle=subtitle, how=METHODS_HOW,
    )  # fmt: skip


def invariant_bars(table: pd.DataFrame, *, subtitle: str) -> go.Figure:
    """Draw how well methods draw members of invariant sets, a panel per number.

    Parameters
    ----------
    table
        One row per method: ``method`` and the columns in `INVARIANT_PANELS`.
    subtitle
        As in `strength_curves`.
    """
    marker = {"color": [CLUSTERS[2] if name == "descent" else SUPPRESSED for name in table["method"]]}
    return _bars(
        table, list(table["method"]), INVARIANT_PANELS, marker, title="Members of invariant sets",
        subtitle=subtitle, how=INVARIANT_HOW,
    )  # fmt: skip


def _bars(
    table: pd.DataFrame, names: list[str], panels: Mapping[str, str], marker: dict[str, Any], **layout: str
) -> go.Figure:
    """Draw a row of horizontal bars per name, a panel per column."""
    titles = list(panels.values())
    figure = make_subplots(1, len(titles), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.025)
    for number, (column, title) in enumerate(panels.items(), start=1):
        bars = go.Bar(
            x=table[column], y=names, orientation="h", showlegend=False, marker=marker,
            texttemplate="%{x:.2f}" if column != "kid" else "%{x:.3f}", textposition="auto",
            hovertemplate=f"%{{y}}: {title} %{{x:.4f}}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(bars, 1, number)
    figure.update_xaxes(showgrid=False, zeroline=True, showticklabels=False, automargin=True)
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False, ticksuffix=" ")
    return _panel_layout(figure, height=HEAD + BAR * (len(table) + 1), bargap=0.35, **layout)


def drift_table(rows: list) -> pd.DataFrame:
    """Return the rows of an injection study as a table, with eta = ratio x strength."""
    table = pd.DataFrame(rows)
    table.insert(2, "eta", table["ratio"] * table["strength"])
    return table


def object_drift(table: pd.DataFrame, *, task: str, images: int) -> go.Figure:
    """Draw what a task costs that is served besides a concept: score, task, drift and bound against its weight.

    Parameters
    ----------
    table
        From `drift_table`.
    task
        What the task is, in a few words.
    images
        Images per row.
    """
    figure = panel_curves(table, "ratio", DRIFT_PANELS, columns=2, axis="weight of the task η/β", hover="η/β")
    return _panel_layout(
        figure, title=f"What serving a task costs: {task}", how=DRIFT_HOW, height=480,
        subtitle=f"matched mean score, bars are standard errors, n = {images} images a point",
    )  # fmt: skip
