"""Divergence, composition, changes and metrics of an atlas: what the reader says follows from the stored codes."""

import shutil

import faiss
import numpy as np
import pytest
from scipy import linalg
from scipy.special import expit

from engine.atlas import Atlas, checks
from engine.atlas.verify import Problem, composition, divergence_agrees
from engine.errors import BlindspotError
from tests.engine.atlas.test_verify import alter, reseal, verify

FILES = ("divergence.parquet", "changes.parquet", "metrics.parquet", "composition.npz")


@pytest.fixture
def spoiled_path(analysed_path, tmp_path):
    return shutil.copytree(analysed_path, tmp_path / "spoiled")


def complaints(path, name):
    """What `verify` finds in one of the files, without reading all the others."""
    atlas, found = Atlas.open(path), []
    try:
        if name == "composition":
            found += composition(atlas)
        else:
            found += checks.TABLES[name](checks.exact_table(path, name), atlas.info)
            found += divergence_agrees(atlas)
    except BlindspotError as error:
        found.append(str(error))
    return found


def dense(atlas, source):
    """[tokens, K] float64 token codes."""
    return atlas.codes(source).rows().toarray().astype(np.float64)


def vectors(atlas, source):
    index = faiss.read_index(str(atlas.path / "images.faiss"))
    return index.reconstruct_n(0, index.ntotal)[list(atlas.info.image_range(source))]


def test_an_atlas_with_analyses_is_whole(analysed_path):
    assert verify(analysed_path) == []


def test_divergence_follows_from_the_image_energies(analysed):
    frame = analysed.divergence("alpha")
    assert frame.index.name == "pair" and len(frame) == 24
    difference = (analysed.energy("alpha") - analysed.energy("real")).toarray().astype(np.float64)
    np.testing.assert_allclose(frame["l2"], np.linalg.norm(difference, axis=1), rtol=1e-5)
    live = ~analysed.concepts["dead"].to_numpy()
    np.testing.assert_allclose(frame["mean_delta"], expit(difference[:, live] / 0.8).mean(axis=1), rtol=1e-5)
    assert all(analysed.counterparts(row.image)["real"] == row.real_image for row in frame.itertuples())


def test_the_nearest_real_image_and_its_p_follow_from_the_embeddings(analysed):
    frame = analysed.divergence("alpha")
    real = vectors(analysed, "real")
    cosine = vectors(analysed, "alpha") @ real.T
    assert frame["nearest_real"].tolist() == cosine.argmax(axis=1).tolist()
    np.testing.assert_allclose(frame["nearest_real_similarity"], cosine.max(axis=1), atol=1e-6)
    natural = real @ real.T
    np.fill_diagonal(natural, -1)
    as_near = (natural.max(axis=1)[None, :] >= cosine.max(axis=1)[:, None] - 1e-7).sum(axis=1)
    np.testing.assert_allclose(frame["p"], (1 + as_near) / 25, rtol=1e-6)


@pytest.mark.parametrize("source", ["real", "alpha", "beta"])
def test_composition_is_that_of_the_dense_matrix(analysed, source):
    found = analysed.composition(source)
    both = {name: (codes := dense(analysed, name)).T @ codes / 24 for name in ("real", source)}
    matrix = both[source]
    assert (found.images, found.tokens, found.entries) == (24, 24 * 69, np.count_nonzero(matrix))
    for place in (0, 30, 60, 79):
        above = matrix > found.eps[place]
        assert found.l0[place] == above.sum()
        if above.any():
            lacking = above & (both["real"] <= found.eps[place])
            assert found.unique[place] == pytest.approx(lacking.sum() / above.sum(), abs=1e-6)
    values = linalg.eigvalsh(24 * matrix)[::-1]
    np.testing.assert_allclose(found.eigenvalues, values[: len(found.eigenvalues)], atol=1e-6 * values[0])
    leading = found.eigenvectors[:, :5]
    np.testing.assert_allclose(24 * matrix @ leading, leading * found.eigenvalues[:5], atol=2e-3 * values[0])


