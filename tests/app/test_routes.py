"""The plain HTTP beside the pages, without a browser."""

import gzip
import json

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from engine.atlas import Atlas
from pages.routes import routes


@pytest.fixture
def client(use_atlas, plain_atlas):
    use_atlas(plain_atlas)
    return TestClient(Starlette(routes=routes()))


def test_thumbnails_are_the_atlas_s_own_bytes_and_cached_for_ever(client, plain_atlas):
    answer = client.get("/atlas/v/thumb/3.webp")
    assert answer.content == Atlas.open(plain_atlas).thumb_bytes(3)
    assert answer.headers["content-type"] == "image/webp" and "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("path", ["thumb/99999.webp", "best/99999.webp", "thumb/-1.webp", "thumb/..%2f..%2fetc.webp"])
def test_what_is_not_in_the_atlas_is_404(client, path: str):
    assert client.get(f"/atlas/v/{path}").status_code == 404


def test_the_map_holds_every_live_concept_and_its_other_colourings(client, plain_atlas):
    figure = client.get("/atlas/v/map.json?model=beta").json()
    live = int((~Atlas.open(plain_atlas).concepts["dead"]).sum())
    assert f"{live:,} concepts" in figure["layout"]["title"]["text"] and "beta" in figure["layout"]["title"]["text"]
    assert [button["label"] for button in figure["layout"]["updatemenus"][0]["buttons"]] == [
        "delta", "relative", "frequency", "cluster"
    ]  # fmt: skip


def test_comparing_serves_one_figure_and_the_scatter(client):
    assert len(client.get("/atlas/v/maps.json?models=alpha,beta").json()["data"]) == 2
    assert "Pearson r" in json.dumps(client.get("/atlas/v/scatter.json?models=alpha,beta").json()["layout"])


def test_facts_name_every_concept(client, plain_atlas):
    facts = client.get("/atlas/v/facts.json").json()
    assert len(facts["label"]) == len(facts["words"]) == Atlas.open(plain_atlas).count


def test_the_script_is_plotly_itself(client):
    answer = client.get("/atlas/v/plotly.js", headers={"accept-encoding": "gzip"})
    assert b"plotly.js v" in answer.content[:400]
    assert gzip.compress(answer.content, 1) and answer.headers["content-encoding"] == "gzip"
