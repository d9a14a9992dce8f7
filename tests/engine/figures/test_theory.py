import numpy as np
import pandas as pd
import pytest

from engine.figures.theory import BIASES, FLOOR, bias_curves, planar_laws, tilt_distances, tv_speeds


def rows() -> pd.DataFrame:
    table = [{"target": target, "law": law} for law in ("hard", "tilt") for target in (7.0, 5.0, 6.0)]
    values = np.arange(len(table) * len(BIASES)).reshape(len(table), -1)
    return pd.concat([pd.DataFrame(table), pd.DataFrame(values, columns=list(BIASES))], axis=1)


def test_every_bias_has_both_laws_in_order_of_the_mean_score():
    figure = bias_curves(rows(), nodes=9)
    assert len(figure.data) == 8 and all(list(trace.x) == [5, 6, 7] for trace in figure.data)
    assert sorted({trace.name for trace in figure.data if trace.showlegend}) == ["threshold s > m'", "tilt exp(βs)"]
    hard = next(trace for trace in figure.data if trace.legendgroup == "hard")
    assert list(hard.y) == [4, 8, 0]
    assert "5 to 7" in figure.layout.title.subtitle.text and len(figure.layout.meta["how"]) > 30


def test_one_target_is_a_point():
    figure = bias_curves(rows().query("target == 6"), nodes=9)
    assert {trace.mode for trace in figure.data} == {"markers"}


def test_speeds_have_both_laws_in_order_of_the_mean_score():
    figure = tv_speeds(rows().assign(tv_speed=range(6)), nodes=9)
    assert [list(trace.x) for trace in figure.data] == [[5, 6, 7]] * 2
    assert list(figure.data[0].y) == [1, 2, 0] and "per unit of mean score" in figure.layout.title.subtitle.text


def test_laws_share_a_scale_and_their_first_axis_lies_flat():
    first, second = np.zeros((3, 3)), np.full((3, 3), 1 / 9)
    first[2, 0] = 1.0
    figure = planar_laws({"one": first, "two": second}, reach=6.0, subtitle="mean score 6")
    assert [trace.zmax for trace in figure.data] == [1, 1]
    assert list(figure.data[0].x) == [-4, 0, 4]
    row, column = np.argwhere(np.asarray(figure.data[0].z) == 1)[0]
    assert (figure.data[0].x[column], figure.data[0].y[row]) == (4, -4)


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
