"""`python -m precompute synthesize`: invented sources obey their law, hold their truth, and make a real atlas."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse, stats
from scipy.optimize import minimize
from scipy.special import log_ndtr

from engine.atlas import Atlas
from engine.atlas.verify import verify
from engine.blindspots.energy import EnergyPass
from engine.blindspots.significance import measure_gap
from engine.errors import BlindspotError
from precompute import cli
from precompute.synthetic.invention import Invention
from precompute.synthetic.scenes import NAMED, community_colours, draw
from precompute.synthetic.world import PREFIX, REFERENCE, Marginals, NormalLaplace, Size

AUTHORS = Path(__file__).parents[3] / "shared" / "reference" / "saediff_imagenet_concepts.json"
SMALL = ("--concepts", "240", "--images", "150", "--models", "2", "--tokens", "41", "--dim", "16", "--planted", "12")


@pytest.fixture(scope="module")
def authors() -> tuple[np.ndarray, np.ndarray]:
    """`nb_fire` and `energy` of the authors' concepts."""
    if not AUTHORS.exists():
        pytest.skip(f"the authors' table {AUTHORS.name} is not here")
    rows = json.loads(AUTHORS.read_text()).values()
    return np.array([row["nb_fire"] for row in rows]), np.array([row["energy"] for row in rows])


