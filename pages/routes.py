"""Plain HTTP beside the pages: thumbnails, large figures and plotly's script, which browsers cache.

Every address holds a version (of the atlas or of plotly), so an answer never changes. Only whole numbers and known
model names reach the atlas: no path from a browser does.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import plotly.io
from plotly.offline import get_plotlyjs
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import BlindspotError
from engine.figures.compare import delta_scatter
from engine.figures.map import concept_map, model_maps
from pages.exhibits import files, named
from pages.widgets import data, state

KINDS = {
    ".js": "text/javascript",
    ".json": "application/json",
    ".webp": "image/webp",
    ".csv": "text/csv",
    ".html": "text/html",
}
TAKEN_ALONG = (".csv", ".html")
FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


def routes() -> list[Route]:
    """Return the app's own routes, all below ``/atlas/``."""
    return [
        Route("/atlas/{version}/plotly.js", _answer(lambda request: _script())),
        Route("/atlas/{version}/facts.json", _answer(lambda request: _facts(data.atlas_path()))),
        Route("/atlas/{version}/map.json", _answer(lambda request: map_json(request.query_params))),
        Route("/atlas/{version}/maps.json", _answer(lambda request: maps_json(request.query_params))),
        Route("/atlas/{version}/scatter.json", _answer(lambda request: scatter_json(request.query_params))),
        Route("/atlas/{version}/exhibit/{name}.{suffix}", _answer(_exhibit)),
        Route("/atlas/{version}/thumb/{number:int}.webp", _answer(lambda request: _thumb(_number(request)))),
        Route("/atlas/{version}/best/{number:int}.webp", _answer(lambda request: _best(_number(request)))),
    ]


def _answer(make: Callable[[Request], bytes]) -> Callable:
    """Wrap a function that returns bytes into a route that runs off the event loop and answers 404 for bad input."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await run_in_threadpool(make, request)
        except (BlindspotError, LookupError, OSError, ValueError):
            return Response("There is no such thing in this atlas.", 404, media_type="text/plain")
        suffix = Path(request.url.path).suffix
        headers = {"Content-Encoding": "gzip"} if suffix != ".webp" else {}
        if suffix in TAKEN_ALONG:
            headers["Content-Disposition"] = f'attachment; filename="{Path(request.url.path).name}"'
        return Response(body, media_type=KINDS[suffix], headers={**FOREVER, **headers})

    return endpoint


@lru_cache(maxsize=1)
def _script() -> bytes:
    return gzip.compress(get_plotlyjs().encode(), 5)


@lru_cache(maxsize=2)
def _facts(path: Path) -> bytes:
    """Return label and first words of every concept, by id: what the hover card shows."""
    concepts = data.open_atlas(path).concepts
    words = [" · ".join(list(some)[:4]) if some is not None else "" for some in concepts["words"]]
    text = json.dumps({"label": concepts["label"].fillna("").tolist(), "words": words}, ensure_ascii=False)
    return gzip.compress(text.encode(), 5)


def _number(request: Request) -> int:
    return request.path_params["number"]


def _exhibit(request: Request) -> bytes:
    """Return an exhibit's figure, or a file of it to take along."""
    suffix = request.path_params["suffix"]
    found = named(request.path_params["name"], _view(request.query_params))
    if suffix == "json" and found.exhibit.figure is not None:
        return _pack(found.exhibit.figure)
    write = {"csv": files.csv_text, "html": files.html_page}[suffix]
    origin = files.provenance(found.exhibit, data.current(), found.query)
    return gzip.compress(write(found.exhibit, origin).encode(), 3)


def _thumb(image: int) -> bytes:
    atlas = data.current()
    if image >= atlas.info.images:
        raise LookupError(image)
    return atlas.thumb_bytes(image)


def _best(concept: int) -> bytes:
    """Return the thumbnail of the real image that shows a concept most."""
    atlas = data.current()
    if concept >= atlas.count:
        raise LookupError(concept)
    return atlas.thumb_bytes(int(atlas.exemplars("real", concept, 1)["image"].iloc[0]))


def _view(params: Mapping[str, str]) -> state.View:
    return state.read(params, data.known(data.atlas_path()))


def map_json(params: Mapping[str, str]) -> bytes:
    """Return one model's map as gzipped figure JSON."""
    view = _view(params)
    return _map(data.atlas_path(), view.model, view.estimator, view.temperature, view.low, view.high)


@lru_cache(maxsize=16)
def _map(path: Path, model: str, estimator: str, temperature: float, low: float, high: float) -> bytes:
    view = state.View(model=model, estimator=estimator, temperature=temperature, low=low, high=high)
    return _pack(concept_map(data.table(view), model=model, basis=data.basis(view)))


def maps_json(params: Mapping[str, str]) -> bytes:
    """Return the maps of the view's models in one figure as gzipped JSON; ``columns=1`` stacks them."""
    view = _view(params)
    tables = {name: data.table(view, name) for name in view.models}
    columns = 1 if params.get("columns") == "1" else None
    return _pack(model_maps(tables, basis=data.basis(view, view.models[0]), columns=columns))


def scatter_json(params: Mapping[str, str]) -> bytes:
    """Return delta against delta of the view's first two models as gzipped figure JSON."""
    view = _view(params)
    a, b = (view.models * 2)[:2]
    return _pack(delta_scatter(data.table(view, a), data.table(view, b), names=(a, b), basis=data.basis(view, a)))


def _pack(figure: object) -> bytes:
    return gzip.compress(plotly.io.to_json(figure, validate=False).encode(), 3)
