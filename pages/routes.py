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
from urllib.parse import parse_qsl

import plotly.io
from plotly.offline import get_plotlyjs
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import BlindspotError
from engine.figures.map import model_maps
from engine.reports import files
from pages.widgets import html, session
from pages.widgets.reports import find_report

KINDS = {
    ".js": "text/javascript",
    ".json": "application/json",
    ".webp": "image/webp",
    ".csv": "text/csv",
    ".html": "text/html",
}
DOWNLOADS = (".csv", ".html")
FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


def routes() -> list[Route]:
    """Return the app's own routes, all below ``/atlas/``."""
    answers: dict[str, Callable[[Request], bytes]] = {
        "plotly.js": lambda request: _script(),
        "facts.json": lambda request: _facts(session.atlas_path()),
        "map.json": lambda request: figure_json("map", request.query_params),
        "maps.json": lambda request: maps_json(request.query_params),
        "scatter.json": lambda request: figure_json("delta-scatter", request.query_params),
        "exhibit/{name}.{suffix}": _download,
        "thumb/{number:int}.webp": lambda request: session.atlas().thumb_bytes(_number(request, "images")),
        "best/{number:int}.webp": lambda request: _best(_number(request, "concepts")),
    }
    return [Route(f"/atlas/{{version}}/{path}", _endpoint(answer)) for path, answer in answers.items()]


def _endpoint(answer: Callable[[Request], bytes]) -> Callable:
    """Wrap a function that returns bytes into a route that runs off the event loop and answers 404 for bad input."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await run_in_threadpool(answer, request)
        except (BlindspotError, LookupError, OSError, ValueError):
            return Response("There is no such thing in this atlas.", 404, media_type="text/plain")
        path = Path(request.url.path)
        headers = {"Content-Encoding": "gzip"} if path.suffix != ".webp" else {}
        if path.suffix in DOWNLOADS:
            headers["Content-Disposition"] = f'attachment; filename="{path.name}"'
        return Response(body, media_type=KINDS[path.suffix], headers={**FOREVER, **headers})

    return endpoint


@lru_cache(maxsize=1)
def _script() -> bytes:
    return gzip.compress(get_plotlyjs().encode(), 5)


@lru_cache(maxsize=2)
def _facts(path: Path) -> bytes:
    """Return label and first words of every concept, by id: what the hover card shows."""
    concepts = session.open_atlas(path).concepts
    words = [" · ".join(list(some)[:4]) if some is not None else "" for some in concepts["words"]]
    text = json.dumps({"label": concepts["label"].fillna("").tolist(), "words": words}, ensure_ascii=False)
    return gzip.compress(text.encode(), 5)


def _number(request: Request, what: str) -> int:
    """Return the number in the address, which must be one of the atlas's ``images`` or ``concepts``."""
    number = request.path_params["number"]
    if number >= getattr(session.atlas().info, what):
        raise LookupError(number)
    return number


def _best(concept: int) -> bytes:
    """Return the thumbnail of the real image that shows a concept most."""
    image = html.best_image(concept, "real")
    if image is None:
        raise LookupError(concept)
    return session.atlas().thumb_bytes(image)


def _download(request: Request) -> bytes:
    """Return a report's figure, or a file of it to take along."""
    name, suffix = request.path_params["name"], request.path_params["suffix"]
    if suffix == "json":
        return figure_json(name, request.query_params)
    found = find_report(name, session.read(request.query_params, session.known()))
    write = {"csv": files.csv_text, "html": files.html_page}[suffix]
    origin = files.report_origin(found.report, session.atlas(), found.query)
    return gzip.compress(write(found.report, origin).encode(), 3)


def figure_json(name: str, params: Mapping[str, str]) -> bytes:
    """Return a report's figure as gzipped JSON."""
    found = find_report(name, session.read(params, session.known()))
    return _figure(session.atlas_path(), name, found.query)


@lru_cache(maxsize=16)
def _figure(path: Path, name: str, query: str) -> bytes:
    figure = find_report(name, session.read(dict(parse_qsl(query)), session.known())).report.figure
    if figure is None:
        raise LookupError(name)
    return gzip.compress(plotly.io.to_json(figure, validate=False).encode(), 3)


def maps_json(params: Mapping[str, str]) -> bytes:
    """Return the maps of the view's models in one figure as gzipped JSON; ``columns=1`` stacks them."""
    if params.get("columns") != "1":
        return figure_json("maps", params)
    view = session.read(params, session.known())
    tables = {name: session.table(view, name) for name in view.models}
    figure = model_maps(tables, basis=session.basis(view, view.models[0]), columns=1)
    return gzip.compress(plotly.io.to_json(figure, validate=False).encode(), 3)
