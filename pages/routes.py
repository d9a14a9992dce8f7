"""Plain HTTP beside the pages: thumbnails, large figures and plotly's script, which browsers cache.

Every address holds a version (of the atlas or of plotly), so an answer never changes. Only whole numbers and known
model names reach the atlas: no path from a browser does.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import plotly.io
import streamlit as st
from plotly.offline import get_plotlyjs
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.figures.map import model_maps
from engine.ratings.files import FORMATS, ratings_table, table_bytes
from engine.ratings.report import rating_report
from engine.reports import files
from pages.widgets import html, ratings, session, shelf
from pages.widgets.reports import find_report

KINDS = {
    ".js": "text/javascript",
    ".json": "application/json",
    ".webp": "image/webp",
    ".csv": "text/csv",
    ".html": "text/html",
    ".parquet": "application/vnd.apache.parquet",
}
DOWNLOADS = (".csv", ".parquet", ".html")
FOREVER = {
    "Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}  # fmt: skip
VERSION = re.compile(r"[0-9a-f]{10}")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")


class KnownHosts:
    """Lets in only requests that name this machine, and that no other site's page sent.

    A page of another site can have its name resolved to 127.0.0.1 and would then read the app (DNS rebinding). What
    Streamlit itself would ask of an origin is answered here: it asks another host for this machine's address.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if not (is_known(headers.get("host", "")) and (origin is None or is_known(origin.partition("://")[2]))):
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008})
                else:
                    await PlainTextResponse("This app does not answer under that name.", 403)(scope, receive, send)
                return
            scope = scope | {"headers": [pair for pair in scope["headers"] if pair[0] != b"origin"]}
        await self.app(scope, receive, send)


def is_known(host: str) -> bool:
    """Return whether a Host header names this machine, as it was told to listen or to be reached.

    An app that listens everywhere also answers to its machine's names and to any address that is a number.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    told, allowed = st.config.get_option("server.address"), st.config.get_option("server.allowedHosts") or []
    origins = st.config.get_option("server.corsAllowedOrigins") or []
    known = {*LOOPBACK, told, st.config.get_option("browser.serverAddress"), *allowed, *map(_hostname, origins)}
    if not name:
        return False
    if name in known or any(one.startswith("*.") and name.endswith(one[1:]) for one in allowed):
        return True
    return told in (None, "", *EVERYWHERE) and (name in _own_names() or _is_number(name))


def _hostname(origin: str) -> str | None:
    return urlsplit(origin).hostname


@lru_cache(maxsize=1)
def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, f"{name}.local", socket.getfqdn().lower()}


def _is_number(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def routes() -> list[Route]:
    """Return the app's own routes, all below ``/atlas/``."""
    answers: dict[str, Callable[[Request], bytes]] = {
        "plotly.js": lambda request: _script(),
        "facts.json": lambda request: _facts(session.atlas()),
        "map.json": lambda request: figure_json("map", request.query_params),
        "maps.json": lambda request: maps_json(request.query_params),
        "scatter.json": lambda request: figure_json("delta-scatter", request.query_params),
        "exhibit/{name}.{suffix}": _download,
        "thumb/{number}.webp": lambda request: session.atlas().thumb_bytes(_number(request, "images")),
        "ratings/{study}/{token}.{suffix}": _of_study,
        "best/{number}.webp": lambda request: _best(_number(request, "concepts")),
    }
    return [Route(f"/atlas/{{version}}/{path}", _endpoint(answer)) for path, answer in answers.items()]


def _endpoint(answer: Callable[[Request], bytes]) -> Callable:
    """Wrap a function that returns bytes into a route that runs off the event loop and answers 404 for bad input."""

    async def endpoint(request: Request) -> Response:
        path = Path(request.url.path)
        try:
            with shelf.asked(_of_version(request.path_params["version"])):
                body = await run_in_threadpool(answer, request)
                name = _file_name(request) if "name" in request.path_params and path.suffix in DOWNLOADS else path.name
        except (BlindspotError, LookupError, OSError, ValueError):
            return Response("There is no such thing in this atlas.", 404, media_type="text/plain")
        headers = {}
        if path.suffix != ".webp" and accepts_gzip(request.headers.get("accept-encoding", "")):
            headers["Content-Encoding"] = "gzip"
        elif path.suffix != ".webp":
            body = await run_in_threadpool(gzip.decompress, body)
        if path.suffix in DOWNLOADS:
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return Response(body, media_type=KINDS[path.suffix], headers={**FOREVER, **headers})

    return endpoint


