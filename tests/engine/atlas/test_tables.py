import numpy as np
from scipy import sparse

from engine.atlas.schema import TABLES
from engine.atlas.tables import delta_table, energies_table, exemplars_table, neighbours_table
from engine.blindspots.delta import DeltaSettings
from engine.blindspots.significance import Moments, measure_gap

ACTIVE = np.array([2, 0]), np.array([2, 0])


def gap_of(real, model, rows):
    sides = [sparse.csr_matrix(np.array(side, np.float32)) for side in (real, model)]
    return Moments.of(sides[0]), Moments.of(sides[1]), measure_gap(*sides, rows, rows)


def test_tables_have_their_schemas_columns():
    real, model, gap = gap_of([[1, 0], [2, 0]], [[3, 0], [5, 0]], np.arange(2))
    ids = np.array([[3, -1], [-1, -1]])
    made = {
        "energies": energies_table("real", real, np.zeros(2), np.zeros(2), np.zeros(2)),
        "delta": delta_table("m", real, model, gap, np.ones(2, bool), DeltaSettings(), ACTIVE),
        "exemplars": exemplars_table("real", ids, np.ones((2, 2))),
        "neighbours": neighbours_table({"map": (ids, np.ones((2, 2)))}),
    }
    assert {name: list(frame.columns) for name, frame in made.items()} == {name: TABLES[name].names for name in made}


def test_free_places_of_a_list_are_no_rows():
    frame = exemplars_table("real", np.array([[7, 5], [9, -1], [-1, -1]]), np.ones((3, 2)))
    assert frame[["concept", "rank", "image"]].values.tolist() == [[0, 0, 7], [0, 1, 5], [1, 0, 9]]


def test_n_is_the_number_of_pairs_or_the_models_images():
    for rows, n in ((np.arange(2), 2), (np.arange(0), 3)):
        real, model, gap = gap_of([[1], [2]], [[3], [5], [6]], rows)
        active = np.array([2]), np.array([3])
        assert delta_table("m", real, model, gap, np.ones(1, bool), DeltaSettings(), active)["n"].tolist() == [n]


def test_dead_concepts_have_q_one():
    real, model, gap = gap_of([[1, 0], [1.5, 0], [1, 0]], [[9, 0], [8, 0], [9, 0]], np.arange(3))
    frame = delta_table("m", real, model, gap, np.array([True, False]), DeltaSettings(), ACTIVE)
    assert frame["q"][0] == frame["p"][0] < 0.01
    assert frame["q"][1] == 1
