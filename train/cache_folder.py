"""Where training keeps what it need not compute twice, and its working files: ``--cache``, else the user's cache."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from edge_asd.verification import default_cache

_CHOSEN: ContextVar[Path | None] = ContextVar("cache folder", default=None)


def cache_folder() -> Path:
    """The folder of the cache; it need not exist, nor be writable."""
    return _CHOSEN.get() or default_cache().with_name("log-mel")


@contextmanager
def cache_in(folder: Path | None) -> Iterator[None]:
    """Within it, `cache_folder` is this folder; the user's cache for None."""
    token = _CHOSEN.set(folder)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache``."""
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="keep the log-Mels (160 kB a window) and working files (up to 640 kB a window, gone at the end) in this"
        " folder; in the user's cache, ~/.cache/edge-asd/log-mel, unless given; it may be deleted at any time",
    )
