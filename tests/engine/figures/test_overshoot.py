import pandas as pd
import pytest

from engine.figures.overshoot import FLOOR, tilt_distances


def test_every_mean_score_has_its_mark_per_method_and_chance_ends_on_the_axis():
    rows = [
        {"target": target, "method": method, "mean": target + 1, "kl_tilt": kl}
        for target in (7.0, 5.0)
        for method, kl in (("plain", 0.1), ("smc", -0.002))
    ]
    figure = tilt_distances(pd.DataFrame(rows), samples=120_000)
    assert [trace.name for trace in figure.data] == ["mean score 5", "mean score 7"]
    assert list(figure.data[0].x) == pytest.approx([0.1, FLOOR]) and list(figure.data[0].y) == ["plain", "smc"]
    assert figure.data[0].customdata[1][1] == -0.002
    assert list(figure.layout.yaxis.categoryarray) == ["smc", "plain"]
    assert "mean scores 5, 7" in figure.layout.title.subtitle.text and "120,000" in figure.layout.title.subtitle.text