def _of_version(version: str) -> Path:
    """Return the atlas of a version; any word that is none stands for the app's only or first atlas."""
    paths = list(shelf.atlases().values()) or [shelf.atlas_path()]
    if not VERSION.fullmatch(version):
        return paths[0]
    for path in paths:
        with suppress(BlindspotError):
            if session.version(session.open_atlas(path)) == version:
                return path
    raise LookupError(version)  # of an atlas that was rebuilt: a browser would keep it as what it is not


def accepts_gzip(header: str) -> bool:
    """Return whether an Accept-Encoding header names gzip, or everything, with a weight above 0."""
    weights = {}
    for entry in header.lower().split(","):
        name, _, weight = entry.replace(" ", "").partition(";q=")
        weights[name] = weight.strip("0.") != "" if weight else True
    return weights.get("gzip", weights.get("*", False))


@lru_cache(maxsize=1)
def _script() -> bytes:
    return gzip.compress(get_plotlyjs().encode(), 5)


@lru_cache(maxsize=2)
def _facts(atlas: Atlas) -> bytes:
    """Return label and words of every concept, by id: what the hover card shows, and more that can be searched for."""
    concepts = atlas.concepts
    listed = [list(some) if some is not None else [] for some in concepts["words"]]
    words, more = ([" · ".join(some[part]) for some in listed] for part in (slice(4), slice(4, None)))
    known = {"label": atlas.shown_labels().tolist(), "words": words, "more": more}
    text = json.dumps(known, ensure_ascii=False)
    return gzip.compress(text.encode(), 5)


def _number(request: Request, what: str) -> int:
    """Return the number in the address, which must be one of the atlas's ``images`` or ``concepts``."""
    found = session.whole(0, getattr(session.atlas().info, what) - 1)(request.path_params["number"])
    if found is None:
        raise LookupError(what)
    return found


def _best(concept: int) -> bytes:
    """Return the thumbnail of the real image that shows a concept most."""
    image = html.best_image(concept, "real")
    if image is None:
        raise LookupError(concept)
    return session.atlas().thumb_bytes(image)


def _of_study(request: Request) -> bytes:
    """Return an item's image of a rating study; by the study's own token its ratings, once it has ended."""
    study, token, suffix = (request.path_params[name] for name in ("study", "token", "suffix"))
    opened = ratings.open_study(study)
    if suffix == "webp":
        return opened.image(token)
    if suffix not in FORMATS or token != opened.token or not opened.ended:
        raise LookupError(token)
    return gzip.compress(table_bytes(ratings_table(rating_report(opened)), suffix), 3)


def _download(request: Request) -> bytes:
    """Return a report's figure, or a file of it to take along."""
    name, suffix = request.path_params["name"], request.path_params["suffix"]
    if suffix == "json":
        return figure_json(name, request.query_params)
    found = find_report(name, session.read(request.query_params, session.known()))
    write = {"csv": files.csv_text, "parquet": files.parquet_bytes, "html": files.html_page}[suffix]
    written = write(found.report, files.report_origin(found.report, session.atlas(), found.query))
    return gzip.compress(written if isinstance(written, bytes) else written.encode(), 3)


def _file_name(request: Request) -> str:
    found = find_report(request.path_params["name"], session.read(request.query_params, session.known()))
    return f"{found.file}.{request.path_params['suffix']}"


def figure_json(name: str, params: Mapping[str, str]) -> bytes:
    """Return a report's figure as gzipped JSON."""
    found = find_report(name, session.read(params, session.known()))
    return _figure(session.atlas(), name, found.query)


@lru_cache(maxsize=16)
def _figure(atlas: Atlas, name: str, query: str) -> bytes:
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