def test_real_images_lack_nothing_of_themselves_but_a_half_does_of_the_other(analysed):
    found = analysed.composition("real")
    assert (found.unique == 0).all() and 0 < np.nanmean(found.reference) < 1
    np.testing.assert_array_equal(found.reference, analysed.composition("alpha").reference)


def test_changes_are_those_of_the_dense_cosines_largest_first(analysed):
    frame = analysed.changes("alpha")
    assert len(frame) and (frame["first"] < frame["second"]).all()
    change = (frame["model"] - frame["real"]).abs()
    assert (change.diff().dropna() <= 1e-6).all()
    row = frame.iloc[0]
    for side, name in (("real", "real"), ("model", "alpha")):
        one, other = dense(analysed, name)[:, [row["first"], row["second"]]].T
        assert row[side] == pytest.approx(
            one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12), abs=1e-5
        )
        together = (one * other > 0).reshape(24, -1)
        assert row[f"{side}_tokens"] == together.sum() and row[f"{side}_images"] == together.any(axis=1).sum()
    assert row["first_label"] == analysed.concepts["label"][row["first"]]


def test_metrics_stand_beside_those_of_two_real_halves(analysed):
    frame = analysed.metrics().set_index(["model", "space"])
    assert len(frame) == 6 and frame.loc["real halves", "images"].tolist() == [12, 12]
    real, model = (vectors(analysed, name).astype(np.float64) for name in ("real", "alpha"))
    covariance = [np.cov(side.T) for side in (real, model)]
    root = np.linalg.eigvals(covariance[0] @ covariance[1]).astype(complex)
    fid = ((real.mean(0) - model.mean(0)) ** 2).sum() + sum(map(np.trace, covariance)) - 2 * np.sqrt(root).real.sum()
    row = frame.loc["alpha", "encoder"]
    assert row["fid"] == pytest.approx(fid, rel=1e-4) and row["fid"] == pytest.approx(
        row["fid_mean"] + row["fid_covariance"]
    )
    assert row["fid_half"] > row["fid"]
    halves = frame.loc["real halves"]
    assert (halves["fid"] == halves["fid_half"]).all()


def test_frames_are_the_callers_own(analysed):
    for get in (lambda: analysed.divergence("alpha"), lambda: analysed.changes("alpha"), analysed.metrics):
        first = get()
        first.iloc[:, -1] = -7
        assert not get().equals(first)


def test_an_older_atlas_opens_verifies_and_says_what_it_lacks(atlas):
    asked = {
        "divergence": lambda: atlas.divergence("alpha"),
        "changes": lambda: atlas.changes("alpha"),
        "metrics": atlas.metrics,
        "composition": lambda: atlas.composition("real"),
    }
    for name, ask in asked.items():
        assert not atlas.has(name)
        with pytest.raises(
            BlindspotError, match=f"built before {name} was measured: run `python -m precompute run` again"
        ):
            ask()


def test_has_knows_tables_analyses_and_folders(analysed):
    names = ("divergence", "changes", "metrics", "composition", "delta", "codes", "energy/alpha")
    assert all(analysed.has(name) for name in names) and not analysed.has("links") and not analysed.has("composition/x")


