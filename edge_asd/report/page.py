"""From templates and values to one HTML file that needs nothing else: no server, no network, no other file."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import jinja2

from edge_asd.errors import ReportError, UsageError


def render(template: str, *, templates: Sequence[jinja2.BaseLoader] = (), **values: object) -> str:
    """A page from a template, with whatever is not marked as safe escaped.

    Args:
        template: its name, such as ``replay.html``.
        templates: where to look for templates first; then those of `edge_asd.report` are found, so that any page can
            extend ``base.html``.
        values: what the template asks for; a value that it asks for and that is not there is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([*templates, jinja2.PackageLoader("edge_asd.report")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def check_page_path(path: Path) -> None:
    """Make sure, before hours of work, that a page can be written.

    Raises:
        UsageError: it is a folder or a device, is not called .html, or its folder is not there or cannot be written.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; name a file in it, such as {path / 'report.html'}")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: is not a file that a page can replace")
        if path.suffix.lower() not in (".html", ".htm"):
            # Else a slip of the hand, such as a detector's name, would be overwritten.
            raise UsageError(f"{path}: a page needs a name that ends in .html")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}")
        # The one test that holds for every file system, and for root.
        part = _beside(path)
        part.touch()
        part.unlink()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be written: {_reason(error)}") from None


def write_page(path: Path, html: str) -> int:
    """Write a page beside its place and rename it: it appears whole or not at all.

    Returns:
        Its size in bytes.

    Raises:
        ReportError: it cannot be written.
    """
    content = html.encode("utf-8", "backslashreplace")  # file names need not be UTF-8
    part = _beside(path)
    try:
        part.write_bytes(content)
        part.replace(path)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            part.unlink(missing_ok=True)
        raise ReportError(path, f"cannot be written: {_reason(error)}") from None
    return len(content)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
