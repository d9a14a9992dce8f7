import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from engine.atlas import Atlas
from engine.blindspots.delta import ESTIMATORS
from engine.errors import BlindspotError
from tests.synthetic import build_synthetic_atlas, default_planted


def edit_header(path, **changes) -> None:
    header = path / "atlas.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), **changes}))


def test_reading_loads_no_torch_and_no_numba(atlas_path):
    code = (
        "import sys; from engine.atlas import Atlas; a = Atlas.open(sys.argv[1]); a.delta('alpha'); a.heatmap(0, 0); "
        "sys.exit(bool({'torch', 'numba', 'umap', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, atlas_path], cwd=Path(__file__).parents[3]).returncode == 0


def test_a_missing_folder_says_how_to_build_one(tmp_path):
    with pytest.raises(BlindspotError, match=r"no atlas at .*nowhere: build one with"):
        Atlas.open(tmp_path / "nowhere")


def test_another_folder_is_not_an_atlas(tmp_path):
    with pytest.raises(BlindspotError, match=r"is not an atlas, it has no atlas.json"):
        Atlas.open(tmp_path)


def test_a_newer_atlas_is_refused(copy_path):
    edit_header(copy_path, version=2)
    with pytest.raises(BlindspotError, match="version 2, newer than"):
        Atlas.open(copy_path)


def test_a_truncated_header_is_damage(copy_path):
    (copy_path / "atlas.json").write_text('{"format": "blind')
    with pytest.raises(BlindspotError, match=r"atlas.json is damaged"):
        Atlas.open(copy_path)


def test_a_missing_or_truncated_file_is_one_sentence_when_it_is_asked_for(copy_path):
    atlas = Atlas.open(copy_path)
    (copy_path / "exemplars.parquet").unlink()
    (copy_path / "energies.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(BlindspotError, match=r"exemplars.parquet is missing"):
        atlas.exemplars("real", 0)
    with pytest.raises(BlindspotError, match=r"energies.parquet is damaged"):
        atlas.delta("alpha")
    assert atlas.caption(0)


def test_concepts_have_their_place_and_words(atlas):
    frame = atlas.concepts
    assert list(frame.columns) == ["x", "y", "cluster", "label", "label_origin", "words", "dead"]
    assert (frame.index == np.arange(96)).all()
    assert frame["words"][1][0] == "ring"


def test_frames_are_the_callers_own(atlas):
    for get in (lambda: atlas.concepts, lambda: atlas.images, lambda: atlas.delta("alpha"), atlas.labels):
        first = get()
        first.iloc[:, 0] = first.iloc[0, 0]
        assert not get().equals(first)


@pytest.mark.parametrize("model", ["alpha", "beta"])
def test_the_stored_delta_is_the_recomputed_one(atlas, model):
    import pyarrow.parquet as pq

    stored = pq.read_table(atlas.path / "delta.parquet").to_pandas().query("model == @model").set_index("concept")
    frame = atlas.delta(model)
    for column in ("gap", "relative", "delta", "ci_low", "ci_high", "p", "q"):
        np.testing.assert_allclose(frame[column], stored[column], rtol=1e-9, atol=1e-12)


def student(atlas, model, degrees):
    """[K] the 97.5 % quantile, with no more degrees of freedom than images that show the concept, less one."""
    shown = sum(atlas.energy(name).getnnz(axis=0) for name in ("real", model))
    return stats.t.ppf(0.975, np.minimum(degrees, np.maximum(shown - 1, 1)))


def test_delta_follows_from_the_image_energies(atlas):
    frame = atlas.delta("alpha", temperature=2.0)
    differences = (atlas.energy("alpha") - atlas.energy("real")).toarray().astype(np.float64)
    np.testing.assert_allclose(frame["gap"], differences.mean(0), atol=1e-5)
    np.testing.assert_allclose(frame["delta"], 1 / (1 + np.exp(-differences.mean(0) / 2)), atol=1e-5)
    reach = student(atlas, "alpha", 23) * differences.std(0, ddof=1) / np.sqrt(24)
    np.testing.assert_allclose(frame["ci_low"], 1 / (1 + np.exp(-(differences.mean(0) - reach) / 2)), atol=1e-4)


def test_an_unpaired_model_says_so_and_has_welchs_interval(atlas):
    assert atlas.delta("alpha")["paired"].all()
    frame = atlas.delta("beta", temperature=1.0)
    assert not frame["paired"].any()
    real, model = (atlas.energy(name).toarray().astype(np.float64) for name in ("real", "beta"))
    variances = real.var(0, ddof=1) / 24, model.var(0, ddof=1) / 24
    with np.errstate(invalid="ignore"):
        welch = sum(variances) ** 2 / (sum(variance**2 for variance in variances) / 23)
    reach = student(atlas, "beta", np.nan_to_num(welch, nan=23)) * np.sqrt(sum(variances))
    np.testing.assert_allclose(frame["ci_high"], 1 / (1 + np.exp(-(frame["gap"] + reach))), atol=1e-4)


def test_p_does_not_depend_on_the_estimator(atlas):
    frames = [atlas.delta("alpha", estimator) for estimator in ESTIMATORS]
    assert all((frame[["p", "q"]] == frames[0][["p", "q"]]).all(axis=None) for frame in frames)
    assert len({tuple(frame["delta"]) for frame in frames}) == len(frames)


def test_the_atlas_sets_the_temperature_of_its_own_estimator_only(copy_path, atlas):
    edit_header(copy_path, delta={"estimator": "gap", "temperature": 3.0, "suppressed": 0.2, "exaggerated": 0.8})
    changed = Atlas.open(copy_path)
    np.testing.assert_array_equal(changed.delta("alpha")["delta"], atlas.delta("alpha", temperature=3.0)["delta"])
    np.testing.assert_array_equal(changed.delta("alpha", "share")["delta"], atlas.delta("alpha", "share")["delta"])
    deltas = changed.delta("alpha")["delta"].to_numpy()
    assert ((changed.status("alpha") == "suppressed") == (deltas < 0.2)).all()
    assert ((changed.status("alpha", exaggerated=0.6) == "exaggerated") == (deltas > 0.6)).all()


def test_planted_blindspots_stand_out(tmp_path):
    models = ("alpha", "beta")
    atlas = Atlas.open(build_synthetic_atlas(tmp_path / "atlas", 96, 60, models))
    planted = default_planted(96, models)
    lost, loved = planted["alpha"]["suppressed"], planted["beta"]["exaggerated"]
    assert (atlas.status("alpha")[lost] == "suppressed").mean() > 0.7
    assert (atlas.status("beta")[loved] == "exaggerated").all()
    others = np.setdiff1d(np.arange(96), lost)
    assert np.median(atlas.delta("alpha")["delta"][others]) == pytest.approx(0.5, abs=0.1)


def test_frequency_is_the_share_of_real_images(atlas):
    np.testing.assert_allclose(atlas.frequency(), (atlas.energy("real").toarray() > 0).mean(0))


def test_heat_maps_are_the_patch_codes(atlas):
    codes = atlas.codes("alpha").rows().toarray().reshape(24, 69, 96)
    for image, concept in [(24, 0), (30, 17), (47, 95)]:
        heat = atlas.heatmap(image, concept)
        assert (heat.shape, heat.dtype) == ((8, 8), np.float32)
        np.testing.assert_array_equal(heat.ravel(), codes[image - 24, 5:, concept])


def test_energies_are_the_sums_of_all_token_codes(atlas):
    sums = atlas.codes("beta").rows().toarray().reshape(24, 69, 96).astype(np.float64).sum(1)
    np.testing.assert_allclose(atlas.energy("beta").toarray(), sums, rtol=2e-3)


def test_exemplars_are_the_images_with_the_highest_mean_patch_code(atlas):
    frame = atlas.exemplars("alpha", 2, 4)
    means = np.array([atlas.heatmap(image, 2).mean() for image in range(24, 48)])
    expected = 24 + np.argsort(-means)[: len(frame)]
    assert list(frame.columns) == ["rank", "image", "score", "caption", "pair"]
    assert frame["image"].tolist() == expected.tolist()
    np.testing.assert_allclose(frame["score"], means[expected - 24], rtol=2e-3)
    assert frame["caption"].tolist() == [atlas.caption(image) for image in frame["image"]]
    assert frame["pair"].tolist() == (frame["image"] - 24).tolist()


def test_counterparts_share_the_pair(atlas):
    assert atlas.counterparts(3) == {"alpha": 27}
    assert atlas.counterparts(27) == {"real": 3}
    assert atlas.counterparts(50) == {}


def test_neighbours_fall_in_value(atlas):
    for kind in ("cooccurrence", "atom", "map"):
        frame = atlas.neighbours(5, kind, 6)
        assert 0 < len(frame) <= 6
        assert (frame["value"].diff().dropna() <= 0).all()
        assert 5 not in frame["other"].tolist()


def test_the_image_that_is_asked_about_is_not_its_own_neighbour(atlas):
    frame = atlas.nearest_images(5, count=71)
    assert sorted([*frame["image"], 5]) == list(range(72))
    assert set(atlas.nearest_images(5, "beta", 99)["image"]) == set(range(48, 72))


def test_search_finds_numbers_labels_and_words(atlas):
    assert atlas.search("7")["concept"][0] == 7
    found = atlas.search("ring", 3)
    assert found["label"].str.contains("ring").all()
    assert atlas.search("zebra").empty


def test_labels_are_optional(atlas, copy_path):
    assert set(atlas.labels()["attribute"]) == {"background", "kind", "colour"}
    (copy_path / "labels.parquet").unlink()
    assert Atlas.open(copy_path).labels() is None


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda a: a.delta("real"), "no model 'real': choose one of alpha, beta"),
        (lambda a: a.delta("alpha", "odds"), "no delta estimator 'odds'"),
        (lambda a: a.energy("../real"), "no source '../real'"),
        (lambda a: a.codes("gamma"), "no source 'gamma'"),
        (lambda a: a.exemplars("real", 96), "no concept 96 in this atlas: they go from 0 to 95"),
        (lambda a: a.exemplars("../..", 0), "no source '../..'"),
        (lambda a: a.heatmap(72, 0), "no image 72 in this atlas: they go from 0 to 71"),
        (lambda a: a.heatmap(0, -1), "no concept -1"),
        (lambda a: a.thumb_bytes(-1), "no image -1"),
        (lambda a: a.image(10**9), "no image 1000000000"),
        (lambda a: a.neighbours(0, "friend"), "no 'friend' neighbours: choose cooccurrence, atom, map"),
        (lambda a: a.nearest_images(np.ones(3)), "no vector of 32"),
        (lambda a: a.nearest_images(0, "gamma"), "no source 'gamma'"),
    ],
)
def test_bad_questions_are_answered_in_one_sentence(atlas, ask, message):
    with pytest.raises(BlindspotError, match=message):
        ask(atlas)