def test_what_cannot_be_asked_is_a_sentence(analysed):
    with pytest.raises(BlindspotError, match="'beta' of atlas 'synthetic' shares no captions"):
        analysed.divergence("beta")
    with pytest.raises(BlindspotError, match="'real' is the real source"):
        analysed.changes("real")
    for ask in (analysed.divergence, analysed.changes, analysed.composition):
        with pytest.raises(BlindspotError, match="has no source 'gamma'"):
            ask("gamma")


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("divergence", {"pair": 1}, "a pair of 'alpha' is there twice"),
        ("divergence", {"image": 60}, "an image is none of 'alpha'"),
        ("divergence", {"real_image": 30}, "a real_image is no real image"),
        ("divergence", {"real_image": 5}, "the pairs of 'alpha' are not those in images.parquet"),
        ("divergence", {"nearest_real": -1}, "a nearest_real is no real image"),
        ("divergence", {"l2": 0.0}, "the divergence of 'alpha' is not that of its energies"),
        ("divergence", {"l2": -1.0}, "l2 is not between 0 and inf"),
        ("divergence", {"mean_delta": float("nan")}, "mean_delta is not between 0 and 1"),
        ("divergence", {"nearest_real_similarity": 1.5}, "nearest_real_similarity is not between -1 and 1"),
        ("divergence", {"p": 2.0}, "p is not between 0 and 1"),
        ("divergence", {"model": "beta"}, "'beta' is no paired model"),
        ("changes", {"model": "gamma"}, "'gamma' is no model of this atlas"),
        ("changes", {"first": 96}, "not of two concepts in rising order"),
        ("changes", {"real_cosine": 1.2}, "real_cosine is not between 0 and 1"),
        ("changes", {"model_images": 10**6}, "in more images than tokens of the model source"),
        ("changes", {"p": 1.0, "p_adjusted": 0.5}, "an adjusted p is smaller"),
        ("metrics", {"model": "gamma"}, "its rows are not one per model and space"),
        ("metrics", {"space": "pixels"}, "its rows are not one per model and space"),
        ("metrics", {"fid": -1.0}, "fid is not between 0 and inf"),
        ("metrics", {"recall": 1.5}, "recall is not between 0 and 1"),
    ],
)
def test_tables_that_cannot_be_true_are_found(spoiled_path, name, columns, message):
    alter(spoiled_path, name, **columns)
    found = complaints(spoiled_path, name)
    assert any(message in complaint for complaint in found), found


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("alpha/l0", lambda array: array[::-1], "'alpha': its L0 curve rises"),
        ("alpha/size", lambda array: array + 1, "'alpha': its images and rows are not the header's"),
        ("real/unique", lambda array: array + 2, "'real': unique is not between 0 and 1"),
        ("beta/eigenvalues", lambda array: -array, "'beta': its eigenvalues are negative or rise"),
        ("beta/eigenvectors", lambda array: 2 * array, "'beta': an eigenvector is not of length 1"),
        ("beta/eigenvectors", lambda array: array[1:], "'beta': it has not one eigenvector over all concepts"),
        ("eps", lambda array: array[::-1], "'real': its curves do not share one rising list"),
        ("eps", lambda array: np.array([{}]), "is damaged"),
        ("real/l0", None, "is damaged"),
    ],
)
def test_a_composition_that_cannot_be_true_is_found(spoiled_path, key, change, message):
    file = spoiled_path / "composition.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    array = arrays.pop(key)
    np.savez(file, **arrays, **({key: change(array)} if change else {}))
    found = complaints(spoiled_path, "composition")
    assert any(message in complaint for complaint in found), found


def test_a_truncated_composition_is_a_sentence(spoiled_path):
    file = spoiled_path / "composition.npz"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(BlindspotError, match=r"composition\.npz is damaged"):
        Atlas.open(spoiled_path).composition("real")


def test_verify_asks_all_of_them(spoiled_path):
    for name in ("divergence", "changes", "metrics"):
        alter(spoiled_path, name, model="gamma")
    (spoiled_path / "composition.npz").write_bytes(b"nonsense")
    reseal(spoiled_path)
    assert {problem.file for problem in verify(spoiled_path)} == set(FILES)


def test_each_of_them_may_be_missing(spoiled_path):
    for file in FILES:
        (spoiled_path / file).unlink()
        assert all(
            problem == Problem(problem.file, "is listed in the header but missing") for problem in verify(spoiled_path)
        )
