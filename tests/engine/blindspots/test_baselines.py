import numpy as np
import pytest
from scipy import sparse

from benchmarks.planted import EXAGGERATED, SUPPRESSED, matched, precisions
from engine.atlas import Atlas
from engine.blindspots.cooccurrence import token_rows
from engine.blindspots.significance import Moments, benjamini_hochberg, measure_gap, normal_p, null_error, split_halves
from engine.errors import BlindspotError
from engine.files import DATA

DEMO = DATA / "demo/atlas"
NONE = np.zeros(0, int)


def test_halves_are_disjoint_equal_and_seeded():
    found = split_halves(11, np.random.default_rng(0))
    assert len(found.first) == len(found.second) == 5
    assert len({*found.first, *found.second}) == 10
    np.testing.assert_array_equal(found.first, split_halves(11, np.random.default_rng(0)).first)
    with pytest.raises(BlindspotError, match="3 images has no two halves"):
        split_halves(3, np.random.default_rng(0))


def test_token_rows_are_those_of_the_images():
    codes = sparse.csr_matrix(np.arange(12)[:, None])
    assert codes[token_rows(np.array([3, 0]), 3)].toarray().ravel().tolist() == [9, 10, 11, 0, 1, 2]


@pytest.fixture(scope="module")
def demo() -> Atlas:
    if not DEMO.exists():
        pytest.skip("the demo atlas is not built")
    return Atlas.open(DEMO)


@pytest.fixture(scope="module")
def groups(demo) -> dict[str, np.ndarray]:
    """The concepts that stand for each attribute value, matched on real scenes."""
    return matched(precisions(demo), ~demo.concepts["dead"].to_numpy())


def test_on_the_demo_base_does_not_differ_from_itself(demo):
    energy = demo.energy("base")
    live = ~demo.concepts["dead"].to_numpy()
    shares = []
    for seed in range(10):
        halves = split_halves(energy.shape[0], np.random.default_rng(seed))
        sides = energy[halves.first], energy[halves.second]
        gap = measure_gap(*sides, NONE, NONE)
        p = normal_p(gap.gap, null_error(*(Moments.of(side) for side in sides), gap.se))
        shares.append(np.mean(benjamini_hochberg(p, live)[live] < 0.05))
    assert max(shares) <= 0.05


PALM = {"kind": EXAGGERATED["kind"]}
WOOD = {"background": EXAGGERATED["background"]}


@pytest.mark.parametrize(
    ("model", "planted", "sign"),
    [("no-disc", SUPPRESSED, -1), ("woody", WOOD, 1), ("woody", PALM, 1)],
)
def test_on_the_demo_the_planted_blindspots_are_significant(demo, groups, model, planted, sign):
    table = demo.delta(model)
    for attribute, values in planted.items():
        for value in values:
            concepts = groups.get(f"{attribute}: {value}", NONE)
            rows = table.loc[concepts]
            found = (rows["q"] < 0.05) & (sign * rows["gap"] > 0)
            assert len(found) and found.all(), (value, rows[["gap", "q"]])