def command(*words: str) -> int:
    """Run the command line in this process; returns its exit code."""
    kept = sys.argv
    sys.argv = ["precompute", "synthesize", *words]
    try:
        cli.main()
    except SystemExit as stopped:
        return stopped.code
    finally:
        sys.argv = kept
    raise AssertionError("the command line ends by exiting")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small synthetic atlas."""
    out = tmp_path_factory.mktemp("synthetic") / "atlas"
    assert command(*SMALL, "--out", str(out), "--json") == 0
    return out


@pytest.fixture(scope="module")
def measured() -> dict:
    """An invention too large for a whole atlas here: image energies and statistics of the real images and a model."""
    invented = Invention(Size(1000, 1500, 1, tokens=PREFIX + 36), planted=40, seed=3)
    found = {"invented": invented}
    for name in ("real", "model-1"):
        running = EnergyPass(1000, PREFIX + 36, PREFIX)
        codes = list(invented.codes(name))
        parts = [running.add(part.indptr, part.indices, part.values) for part in codes]
        found[name] = sparse.vstack(parts, format="csr"), running.finish(), codes
    return found


def log_density(law: NormalLaplace, x: np.ndarray) -> np.ndarray:
    """Log density of a normal-Laplace law at `x`."""

    def log_mills(y: np.ndarray) -> np.ndarray:
        """log of (1 - Phi(y)) / phi(y)."""
        return log_ndtr(-y) - stats.norm.logpdf(y)

    z = (x - law.mu) / law.sigma
    upper, lower = law.alpha * law.sigma - z, law.beta * law.sigma + z
    scale = np.log(law.alpha * law.beta / (law.alpha + law.beta))
    return scale + stats.norm.logpdf(z) + np.logaddexp(log_mills(upper), log_mills(lower))


def fit_law(x: np.ndarray) -> NormalLaplace:
    """The law of largest likelihood of a sample `[n]`."""

    def law(free: np.ndarray) -> NormalLaplace:
        return NormalLaplace(float(free[0]), *np.exp(free[1:]).tolist())

    spread = x.std()
    start = np.array([x.mean(), np.log(spread / 2), np.log(2 / spread), np.log(2 / spread)])
    return law(minimize(lambda free: -log_density(law(free), x).mean(), start, method="L-BFGS-B").x)


def fit_marginals(nb_fire: np.ndarray, energy: np.ndarray) -> Marginals:
    """Fit both laws to a table of concepts, `[concepts]` each; concepts that never fire are left out."""
    live = (nb_fire > 0) & (energy > 0)
    fires = np.log(nb_fire[live])
    strength = np.log(energy[live]) - fires
    slope = float(np.cov(fires, strength)[0, 1] / fires.var(ddof=1))
    return Marginals(fit_law(fires), slope, fit_law(strength - slope * fires))


def flat(law: Marginals) -> np.ndarray:
    return np.array([*law.fires, law.slope, *law.strength])


def test_the_constants_are_what_the_authors_table_gives(authors):
    # Every fourth concept: a quarter of the time, and twice the error.
    found = fit_marginals(*(column[::4] for column in authors))
    assert flat(found)[:7] == pytest.approx(flat(REFERENCE)[:7], rel=0.12)
    assert found.strength.alpha == pytest.approx(REFERENCE.strength.alpha, rel=0.1)


def test_invented_concepts_fire_as_often_and_as_strongly_as_the_authors(authors):
    drawn = REFERENCE.sample(32_000, np.random.default_rng(1))
    for invented, real in zip(drawn, authors, strict=True):
        assert stats.ks_2samp(invented, real).statistic < 0.02
    ranks = [stats.spearmanr(*pair).statistic for pair in (drawn, authors)]
    assert ranks[0] == pytest.approx(ranks[1], abs=0.01)


def test_a_normal_laplace_law_is_found_again_and_is_a_density():
    law = NormalLaplace(1.0, 0.4, 1.5, 3.0)
    found = fit_law(law.sample(6000, np.random.default_rng(0)))
    assert found == pytest.approx(law, rel=0.15)
    grid = np.linspace(-20, 30, 20_001)
    density = np.exp(log_density(law, grid))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-4)
    assert np.trapezoid(grid * density, grid) == pytest.approx(1.0 + 1 / 1.5 - 1 / 3.0, abs=1e-3)


def test_energies_are_the_worlds_and_no_token_has_too_many_codes(measured):
    invented, (energy, statistics, codes) = measured["invented"], measured["real"]
    world = invented.world
    assert statistics.moments.sum.sum() == pytest.approx(world.energy.sum() * energy.shape[0], rel=0.1)
    error = np.sqrt(statistics.moments.variance / energy.shape[0])
    often = statistics.images_active > 50
    z = (statistics.moments.mean - world.energy)[often] / error[often]
    assert often.sum() > 300 and abs(np.mean(z)) < 0.3 and np.std(z) < 1.6
    sizes = np.diff(codes[0].indptr)
    assert sizes.max() == invented.size.sparsity and sizes.mean() > 0.8 * invented.size.sparsity


def test_only_what_is_planted_differs(measured):
    invented, planted = measured["invented"], measured["invented"].planted["model-1"]
    rows = np.arange(invented.size.images)
    gap = measure_gap(measured["real"][0], measured["model-1"][0], rows, rows)
    changed = measured["model-1"][1].moments.mean[planted.concepts] / measured["real"][1].moments.mean[planted.concepts]
    assert stats.spearmanr(changed, planted.factor).statistic > 0.9
    assert ((changed < 0.6) == (planted.factor < 1)).all()
    others = np.setdiff1d(np.flatnonzero(measured["real"][1].images_active > 50), planted.concepts)
    z = gap.gap[others] / gap.se[others]
    assert len(others) > 300 and abs(z.mean()) < 0.2 and z.std() == pytest.approx(1, abs=0.15)


def test_concepts_of_a_topic_share_images(measured):
    world = measured["invented"].world
    energy, statistics, _ = measured["real"]
    topic = world.topic_of(world.community)
    chosen = np.flatnonzero((topic >= 0) & (statistics.images_active > 30))
    together = np.corrcoef((energy[:, chosen] > 0).toarray().T)
    same = topic[chosen][:, None] == topic[chosen]
    apart = ~same
    np.fill_diagonal(same, False)
    assert together[same].mean() > 5 * abs(together[apart].mean())


def test_thumbnails_have_the_colours_of_what_the_codes_show(measured):
    invented = measured["invented"]
    colours = community_colours(invented.world)
    for number, picture in enumerate(islice(draw(invented.world, invented.real), 10)):
        mean = picture.reshape(-1, 3).mean(axis=0) / 255
        shown = colours[invented.real.regions[number]]
        assert (mean > 0.7 * shown.min(axis=0) - 0.02).all() and (mean < 1.3 * shown.max(axis=0) + 0.02).all()


def test_captions_name_what_is_shown(measured):
    invented = measured["invented"]
    for number in (0, 7, 100):
        topics = invented.world.topic_of(invented.real.regions[number, :NAMED])
        assert all(invented.world.names[topic] in invented.captions[number] for topic in topics)


def test_the_atlas_is_in_order_and_recovers_the_planted_blindspots(made):
    assert verify(made) == []
    atlas = Atlas.open(made)
    assert atlas.models == ["model-1", "model-2"]
    truth = json.loads((made.parent / "atlas.planted.json").read_text())["models"]
    universal = []
    for model, rows in truth.items():
        delta = atlas.delta(model)["delta"].to_numpy()
        low = [row["concept"] for row in rows if row["factor"] < 1]
        high = [row["concept"] for row in rows if row["factor"] > 1]
        assert len(low) == len(high) == 6
        assert area_under_roc(-delta, low) > 0.95 and area_under_roc(delta, high) > 0.95
        universal.append([(row["concept"], row["factor"]) for row in rows if row["universal"]])
    assert universal[0] == universal[1] and len(universal[0]) == 6
    specific = [{row["concept"] for row in rows if not row["universal"]} for rows in truth.values()]
    assert not specific[0] & specific[1]


def area_under_roc(score: np.ndarray, positive: list[int]) -> float:
    """How often a positive concept scores higher than another one."""
    rest = np.delete(score, positive)
    return float(stats.mannwhitneyu(score[positive], rest).statistic / (len(positive) * len(rest)))


def test_concepts_are_named_by_their_topic(made):
    atlas = Atlas.open(made)
    world = Invention(Size(240, 150, 2, tokens=41, dim=16), 12, 0).world
    named = atlas.concepts[atlas.concepts["label_origin"] == "captions"]
    topics = world.topic_of(world.community)[named.index]
    right = [world.names[topic] in label for topic, label in zip(topics, named["label"], strict=True) if topic >= 0]
    assert len(right) > 60 and np.mean(right) > 0.8


def test_the_same_seed_gives_the_same_files_and_a_second_run_does_nothing(made, tmp_path, capsys):
    assert command(*SMALL, "--out", str(made), "--json") == 0
    assert {stage["action"] for stage in json.loads(capsys.readouterr().out)["stages"]} == {"kept"}
    assert command(*SMALL, "--out", str(tmp_path / "again")) == 0
    files = [json.loads((where / "atlas.json").read_text())["files"] for where in (made, tmp_path / "again")]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--concepts", "10"), "--concepts 10 is outside 64 to 1,000,000"),
        (("--images", "0"), "--images 0 is outside 16"),
        (("--models", "99"), "--models 99 is outside 1 to 32"),
        (("--tokens", "260"), "--tokens 260 is not 5 more than a square"),
        (("--sparsity", "1"), "--sparsity 1 is outside 2 to 64"),
        (("--concepts", "300", "--planted", "500"), "--planted 500 does not fit: 300 concepts and 4 models allow 0 to"),
        (("--planted", "-1"), "--planted -1 does not fit"),
        (("--seed", "-1"), "--seed -1"),
    ],
)
def test_a_size_that_cannot_be_is_said_in_one_sentence(words, said, tmp_path, capsys):
    assert command(*words, "--out", str(tmp_path / "atlas")) == 1
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_most_that_the_sentence_allows_can_be_planted():
    with pytest.raises(BlindspotError, match="allow 0 to") as refused:
        Invention(Size(300, 16, 4), 10_000, 0)
    most = int(str(refused.value).rstrip(".").split()[-1])
    assert len(Invention(Size(300, 16, 4), most, 0).planted["model-4"].concepts) == most > 0
