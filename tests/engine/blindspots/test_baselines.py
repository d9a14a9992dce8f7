import numpy as np
import pytest
from scipy import sparse

from benchmarks.planted import matched, precisions
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


FEEDERS = pytest.mark.xfail(
    strict=True, reason="q 0.10 and 0.13: what base draws too much of is missing here as in reality"
)


@pytest.mark.parametrize(
    ("model", "attribute", "sign", "share"),
    [
        ("no-disc", "kind: disc", -1, 1.0),
        pytest.param("no-disc", "kind: bird feeder", -1, 1.0, marks=FEEDERS),
        ("woody", "background: wooden table", 1, 0.9),
        ("woody", "kind: palm tree", 1, 1.0),
    ],
)
def test_on_the_demo_the_planted_blindspots_are_significant(demo, groups, model, attribute, sign, share):
    """All of a kind's concepts; of the sixty that share the wooden table among them, nine of ten."""
    rows = demo.delta(model).loc[groups[attribute]]
    found = (rows["q"] < 0.05) & (sign * rows["gap"] > 0)
    assert len(found) >= 2 and found.mean() >= share, rows.loc[~found, ["gap", "q"]]
