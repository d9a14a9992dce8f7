"""`python -m precompute import-saediff`: published numbers come back unchanged, contradictions are one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.atlas import Atlas
from engine.atlas.verify import verify
from engine.blindspots.delta import delta_of_gap
from engine.errors import BlindspotError
from precompute.saediff.sides import implied_real, rounding
from tests.engine.atlas.test_verify import alter
from tests.precompute.enriched import CONCEPTS, Truth, document, make_truth, write_all, write_enriched

HOST = "http://images.example"
CONTRADICTED = "change its sign and that of relative_energy_diff first."


@pytest.fixture
def command(run_command):
    """Runs the command in this process; gives exit code, stdout and stderr."""
    return partial(run_command, "import-saediff")


@pytest.fixture
def truth() -> Truth:
    return make_truth()


def imported(folder: Path, files: list[Path], **settings: Any) -> Atlas:
    from precompute.saediff.importing import import_saediff

    import_saediff(files, folder / "atlas", **settings)
    assert verify(folder / "atlas") == []
    return Atlas.open(folder / "atlas")


def test_map_deltas_and_energies_are_the_published_ones(truth: Truth, tmp_path: Path) -> None:
    atlas = imported(tmp_path, write_all(tmp_path, truth))
    assert atlas.models == ["SD15", "pixart"] and not atlas.has_images and atlas.info.published
    concepts = atlas.concepts
    np.testing.assert_allclose(concepts[["x", "y"]].to_numpy(), truth.xy, rtol=1e-6)
    assert concepts["dead"].to_numpy().nonzero()[0].tolist() == [CONCEPTS - 1]
    for model, energies in truth.models.items():
        delta = atlas.delta(model)
        np.testing.assert_allclose(delta["energy_real"], truth.real, atol=1e-9)
        np.testing.assert_allclose(delta["energy_model"], energies, atol=1e-9)
        expected = delta_of_gap(energies - truth.real)
        np.testing.assert_allclose(delta["delta"], expected, atol=1e-9)
        assert delta["delta"].to_numpy()[:-1].argsort().tolist() == expected[:-1].argsort().tolist()


def test_what_was_not_published_is_not_there(truth: Truth, tmp_path: Path) -> None:
    atlas = imported(tmp_path, write_all(tmp_path, truth))
    for estimator in atlas.estimators:
        assert atlas.delta("SD15", estimator)[["ci_low", "ci_high", "p", "q"]].isna().all(axis=None)
    assert atlas.estimators == ("gap", "relative", "share")
    with pytest.raises(BlindspotError, match="without their spread, which 'standardised' needs"):
        atlas.delta("SD15", "standardised")
    assert np.isnan(atlas.frequency()).all()
    assert atlas.exemplars("real", 3).empty and atlas.images.empty and atlas.links("real", 3).empty
    for name in ("codes", "energy", "images", "links", "thumbs", "dictionary"):
        assert not atlas.has(name)
    tables = {path.stem for path in atlas.path.iterdir()} - {"atlas"}
    assert tables == {"concepts", "delta", "energies", "neighbours", "published"}


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("links", {"url": "javascript:alert(1)"}, "'javascript:alert(1)' is no web address"),
        ("links", {"url": "http://user@images.example/a.jpg"}, "is no web address"),
        ("links", {"of": "nobody"}, "'nobody' is no source of this atlas"),
        ("links", {"concept": CONCEPTS}, "a link's concept does not exist"),
        ("delta", {"p": 0.5}, "p is filled in, though nobody published it"),
        ("delta", {"delta": 1.5}, "delta is not between 0 and 1"),
        ("energies", {"sum": -1.0}, "an energy is negative"),
        ("energies", {"images": 7}, "published statistics have a number of images"),
        ("energies", {"images_active": 7}, "images_active is filled in"),
        ("concepts", {"x": None}, "x is not finite everywhere"),
        ("published", {"concept": 5}, "its concepts are not 0 to 59 in order"),
    ],
)
def test_verify_finds_what_nobody_can_have_published(truth: Truth, tmp_path: Path, name, columns, message) -> None:
    atlas = imported(tmp_path, write_all(tmp_path, truth), images_url=HOST)
    alter(atlas.path, name, **columns)
    assert any(problem.file == f"{name}.parquet" and message in problem.message for problem in verify(atlas.path))


def test_a_damaged_origin_is_one_sentence(truth: Truth, tmp_path: Path) -> None:
    header = imported(tmp_path, write_all(tmp_path, truth)).path / "atlas.json"
    document = json.loads(header.read_text())
    for origin in ({}, {**document["origin"], "files": [3]}, {**document["origin"], "assumed": {"energy": None}}):
        header.write_text(json.dumps({**document, "origin": origin}))
        with pytest.raises(BlindspotError, match="lacks its files, missing or assumed: import it again"):
            Atlas.open(tmp_path / "atlas")


def test_neighbours_are_the_published_ones_by_strength_and_those_near_on_the_map(truth: Truth, tmp_path: Path) -> None:
    atlas = imported(tmp_path, write_all(tmp_path, truth))
    live = np.arange(CONCEPTS - 1)
    for concept in (0, 17, 40):
        alive = truth.others[concept] != CONCEPTS - 1
        found = atlas.neighbours(concept, "cooccurrence")
        assert found["other"].tolist() == truth.others[concept][alive].tolist()
        np.testing.assert_allclose(found["value"], truth.values[concept][alive], rtol=1e-6)
        distance = np.linalg.norm(truth.xy[live] - truth.xy[concept], axis=1)
        near = atlas.neighbours(concept, "map", 4)
        np.testing.assert_allclose(-near["value"], np.sort(distance)[1:5], rtol=1e-3, atol=1e-5)


def test_links_lead_to_the_given_address_and_nowhere_without_one(truth: Truth, tmp_path: Path) -> None:
    atlas = imported(tmp_path, write_all(tmp_path, truth), images_url=f"{HOST}/data/sample10k_{{model}}/")
    assert atlas.link_hosts == ("images.example",)
    address = f"{HOST}/data/sample10k_"
    assert atlas.links("real", 7)[["of", "url"]].to_numpy().tolist() == [
        ["real", f"{address}SD15/sample_1007/original.jpg"],
        ["SD15", f"{address}SD15/sample_7/original.jpg"],
        ["pixart", f"{address}pixart/sample_7/original.jpg"],
    ]
    assert atlas.links("pixart", 7)[["of", "url"]].to_numpy().tolist() == [
        ["pixart", f"{address}pixart/sample_7/ai.jpg"],
        ["real", f"{address}pixart/sample_1007/ai.jpg"],
    ]


@pytest.mark.parametrize("digits", [3, 4])
def test_without_the_real_energies_both_sides_follow_from_the_two_differences(truth: Truth, tmp_path, digits) -> None:
    elsewhere = make_truth(seed=9).real
    atlas = imported(tmp_path, write_all(tmp_path, truth, digits=digits, energy=elsewhere))
    delta = atlas.delta("SD15")
    relative = np.abs(truth.models["SD15"] - truth.real) / np.maximum(truth.models["SD15"] + truth.real, 1e-9)
    clear = (relative > 0.1) & (truth.real > 0.2)
    assert clear.sum() > 20
    np.testing.assert_allclose(delta["energy_real"][clear], truth.real[clear], rtol=30 * 10.0**-digits)
    published = atlas.published()
    np.testing.assert_allclose(published["energy"], elsewhere.round(digits))
    assert published["fires"].tolist() == truth.fires.tolist()
    assert "not the compared images'" in atlas.info.origin["assumed"]["energy"]


def test_energies_of_the_models_are_recognised_when_two_files_agree_on_the_real_ones(truth: Truth, tmp_path) -> None:
    files = [
        write_enriched(tmp_path, name, document(truth, name, energy=energies))
        for name, energies in truth.models.items()
    ]
    atlas = imported(tmp_path, files)
    np.testing.assert_allclose(atlas.delta("pixart")["energy_model"], truth.models["pixart"], atol=1e-6)
    assert "each model's own" in atlas.info.origin["assumed"]["energy"]


def test_optional_arrays_may_be_absent_and_values_null(truth: Truth, tmp_path: Path) -> None:
    content = document(truth, "SD15")
    for name in ("nb_fire", "is_dead", "connections_idx", "top_ai_image", "umap_colors", "color_diff", "umap_scale"):
        del content[name]
    content["umap_x"][3] = None
    content["energy_diff"][4] = float("nan")
    content["relative_energy_diff"][5] = None
    content["top_original_image"][6] = None
    atlas = imported(tmp_path, [write_enriched(tmp_path, "one", content)], images_url=HOST)
    assert atlas.concepts["dead"].to_numpy().nonzero()[0].tolist() == [3, 4]
    assert atlas.neighbours(0).empty and not atlas.neighbours(0, "map").empty
    assert atlas.links("one", 0).empty and atlas.links("real", 6).empty and len(atlas.links("real", 7)) == 1
    np.testing.assert_allclose(atlas.delta("one")["energy_real"][5], truth.real[5])
    assert "2 concepts" in atlas.info.origin["assumed"]["left out"]


@given(
    real=st.floats(1e-3, 1e4), model=st.floats(1e-3, 1e4), digits=st.integers(2, 6)
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_the_stated_error_of_an_implied_energy_bounds_the_rounding(real: float, model: float, digits: int) -> None:
    gap, relative = np.array([model - real, 0.123456789]), np.array([(model - real) / (model + real), 0.987654321])
    rounded = gap.round(digits), relative.round(digits)
    steps = [np.full(2, 0.5 * 10.0**-digits)] * 2
    np.testing.assert_array_less(np.abs(rounded[0] - gap), steps[0] + 1e-12)
    known = implied_real(*rounded)
    if abs(relative[0]) > 20 * steps[1][0]:
        assert abs(known.value[0] - real) <= 1.3 * known.error[0] + 1e-9 * real


def test_rounding_is_recognised() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert rounding(values.round(3))[0] == 0.5e-3
    assert rounding(values.round(3).astype(np.float32).astype(float))[0] == 0.5e-3
    assert rounding(values).max() < 1e-6


def flip(content: dict[str, Any], *names: str) -> None:
    for name in names:
        content[name] = [-value for value in content[name]]


def shorten(content: dict[str, Any], name: str) -> None:
    content[name] = content[name][:-1]


Edit = Callable[[dict[str, Any]], Any]
WRONG: list[tuple[Edit, str]] = [
    (lambda c: shorten(c, "umap_x"), "has 59 entries in umap_x, but 60 in energy_diff"),
    (lambda c: c.pop("umap_y"), "has no array umap_y"),
    (lambda c: c.pop("energy_diff"), "has no array energy_diff"),
    (lambda c: c.update(energy_diff=[]), "has no concepts"),
    (lambda c: [c.pop(name) for name in ("energy", "relative_energy_diff")], "neither relative_energy_diff nor energy"),
    (lambda c: c.update(umap_x=["left"] * 60), "something other than numbers in umap_x"),
    (lambda c: c.update(umap_x=[[1.0]] * 60), "lists in umap_x"),
    (lambda c: c.update(energy=5), "something other than an array in energy"),
    (lambda c: c["connections_idx"][2].append(1), "more connections_idx than connections_val"),
    (lambda c: c["connections_idx"].__setitem__(2, [60.0] * 5), "connects concept 60, but has 60 concepts"),
    (lambda c: c["top_ai_image"].__setitem__(2, "../../secret.jpg"), "names the image '../../secret.jpg'"),
    (lambda c: c["top_ai_image"].__setitem__(2, "a b.jpg"), "no plain relative path"),
    (lambda c: c["top_ai_image"].__setitem__(2, 5), "something other than a file in top_ai_image"),
    (lambda c: flip(c, "relative_energy_diff"), "contradicts itself: energy_diff and relative_energy_diff"),
    (lambda c: flip(c, "energy_diff", "relative_energy_diff"), CONTRADICTED),
    (lambda c: c.update(relative_energy_diff=[3 * value for value in c["energy_diff"]]), "lies between -1 and 1"),
    (lambda c: (flip(c, "energy_diff"), c.pop("relative_energy_diff")), "model's is below zero"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_a_wrong_file_is_one_sentence_and_leaves_nothing(command, truth, tmp_path, change, message) -> None:
    content = document(truth, "SD15")
    content["relative_energy_diff"][-1], content["energy_diff"][-1] = 0.0, 0.0
    change(content)
    file = write_enriched(tmp_path, "SD15", content)
    refused(command, [file], tmp_path, message, "--images-url", HOST)


def refused(command, files: list[Path], tmp_path: Path, message: str, *options: str) -> None:
    code, out, err = command(*files, "--out", tmp_path / "made" / "atlas", *options)
    assert code == 1 and out == "" and err.count("\n") == 1 and message in err, err
    assert not (tmp_path / "made").exists()


def test_files_that_do_not_belong_together_are_refused(command, truth: Truth, tmp_path: Path) -> None:
    one, two = write_all(tmp_path, truth)
    other = tmp_path / "other"
    other.mkdir()
    foreign = write_enriched(other, "SD15", document(make_truth(seed=1), "SD15"))
    smaller = write_enriched(other, "tiny", document(make_truth(("tiny",), 30), "tiny"))
    unlike = truth._replace(real=make_truth(seed=2).real)
    third = write_enriched(other, "third", document(unlike, "SD15", energy=truth.real))
    refused(command, [one, smaller], tmp_path, "60 concepts and")
    refused(command, [two, foreign], tmp_path, "differ in umap_x and umap_y for")
    refused(command, [two, third], tmp_path, "imply different real energies")
    refused(command, [one, one], tmp_path, "give each file another --name")
    refused(command, [one, two], tmp_path, "1 names for 2 files", "--name", "a")
    refused(command, [one], tmp_path, "cannot be a folder name", "--name", "../a")
    refused(command, [tmp_path / "absent.json"], tmp_path, "There is no file")
    for base in ("ftp://x/y", "images.example", "http://u:p@h/", "https://h/{other}", "http://h/?q=1", "http://h/'x"):
        refused(command, [one], tmp_path, "is no address that images can be linked from", "--images-url", base)


def test_both_signs_reversed_is_seen_from_two_files_alone(command, truth: Truth, tmp_path: Path) -> None:
    files = []
    for name in truth.models:
        content = document(truth, name, energy=make_truth(seed=9).real)
        flip(content, "energy_diff", "relative_energy_diff")
        files.append(write_enriched(tmp_path, name, content))
    refused(command, files, tmp_path, CONTRADICTED)


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", '{"energy": [1]}', "[" * 100_000, '{"energy_diff": [1' + "0" * 400 + "]}"]
)
def test_what_is_not_such_a_file_is_one_sentence(command, tmp_path: Path, text: str) -> None:
    refused(command, [write_enriched(tmp_path, "SD15", text)], tmp_path, "SD15__enriched.json")


def test_it_says_what_it_assumed_and_never_replaces_something_else(command, truth: Truth, tmp_path: Path) -> None:
    files = write_all(tmp_path, truth)
    code, out, err = command(*files, "--out", tmp_path / "atlas", "--name", "sd-1.5", "--name", "pix")
    assert code == 0 and err == ""
    assert out.startswith(f"{tmp_path / 'atlas'}: 59 of 60 concepts on the map, models sd-1.5, pix.\n")
    for topic in ("energy_diff", "relative_energy_diff", "energy", "nb_fire", "connections", "images"):
        assert f"- {topic}: " in out
    assert "the numbers confirm it" in out and "Not published: images; codes;" in out
    code, out, _ = command(*files, "--out", tmp_path / "atlas", "--json")
    document = json.loads(out)
    assert code == 0 and document["models"] == ["SD15", "pixart"] and document["live"] == 59
    assert Atlas.open(tmp_path / "atlas").info.origin["assumed"] == document["assumed"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    code, _, err = command(*files, "--out", tmp_path / "mine")
    assert code == 1 and "is not an atlas" in err and (tmp_path / "mine" / "notes.txt").read_text() == "keep"
