"""What all sections of the configuration have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Number = Annotated[float, BeforeValidator(_as_float), Field(allow_inf_nan=False)]
"""A number, whole or not; never a text or a truth value."""


def _as_path(value: Any) -> Any:
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError("must be a path")
    if isinstance(value, str) and value.startswith(("~", "$")):
        raise ValueError(f"{value[:80]!r} must be written out: ~ and $VARIABLES are not read")
    return value


RelativePath = Annotated[Path, BeforeValidator(_as_path), Field(strict=False)]
"""A path; a relative one starts at the configuration's folder."""


def _as_name_of_secret(value: Any) -> Any:
    if isinstance(value, str) and ("-----BEGIN" in value or not value.isprintable()):
        raise ValueError("must be the name of a file that holds it; the secret itself does not belong here")
    if isinstance(value, str) and value.startswith(("~", "$")):  # refused below, but quoted
        raise ValueError("must be written out: ~ and $VARIABLES are not read")
    return value


SecretPath = Annotated[RelativePath, BeforeValidator(_as_name_of_secret)]
"""Of a password's or key's file; looked for in $CREDENTIALS_DIRECTORY first, see `edge_asd.secrets_file`."""


def _as_topic(text: str) -> str:
    if not text or any(c in text for c in "+#\0") or text.startswith("$share/") or len(text.encode()) > 65_535:
        raise ValueError("must be one MQTT topic, without the wildcards + and #")
    return text


Topic = Annotated[str, AfterValidator(_as_topic)]
"""An MQTT topic; no wildcards."""


def dotted(location: tuple[str | int, ...]) -> str:
    """Keys joined with dots; items of lists are counted from 1."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in location) or "the file"


class Section(BaseModel):
    """Strict: no key that is not known, no text for a number; and nothing changes it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def as_section(value: Any) -> Any:
    """A key with nothing after it is a section of defaults, not the absence of one: ``tls:`` must not mean no TLS."""
    return {} if value is None else value


def wrong_at(message: str, *place: str | int) -> PydanticCustomError:
    """An error of a section for which one value in it is to blame: its place is that value's.

    Args:
        message: what is wrong, and what to do.
        place: keys and indices (from 0) from the section to the value.
    """
    return PydanticCustomError("value_error", "{message}", {"message": message, "at": place})
