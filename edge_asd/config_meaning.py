"""What was likely meant: the last words of an error in a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBERS = {"int_type", "int_from_float", "int_parsing", "float_type", "float_parsing"}
_UNITS = ("s", "sec", "seconds", "min", "minutes", "h", "hours", "hz", "khz", "db", "dbfs", "mb", "megabytes", "%")
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def meant_by_value(kind: str, value: Any, key: str) -> str | None:
    """A likely meaning of a value that is wrong.

    Args:
        kind: pydantic's type of error.
        value: as read from the file.
        key: that it stands behind, for the example.

    Returns:
        What to write; None where nothing can be guessed.
    """
    if value is None and kind not in _BOUNDS:
        return "nothing stands after the colon; write a value, or remove the line"
    if kind == "string_type" and isinstance(value, bool | int | float):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return f'if it is meant as a text, put it in quotes: {key}: "{text}"'
    if kind in _NUMBERS and isinstance(value, str):
        return _meant_by_text(value.strip(), key)
    if kind == "bool_type":
        return "write true or false, without quotes"
    if kind in {"tuple_type", "list_type"}:
        shown = value if isinstance(value, str) and value.isprintable() and len(value) < 40 else "..."
        return f"write it as a list: {key}: [{shown}]"
    if kind in {"model_type", "dict_type", "model_attributes_type"}:
        return f"the keys of {key} belong on lines of their own, indented, or in braces: {key}: {{KEY: VALUE}}"
    return None


def _meant_by_text(text: str, key: str) -> str:
    plain = text.replace(",", ".", 1)
    if _is_number(text):
        return f"write it without quotes: {key}: {text}"
    if _is_number(plain):
        return f"write a decimal point: {key}: {plain}"
    number, _, unit = plain.partition(" ")
    if not unit:
        digits = next((n for n, c in enumerate(plain) if c.isalpha() or c == "%"), len(plain))
        number, unit = plain[:digits], plain[digits:]
    if _is_number(number) and unit.strip().lower() in _UNITS:
        return f"write the number alone, without its unit: {key}: {number}"
    return "write a number"


def meant_by_key(name: str, known: Sequence[str], elsewhere: Mapping[str, Sequence[str]]) -> str:
    """A likely meaning of a key that its section does not have.

    Args:
        name: the key.
        known: what the section has.
        elsewhere: the keys of other sections, by their place.
    """
    plain = "".join(f"_{c.lower()}" if c.isupper() and n else c.lower() for n, c in enumerate(name.strip()))
    candidates = {plain.replace("-", "_").replace(" ", "_").replace("__", "_"), name.strip().lower()}
    close = [k for k in known for c in sorted(candidates) if c == k]
    close = close or [k for k in known for c in sorted(candidates) if c and k.startswith(c)]
    close = close or [k for c in sorted(candidates) for k in difflib.get_close_matches(c[:60], known, 1)]
    if close:
        return f"did you mean {close[0]}?"
    homes = [place for place, keys in elsewhere.items() if name in keys]
    if homes:
        return f"it belongs to {' or '.join(homes)}; look at the indentation"
    return f"known are {', '.join(known)}"


def _is_number(text: str) -> bool:
    try:
        return text.isascii() and "_" not in text and abs(float(text)) < float("inf")
    except ValueError:
        return False
