"""Images that people bring: kept in this process for a while under a hash of their content, never on the disk."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from threading import Lock
from typing import BinaryIO, NamedTuple

import streamlit as st
from PIL import Image

from engine.atlas import Atlas
from engine.samplers.inspection import Inspection, foreign_image
from pages.widgets import session
from pages.widgets.html import data_uri

KEPT, MOST = 64, 16
"""Uploads of all people that are kept, the last ones, and most images that one person brings at a time."""
SIDE, SHOWN, TILE = 1024, 512, 224
"""Longer side of a kept image, of the one that is shown and of those under heat maps, in pixels."""


class Upload(NamedTuple):
    """An image somebody brought."""

    key: str
    name: str
    image: Image.Image
    size: tuple[int, int]
    """Width and height of the file."""
    shown: str
    """The image as a data address."""
    tile: str
    """The same, smaller."""


class _Uploads:
    """The last uploads, and what the atlases see in them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str], Inspection] = OrderedDict()
        self._lock = Lock()

    def add(self, upload: Upload) -> None:
        with self._lock:
            self._kept[upload.key] = upload
            self._kept.move_to_end(upload.key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def get(self, key: str) -> Upload | None:
        with self._lock:
            return self._kept.get(key)

    def inspected(self, atlas: Atlas, upload: Upload) -> Inspection:
        name = (session.version(atlas), upload.key)
        with self._lock:
            found = self._seen.get(name)
        if found is None:
            found = foreign_image(atlas, upload.image)
            with self._lock:
                self._seen[name] = found
                while len(self._seen) > KEPT:
                    self._seen.popitem(last=False)
        return found


@st.cache_resource(show_spinner=False)
def uploads() -> _Uploads:
    """The uploads of this process."""
    return _Uploads()


def key_of(file: BinaryIO) -> str:
    """Return the key of an uploaded file: a hash of its content."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def keep(file: BinaryIO) -> str:
    """Keep an uploaded image and return its key.

    Raises
    ------
    BlindspotError
        If it is no image that can be read.
    """
    key = key_of(file)
    if uploads().get(key) is None:
        from engine.vision.preprocess import load_image  # which brings torch: for those who upload

        file.seek(0)
        named = io.BytesIO(file.read())
        named.name = getattr(file, "name", "upload")
        image = load_image(named)
        size = image.size
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        uploads().add(Upload(key, named.name, image, size, _encoded(image, SHOWN), _encoded(image, TILE)))
    return key


def _encoded(image: Image.Image, side: int) -> str:
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.save(buffer, "WEBP", quality=88)
    return data_uri(buffer.getvalue(), "webp")
