"""The page of single images: ends of the ranking, the chosen pair, two models on the same captions."""

import shutil

import numpy as np
import pytest

from engine.atlas import Atlas
from engine.blindspots.divergence import compare_divergence, leading_concepts
from tests.app.analyses import add_analyses
from tests.app.test_pages import html, opened, url
from tests.synthetic import build_synthetic_atlas

PAGE = "pairs"


@pytest.fixture
def atlas(use_atlas, analysed_atlas) -> Atlas:
    use_atlas(analysed_atlas)
    return Atlas.open(analysed_atlas)


def test_the_likeliest_copies_come_first_and_then_the_largest_divergences(atlas):
    rows = atlas.divergence("beta").sort_values("l2", kind="stable")
    copies = rows.sort_values(["p", "l2"], kind="stable")
    shown = html(opened(PAGE, model="beta"))
    first, last = shown.split("Furthest: failures")
    for half, images in ((first, copies["image"][:3]), (last, rows["image"][::-1][:3])):
        places = [half.index(f'href="?image={image}"') for image in images]
        assert places == sorted(places)
    assert f"divergence {copies['l2'].iloc[0]:.2f}" in first and f"divergence {rows['l2'].iloc[-1]:.2f}" in last


def test_pairs_are_found_by_the_words_of_their_captions(atlas):
    captions = atlas.images["caption"].loc[atlas.divergence("alpha")["real_image"]]
    word = captions.iloc[3].split()[-1]
    hits = captions.str.casefold().str.contains(word.casefold(), regex=False)
    shown = html(opened(PAGE, caption=word.upper()))
    assert f"of {hits.sum()} drawn images whose caption matches" in shown
    assert "No caption has all of these words" in html(opened(PAGE, caption=f"{word} zebra"))


def test_the_chosen_pair_shows_what_the_engine_says_it_differs_in(atlas):
    pair, row = next(atlas.divergence("alpha").iterrows())
    app = opened(PAGE, image=str(int(row["image"])))
    shown, position = html(app), int(row["image"]) - atlas.info.image_range("alpha").start
    found = leading_concepts(atlas.energy("real")[[int(row["real_image"])]], atlas.energy("alpha")[[position]], 8)
    assert f"Pair {pair}<" in shown and atlas.caption(int(row["real_image"])) in shown
    places = [shown.index(f'concept={concept}&image={int(row["image"])}"') for concept in found.changed.concepts]
    assert places == sorted(places) and "--sheet:url(data:image/png" in shown
    assert url(app) == {"image": str(int(row["image"]))}


def test_a_real_image_opens_the_pair_it_belongs_to_in_every_model(atlas):
    for model in atlas.models:
        pair = int(atlas.images["pair"].iat[5])
        assert f"Pair {pair}<" in html(opened(PAGE, model=model, image="5"))


def test_without_a_choice_the_worst_pair_is_shown(atlas):
    assert f"Pair {atlas.divergence('alpha')['l2'].idxmax()}<" in html(opened(PAGE))


def test_two_models_are_compared_on_their_common_captions_and_swap(atlas):
    sides = [atlas.divergence(model)["l2"].to_numpy(np.float64) for model in ("beta", "alpha")]
    found = compare_divergence(*sides)
    app = opened(PAGE, models="beta,alpha")
    shown = html(app)
    assert f"{found.medians[0]:.2f} → {found.medians[1]:.2f}" in shown and f"{found.change:+.2f}" in shown
    app.selectbox(key="w_models_0").set_value("alpha").run()
    assert url(app) == {} and f"{-found.change:+.2f}" in html(app)


def test_an_atlas_without_divergence_says_how_to_get_it(use_atlas, plain_atlas, tmp_path):
    path = shutil.copytree(plain_atlas, tmp_path / "atlas")
    (path / "divergence.parquet").unlink(missing_ok=True)
    use_atlas(path)
    app = opened(PAGE)
    assert len(app.info) == 1 and "python -m precompute run" in app.info[0].value and html(app) == ""


def test_models_without_pairs_are_one_calm_sentence(use_atlas, tmp_path):
    models = ("alpha", "beta")
    path = build_synthetic_atlas(tmp_path / "atlas", concepts=48, pairs=8, models=models, unpaired=models)
    use_atlas(add_analyses(path))
    app = opened(PAGE)
    assert len(app.info) == 1 and "shares no captions" in app.info[0].value