def test_a_source_named_like_a_path_is_refused(copy_path):
    sources = json.loads((copy_path / "atlas.json").read_text())["sources"]
    edit_header(copy_path, sources=[sources[0], {**sources[1], "name": "../../secrets"}])
    with pytest.raises(BlindspotError, match="cannot be a folder name"):
        Atlas.open(copy_path)


def test_models_resolve_to_folders_or_hub_ids(copy_path):
    atlas = Atlas.open(copy_path)
    encoder = copy_path.parent / "encoder"
    encoder.mkdir()
    assert atlas.resolve("../encoder") == encoder
    assert atlas.resolve(str(encoder)) == encoder
    assert atlas.resolve("facebook/dinov2-base") == "facebook/dinov2-base"


@pytest.mark.parametrize(
    "ref", ["../missing", "/missing/model", "../../etc/passwd", "a/b/c", "~/model", "", ".", "https://x/y"]
)
def test_anything_else_is_no_model(atlas, ref):
    with pytest.raises(BlindspotError, match="refers to the model"):
        atlas.resolve(ref)


def test_many_threads_get_the_same_answers(atlas_path):
    def ask(atlas: Atlas) -> tuple:
        frame = atlas.exemplars("real", 1, 2)
        return atlas.delta("alpha")["delta"].sum(), atlas.heatmap(0, 0).sum(), frame["image"].tolist(), atlas.caption(5)

    atlas = Atlas.open(atlas_path)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(atlas), range(32)))
    assert all(answer == answers[0] for answer in answers)


def test_nothing_on_disk_changes(atlas_path):
    before = {path: os.stat(path).st_mtime_ns for path in atlas_path.rglob("*")}
    atlas = Atlas.open(atlas_path)
    atlas.delta("alpha"), atlas.nearest_images(0), atlas.image(0), atlas.search("ring"), atlas.labels()
    assert before == {path: os.stat(path).st_mtime_ns for path in atlas_path.rglob("*")}


def test_an_atlas_with_dead_concepts_can_be_searched_and_drawn(tmp_path):
    atlas = Atlas.open(build_synthetic_atlas(tmp_path / "atlas", 600, 2, ("alpha",)))
    dead = atlas.concepts.query("dead").index
    assert len(dead)
    assert set(atlas.concepts.loc[dead, "label"]) == {""}
    assert (atlas.delta("alpha").loc[dead, ["delta", "p", "q"]] == [0.5, 1, 1]).all(axis=None)
    assert atlas.search(str(dead[0]))["concept"][0] == dead[0]
    assert atlas.exemplars("real", dead[0]).empty
    assert atlas.neighbours(dead[0]).empty
