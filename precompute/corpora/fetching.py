"""One image from an address that somebody else wrote: bounded in size and time, and never from an inner network.

A host's name is looked up once; all its addresses must be public, and the connection goes to one of those, so that a
second answer of the name server cannot lead elsewhere. Redirects are looked at in the same way.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

REDIRECTS = 5
CHUNK = 1 << 16
CLOSE = 0.1
"""Seconds before a deadline from which whatever goes wrong is its."""
HEADERS = {"User-Agent": "blindspot-atlas (research; images of a public table)", "Accept-Encoding": "identity"}
NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that stand for IPv4 ones."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NotFetched(Exception):
    """Why an address gave no image; `kind` in a few words, by which they are counted."""

    def __init__(self, kind: str, more: str = "") -> None:
        super().__init__(f"{kind}: {more}" if more else kind)
        self.kind = kind


@dataclass(frozen=True)
class FetchLimits:
    """What a request may take."""

    bytes: int = 20_000_000
    """Largest file."""
    seconds: float = 20.0
    """For all of one image, however slowly it comes."""
    networks: tuple[Network, ...] = ()
    """Networks that are not public and may be asked all the same."""


class _Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def fetch(url: str, limits: FetchLimits) -> bytes:
    """Return the bytes of an image: its size and kind are asked for (HEAD) before it is got.

    Raises
    ------
    NotFetched
        If the address or one that it leads to is not public, or there is no image within the limits.
    """
    deadline = time.monotonic() + limits.seconds
    try:
        for _ in range(REDIRECTS + 1):
            parts = _checked(url)
            addresses = _public(parts, limits.networks)
            head = _ask("HEAD", parts, addresses, limits, deadline)
            if (status := head.status) in (301, 302, 303, 307, 308):
                url = _target(url, head)
                continue
            if status in (404, 410, 451):
                raise NotFetched(f"HTTP {status}")
            if status < 400:  # some servers do not answer HEAD
                _expect_image(head, limits)
            found = _ask("GET", parts, addresses, limits, deadline)
            if found.status in (301, 302, 303, 307, 308):
                url = _target(url, found)
                continue
            if found.status != 200:
                raise NotFetched(f"HTTP {found.status}")
            return found.body
    except (OSError, http.client.HTTPException, ValueError, NotFetched) as error:
        if isinstance(error, TimeoutError) or time.monotonic() >= deadline - CLOSE:
            raise NotFetched("too slow", f"more than {limits.seconds:g} s") from error
        if isinstance(error, NotFetched):
            raise
        if isinstance(error, ssl.SSLError):
            raise NotFetched("no secure connection", str(error)[:100]) from error
        raise NotFetched("no answer", f"{type(error).__name__} {str(error)[:100]}".strip()) from error
    raise NotFetched("too many redirects")


def _checked(url: str) -> SplitResult:
    """An address that may be asked, by its text alone."""
    if not isinstance(url, str) or len(url) > 4096 or not url.isprintable():
        raise NotFetched("no web address")
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise NotFetched("no web address") from error
    if parts.scheme not in ("http", "https") or not host or port == 0 or parts.username is not None:
        raise NotFetched("no web address")
    return parts


def _public(parts: SplitResult, allowed: Sequence[Network]) -> list[str]:
    """The addresses of a host, all of which may be asked."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(str(parts.hostname), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotFetched("unknown host") from error
    addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
    for text in addresses:
        address = ipaddress.ip_address(text)
        if not is_public(address) and not any(address in network for network in allowed):
            raise NotFetched("not a public address", text)
    return addresses


def is_public(address: Address) -> bool:
    """Whether an address, or the IPv4 address inside it, is one of the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, address.teredo[1] if address.teredo else None]
        inner += [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)] if address in NAT64 else []
        if any(one is not None and not is_public(one) for one in inner):
            return False
    return address.is_global and not address.is_multicast


def _ask(method: str, parts: SplitResult, addresses: list[str], limits: FetchLimits, deadline: float) -> _Reply:
    """The reply of the first of a host's addresses that can be reached; of GET with the body."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = str(parts.hostname)
    connection = http.client.HTTPConnection(host, port)
    for number, address in enumerate(addresses):
        try:
            connection.sock = socket.create_connection((address, port), timeout=_left(deadline))
            break
        except OSError:
            if number == len(addresses) - 1:
                raise
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    name = f"[{host}]" if ":" in host else host
    headers = {"Host": name if parts.port is None else f"{name}:{port}", **HEADERS}
    try:
        with _ended_by(deadline, connection.sock):
            if parts.scheme == "https":
                connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=host)
            connection.request(method, quote(path, safe="/%:@!$&'()*+,;=~-._?[]"), headers=headers)
            response = connection.getresponse()
            body = b"" if method == "HEAD" or response.status != 200 else _body(response, limits, deadline)
            return _Reply(response.status, response.headers, body)
    finally:
        connection.close()


@contextmanager
def _ended_by(deadline: float, connected: socket.socket) -> Iterator[None]:
    """End a connection at the deadline, however slowly its other side keeps sending."""

    # A second socket of the same connection: TLS takes the first one over.
    with socket.socket(fileno=os.dup(connected.fileno())) as same:
        ending = threading.Timer(_left(deadline), _shut, [same])
        ending.daemon = True
        ending.start()
        try:
            yield
        finally:
            ending.cancel()


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _body(response: http.client.HTTPResponse, limits: FetchLimits, deadline: float) -> bytes:
    _expect_image(_Reply(response.status, response.headers, b""), limits)
    body = bytearray()
    while True:
        _left(deadline)
        try:
            piece = response.read1(CHUNK)
        except http.client.IncompleteRead as error:
            raise NotFetched("truncated") from error
        if not piece:
            break
        body += piece
        if len(body) > limits.bytes:
            raise NotFetched("too large", f"more than {limits.bytes} bytes")
    _left(deadline)
    stated = response.headers.get("Content-Length", "")
    if stated.isdecimal() and len(body) < int(stated):
        raise NotFetched("truncated", f"{len(body)} of {stated} bytes")
    return bytes(body)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= CLOSE:
        raise TimeoutError
    return left


def _expect_image(reply: _Reply, limits: FetchLimits) -> None:
    """Raise `NotFetched` if a reply's headers rule out an image within the limits."""
    kind = reply.headers.get_content_type() if "Content-Type" in reply.headers else "application/octet-stream"
    if not kind.startswith("image/") and kind not in ("application/octet-stream", "binary/octet-stream"):
        raise NotFetched("not an image", kind[:60])
    size = reply.headers.get("Content-Length", "")
    if size.isdecimal() and int(size) > limits.bytes:
        raise NotFetched("too large", f"{size} bytes")
    if reply.headers.get("Content-Encoding", "identity") not in ("", "identity"):
        raise NotFetched("not an image", "compressed by the server")


def _target(url: str, reply: _Reply) -> str:
    """Where a redirect leads."""
    place = reply.headers.get("Location")
    if not place:
        raise NotFetched("redirect to nowhere")
    return urljoin(url, place)
