"""What all sections of the configuration have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Number = Annotated[float, BeforeValidator(_as_float), Field(allow_inf_nan=False)]
"""A number, whole or not; never a text or a truth value."""
RelativePath = Annotated[Path, Field(strict=False)]
"""A path; a relative one starts at the configuration's folder."""


def dotted(location: tuple[str | int, ...]) -> str:
    """Keys joined with dots; items of lists are counted from 1."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in location) or "the file"


class Section(BaseModel):
    """Strict: no key that is not known, no text for a number; and nothing changes it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def as_section(value: Any) -> Any:
    """A key with nothing after it is a section of defaults, not the absence of one: ``tls:`` must not mean no TLS."""
    return {} if value is None else value
