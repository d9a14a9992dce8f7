import pandas as pd
import pytest

from engine.figures.samplers import distance_diversity, nearest

CHANCE = {"the encoder": 0.2, "DINOv2": 0.1}


def rows(**frechet: tuple[float, float]) -> pd.DataFrame:
    """Methods with their Fréchet distances by the encoder and by DINOv2."""
    return pd.DataFrame(
        {"judge": judge, "method": method, "matched": 30, "frechet": values[i], "diversity": 0.1 * (i + 1)}
        for i, judge in enumerate(CHANCE)
        for method, values in frechet.items()
    )


def test_every_judge_has_a_panel_with_a_mark_per_method_and_the_line_of_chance():
    figure = distance_diversity(rows(plain=(0.8, 0.5), maco=(0.9, 1.5)), CHANCE, concepts=32, count=4)
    marks = [(trace.name, trace.xaxis, trace.x[0], trace.y[0]) for trace in figure.data]
    assert marks == [
        ("plain", "x", 0.8, 0.1), ("maco", "x", 0.9, 0.1), ("plain", "x2", 0.5, 0.2), ("maco", "x2", 1.5, 0.2)
    ]  # fmt: skip
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False]
    assert figure.data[0].marker.symbol == figure.data[2].marker.symbol != figure.data[1].marker.symbol
    assert [(line.x0, line.xref) for line in figure.layout.shapes] == [(0.2, "x"), (0.1, "x2")]
    assert [figure.layout[f"xaxis{n}"].title.text for n in ("", "2")] == [
        f"Fréchet distance, seen by {judge}" for judge in CHANCE
    ]
    assert "n = 32 concepts of the demo atlas x 4 images" in figure.layout.title.subtitle.text


def test_on_a_phone_the_panels_stand_below_each_other():
    narrow = distance_diversity(rows(plain=(1, 2)), CHANCE, concepts=1, count=4).layout.meta["narrow"]
    assert narrow["xaxis"]["domain"] == narrow["xaxis2"]["domain"] == [0, 1]
    assert narrow["yaxis"]["domain"][0] > narrow["yaxis2"]["domain"][1] + 0.1 and narrow["yaxis2"]["domain"][0] == 0


def test_the_sentence_names_whoever_is_lowest_and_by_how_much():
    said = nearest(rows(plain=(0.75, 0.5), maco=(1.0, 0.4)), 32)
    assert said == (
        "Lowest Fréchet distance by the encoder: plain (0.750), 0.250 or 25 % below the next, maco (1.000); it reached "
        "the target for 30 of 32 concepts. Lowest Fréchet distance by DINOv2: maco (0.400), 0.100 or 20 % below the "
        "next, plain (0.500); it reached the target for 30 of 32 concepts."
    )
    figure = distance_diversity(rows(plain=(0.75, 0.5), maco=(1.0, 0.4)), CHANCE, concepts=32, count=4)
    assert figure.layout.meta["how"].startswith(said)


@pytest.mark.parametrize("other", [{}, {"maco": (float("nan"), float("nan"))}])
def test_a_method_without_a_rival_is_only_named(other):
    said = nearest(rows(plain=(0.75, 0.5), **other), 32)
    assert "by the encoder: plain (0.750); it reached" in said and "next" not in said and "nan" not in said
