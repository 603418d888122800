"""What a Zenodo record holds, in the forms that its API has had: https://developers.zenodo.org/#records."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .download import FetchError, Patience, RemoteFile, read_json

BASE_URL = "https://zenodo.org"
_LINKS = ("content", "download", "self")
_NOT_NAMED = "none stated"


@dataclass(frozen=True)
class Record:
    """A data set as published."""

    title: str
    page: str
    """For people."""
    licence: str
    """As the record names it."""
    non_commercial: bool
    """Whether the licence, or else the description, says so."""
    files: Mapping[str, RemoteFile]
    """By name."""

    def file(self, name: str) -> RemoteFile:
        """
        Raises:
            FetchError: the record has no such file.
        """
        if name not in self.files:
            there = ", ".join(sorted(self.files)) or "nothing"
            raise FetchError(f"{self.page}: holds no {name}; it holds {there}")
        return self.files[name]


def read_record(number: int, base_url: str, patience: Patience) -> Record:
    """Ask the API for a record.

    Args:
        number: of the record.
        base_url: of Zenodo, or of a mirror that answers like it.
        patience: with the server.

    Raises:
        FetchError: it cannot be had or understood.
    """
    base_url = base_url.rstrip("/")
    address = f"{base_url}/api/records/{number}"
    document = read_json(address, patience)
    page = f"{base_url}/records/{number}"
    try:
        metadata = document["metadata"]
        licence = _licence(metadata)
        told = f"{licence} {metadata.get('description') or ''}".lower()
        files = [_file(entry, page) for entry in _entries(document["files"])]
        return Record(
            title=str(metadata["title"]),
            page=page,
            licence=licence,
            non_commercial=bool(re.search(r"\bnc\b|non-?\s?commercial", told)),
            files={file.name: file for file in files},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FetchError(
            f"{address}: is no record as Zenodo's API gives it ({type(error).__name__}: {error})"
        ) from None


def _entries(files: Any) -> list[Any]:
    # The API of InvenioRDM, which Zenodo runs on, has a mapping: files.entries.NAME.
    if isinstance(files, Mapping):
        return [{"key": name, **entry} for name, entry in files["entries"].items()]
    return list(files)


def _file(entry: Mapping[str, Any], page: str) -> RemoteFile:
    name = str(entry["key"] if "key" in entry else entry["filename"])
    links = entry.get("links") or {}
    url = next((links[link] for link in _LINKS if links.get(link)), f"{page}/files/{quote(name)}?download=1")
    # Older answers state the md5 without its name.
    algorithm, _, digest = str(entry["checksum"]).rpartition(":")
    algorithm = algorithm or "md5"
    if algorithm not in hashlib.algorithms_available:
        raise ValueError(f"{name} has a checksum of an unknown kind, {algorithm}")
    size = entry["size"] if "size" in entry else entry["filesize"]
    return RemoteFile(name, str(url), int(size), algorithm, digest.lower())


def _licence(metadata: Mapping[str, Any]) -> str:
    told = metadata.get("license") or metadata.get("rights")
    if isinstance(told, list):
        told = told[0] if told else None
    if isinstance(told, Mapping):
        told = told.get("id") or told.get("title")
    return str(told) if told else _NOT_NAMED
