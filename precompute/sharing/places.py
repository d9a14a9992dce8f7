"""Where published atlases lie: a data set of the Hugging Face hub, a folder, a web address, a bucket fsspec knows."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import quote, urlsplit

from engine.errors import BlindspotError

HUB = "hf://"
SECONDS = 60
"""Until a server that sends nothing has failed."""
_HUB_ID = re.compile(r"(?:datasets/)?([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?/?")


class Place(Protocol):
    """A folder somewhere."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file in it, to read.

        Raises
        ------
        FileNotFoundError
            If there is none.
        OSError
            If it cannot be had.
        """

    def put(self, files: Mapping[str, Path]) -> None:
        """Write files under their names, the last one last.

        Raises
        ------
        BlindspotError
            If nothing can be written there.
        """


def place(where: str) -> Place:
    """The place that an address names: `hf://OWNER/NAME[@REVISION]`, `https://...`, `s3://...`, or a folder.

    Raises
    ------
    BlindspotError
        If it is none, or needs a package that is not installed.
    """
    scheme = where.partition("://")[0].lower() if "://" in where else ""
    if scheme == "hf":
        return HubPlace(where)
    if scheme in ("http", "https"):
        return WebPlace(where)
    return FilesPlace(where)


class WebPlace:
    """A folder of a web server, which is only read."""

    def __init__(self, address: str) -> None:
        if not urlsplit(address).hostname:
            raise BlindspotError(f"{address} is no web address.")
        self.address = address.rstrip("/")

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file of the server."""
        try:
            with urllib.request.urlopen(f"{self.address}/{quote(name)}", timeout=SECONDS) as reply:
                yield reply
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise FileNotFoundError(name) from error
            raise OSError(f"HTTP {error.code}") from error
        except urllib.error.URLError as error:
            raise OSError(str(error.reason)) from error

    def put(self, files: Mapping[str, Path]) -> None:
        """Refused."""
        raise BlindspotError(
            f"{self.address} can only be read: publish into a folder and put that on the server, or to hf:// or s3://."
        )


class FilesPlace:
    """A folder of this machine, or of a bucket or server that fsspec knows."""

    def __init__(self, where: str) -> None:
        import fsspec

        try:
            self.files, self.root = fsspec.core.url_to_fs(where)
        except (ImportError, ValueError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise BlindspotError(f"{where} cannot be used: {line}.") from error
        self.where = where

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file of the folder."""
        found: AbstractContextManager[IO[bytes]] = self.files.open(f"{self.root}/{name}", "rb")
        return found

    def put(self, files: Mapping[str, Path]) -> None:
        """Copy files into the folder."""
        try:
            for name, path in files.items():
                target = f"{self.root}/{name}"
                self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self.files.put_file(str(path), target)
        except Exception as error:  # whatever a bucket's library says
            raise _unwritable(self.where, error) from error


class HubPlace:
    """A data set of the Hugging Face hub; written in one commit."""

    def __init__(self, where: str) -> None:
        found = _HUB_ID.fullmatch(where.removeprefix(HUB))
        if found is None:
            raise BlindspotError(f"{where} names no data set: say hf://OWNER/NAME, or hf://OWNER/NAME@REVISION.")
        self.name, self.revision = found[1], found[2]

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file of the data set."""
        from huggingface_hub import HfFileSystem
        from huggingface_hub.errors import HfHubHTTPError

        try:
            found: AbstractContextManager[IO[bytes]] = HfFileSystem().open(
                f"datasets/{self.name}/{name}", "rb", revision=self.revision
            )
        except HfHubHTTPError as error:
            raise OSError(str(error).strip().splitlines()[0]) from error
        return found

    def put(self, files: Mapping[str, Path]) -> None:
        """Commit files; the data set is made, privately, if there is none."""
        from huggingface_hub import CommitOperationAdd, HfApi

        try:
            api: Any = HfApi()
            api.create_repo(self.name, repo_type="dataset", exist_ok=True, private=True)
            api.create_commit(
                self.name,
                [CommitOperationAdd(name, str(path)) for name, path in files.items()],
                commit_message="Publish the atlas", repo_type="dataset", revision=self.revision,
            )  # fmt: skip
        except Exception as error:  # of the network, the hub, or for want of a token
            raise _unwritable(f"{HUB}{self.name}", error) from error


def _unwritable(where: str, error: Exception) -> BlindspotError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    return BlindspotError(f"Nothing can be published at {where}: {line}.")
