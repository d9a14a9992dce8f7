"""An export: tables and figures that say where they come from, whole or not at all."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.atlas import Atlas
from engine.atlas.schema import TABLES, table_file
from engine.errors import BlindspotError
from engine.reports.files import BROWSERS, atlas_origin, png_with_origin, svg_with_origin, write_figure
from precompute import cli
from precompute.export import METADATA, Exported, export
from precompute.saediff.importing import import_saediff
from tests.app.analyses import add_analyses
from tests.precompute.enriched import make_truth, write_all
from tests.synthetic import build_synthetic_atlas

KALEIDO = importlib.util.find_spec("kaleido") is not None


def quiet(name: str, unit: str):
    return lambda done, total: None


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas without the analyses beyond delta."""
    return build_synthetic_atlas(tmp_path_factory.mktemp("older") / "atlas", 48, 16, unpaired=("beta",))


@pytest.fixture(scope="module")
def atlas(older: Path, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    root = tmp_path_factory.mktemp("analysed")
    return Atlas.open(add_analyses(Path(shutil.copytree(older, root / "atlas"))))


@pytest.fixture(scope="module")
def made(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(atlas, tmp_path_factory.mktemp("export") / "out", quiet)


def test_every_table_of_the_atlas_is_there_with_its_numbers(atlas: Atlas, made: Exported):
    for name in TABLES:
        if not atlas.has(name):
            continue
        stored = pq.read_table(atlas.path / table_file(name)).to_pandas()
        stem = made.out / "tables" / name.replace("/", "_")
        found = pd.read_csv(f"{stem}.csv", keep_default_na=False, na_values=[""])
        assert list(found) == list(stored) and len(found) == len(stored)
        for column in stored.select_dtypes("number"):
            np.testing.assert_allclose(found[column], stored[column].astype(float), rtol=1e-6)
        beside = json.loads(Path(f"{stem}.json").read_text())
        assert beside["rows"] == len(stored) and list(beside["columns"]) and beside["what"] == stem.name
    words = pd.read_csv(made.out / "tables" / "concepts.csv")["words"]
    assert words[1] == "; ".join(atlas.concepts["words"][1])


def test_the_composition_is_tables_of_curves_and_spectra(atlas: Atlas, made: Exported):
    curves = pd.read_csv(made.out / "tables" / "composition_curves.csv")
    own = curves[curves["source"] == "alpha"]
    assert own["l0"].tolist() == atlas.composition("alpha").l0.tolist()
    spectrum = pd.read_csv(made.out / "tables" / "composition_spectrum.csv").query("source == 'real'")
    np.testing.assert_allclose(spectrum["eigenvalue"], atlas.composition("real").eigenvalues / 16, rtol=1e-9)
    assert spectrum["rank"].tolist() == list(range(1, len(spectrum) + 1))


def test_parquet_says_where_it_comes_from(atlas: Atlas, tmp_path: Path):
    made = export(atlas, tmp_path / "out", quiet, table_format="parquet", figure_formats=())
    assert made.figures == [] and "tables/delta.parquet" in made.tables
    table = pq.read_table(tmp_path / "out" / "tables" / "delta.parquet")
    assert table.equals(pq.read_table(atlas.path / "delta.parquet"))
    assert json.loads(table.schema.metadata[METADATA]) == atlas_origin(atlas, "delta")


def test_the_origin_names_project_version_recipe_and_content(atlas: Atlas, older: Path, tmp_path: Path):
    found = atlas_origin(atlas, "delta")
    assert found["project"] == "blindspot-atlas" and re.fullmatch(r"\d+\.\d+\.\d+", found["version"])
    header = json.loads((older / "atlas.json").read_text())
    moved = shutil.copytree(older, tmp_path / "moved")
    assert atlas_origin(Atlas.open(moved), "delta") == atlas_origin(Atlas.open(older), "delta")
    header["stages"] = {"synthetic": {"seed": 1}}
    (moved / "atlas.json").write_text(json.dumps(header))
    other = atlas_origin(Atlas.open(moved), "delta")
    assert other["recipe fingerprint"] != found["recipe fingerprint"]
    assert other["content fingerprint"] == atlas_origin(Atlas.open(older), "delta")["content fingerprint"]


def test_every_figure_that_the_atlas_supports_is_there(made: Exported):
    names = {Path(file).stem for file in made.figures}
    for model in ("alpha", "beta"):
        assert {f"map_{model}", f"ranking_{model}", f"frequency_{model}", f"directions_{model}"} <= names
    assert {"distribution", "correlation_delta_pearson", "scatter_relative", "divergence", "copies_alpha"} <= names
    assert {"composition_l0", "composition_unique", "composition_spectrum", "dictionary_l0"} <= names
    assert "copies_beta" not in names and "shares no captions" in made.skipped["copies_beta"]
    assert json.loads((made.out / "export.json").read_text())["skipped"] == made.skipped


def test_pages_need_no_network_and_carry_their_origin(atlas: Atlas, made: Exported):
    folder = made.out / "figures"
    assert (folder / "plotly.min.js").stat().st_size > 10**6
    for file in folder.glob("*.html"):
        page, origin = file.read_text(), atlas_origin(atlas, file.stem)
        assert 'src="plotly.min.js"' in page and "https://cdn" not in page
        assert f'<meta name="recipe fingerprint" content="{origin["recipe fingerprint"]}">' in page
        assert f'<meta name="version" content="{origin["version"]}">' in page and "<p>" in page


def test_json_figures_open_in_plotly_and_say_how_to_be_read(atlas: Atlas, made: Exported):
    for file in (made.out / "figures").glob("*.json"):
        meta = plotly.io.read_json(file).layout.meta
        assert meta["how"] == meta["origin"]["how to read"] and meta["origin"]["title"]
        assert meta["origin"]["content fingerprint"] == atlas_origin(atlas, "")["content fingerprint"]


def test_an_older_atlas_is_exported_as_far_as_it_goes(older: Path, tmp_path: Path):
    made = export(Atlas.open(older), tmp_path / "out", quiet, figure_formats=("json",))
    assert "tables/delta.csv" in made.tables and "tables/divergence.csv" not in made.tables
    assert "figures/distribution.json" in made.figures
    assert "python -m precompute run" in made.skipped["divergence"] and "composition_l0" in made.skipped
    assert not (tmp_path / "out" / "figures" / "plotly.min.js").exists()


def test_published_statistics_are_exported_as_far_as_they_go(tmp_path: Path):
    import_saediff(write_all(tmp_path, make_truth()), tmp_path / "atlas")
    atlas = Atlas.open(tmp_path / "atlas")
    made = export(atlas, tmp_path / "out", quiet, figure_formats=("json",))
    names = {Path(file).stem for file in made.figures}
    assert {"maps", "distribution", "scatter_delta"} | {f"ranking_{model}" for model in atlas.models} <= names
    assert "published statistics and no images" in made.skipped["composition_l0"] and "divergence" in made.skipped


def test_only_an_earlier_export_is_replaced(older: Path, tmp_path: Path):
    out, atlas = tmp_path / "out", Atlas.open(older)
    export(atlas, out, quiet, figure_formats=())
    (out / "tables" / "delta.csv").write_text("old")
    export(atlas, out, quiet, figure_formats=())
    assert (out / "tables" / "delta.csv").read_text() != "old"
    (out / "export.json").unlink()
    with pytest.raises(BlindspotError, match="exists and is not an export"):
        export(atlas, out, quiet, figure_formats=())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_damaged_table_leaves_the_earlier_export_as_it_was(older: Path, tmp_path: Path):
    path = Path(shutil.copytree(older, tmp_path / "atlas"))
    export(Atlas.open(path), tmp_path / "out", quiet, figure_formats=())
    before = (tmp_path / "out" / "export.json").read_bytes()
    (path / "neighbours.parquet").write_bytes(b"nonsense")
    with pytest.raises(BlindspotError, match=r"neighbours\.parquet is damaged"):
        export(Atlas.open(path), tmp_path / "out", quiet, figure_formats=())
    assert (tmp_path / "out" / "export.json").read_bytes() == before
    assert {found.name for found in tmp_path.iterdir()} == {"atlas", "out"}


def test_unknown_formats_are_a_sentence(older: Path, tmp_path: Path):
    with pytest.raises(BlindspotError, match="choose csv or parquet"):
        export(Atlas.open(older), tmp_path / "out", quiet, table_format="xlsx")
    with pytest.raises(BlindspotError, match="choose from html, json, png, svg"):
        export(Atlas.open(older), tmp_path / "out", quiet, figure_formats=("html", "pdf"))
    assert list(tmp_path.iterdir()) == []


ORIGIN = {"atlas": "Tüte & <Co>", "recipe fingerprint": "abc", "how to read": 'left: "less"'}


def test_a_png_carries_its_origin_and_the_same_pixels():
    drawn = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(pixels).save(drawn, "PNG")
    with Image.open(io.BytesIO(png_with_origin(drawn.getvalue(), ORIGIN))) as picture:
        assert picture.text == ORIGIN and (np.asarray(picture) == pixels).all()


def test_an_svg_carries_its_origin_in_its_metadata():
    drawn = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="3"><path d="M0 0"/></svg>'
    root = ElementTree.fromstring(svg_with_origin(drawn, ORIGIN))
    assert root[0].tag.endswith("metadata") and json.loads(root[0].text) == ORIGIN and root[1].tag.endswith("path")


def test_pictures_without_kaleido_are_a_sentence(older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(BlindspotError, match="kaleido, which is not installed: run `pip install kaleido`"):
        export(Atlas.open(older), tmp_path / "out", quiet, figure_formats=("svg",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.browser
@pytest.mark.skipif(not KALEIDO or not any(map(shutil.which, BROWSERS)), reason="needs kaleido and Chromium")
def test_pictures_are_drawn_by_kaleido(tmp_path: Path):
    figure = go.Figure(go.Bar(y=[1, 2])).update_layout(title_text="two bars", height=300, meta={"how": "taller: more"})
    png, svg = write_figure(figure, tmp_path / "bars", ("png", "svg"), ORIGIN)
    with Image.open(png) as picture:
        assert picture.size == (2200, 600) and picture.text["recipe fingerprint"] == "abc"
    assert json.loads(ElementTree.parse(svg).getroot()[0].text)["title"] == "two bars"


@pytest.mark.parametrize(("options", "folders"), [((), {"tables", "figures"}), (("--tables",), {"tables"})])
def test_the_command_writes_what_is_asked_for(older: Path, tmp_path: Path, monkeypatch, capsys, options, folders):
    words = ["export", str(older), "--out", str(tmp_path / "out"), "--figure-format", "json", "--json", *options]
    monkeypatch.setattr(sys, "argv", ["precompute", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = json.loads(capsys.readouterr().out)
    assert caught.value.code == 0 and said["out"] == str(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == folders
    assert all((tmp_path / "out" / file).is_file() for file in said["tables"] + said["figures"])
