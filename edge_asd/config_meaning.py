"""What was likely meant: the last words of an error in a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBERS = {"int_type", "int_from_float", "int_parsing", "float_type", "float_parsing"}
_UNITS = ("s", "sec", "seconds", "hz", "db", "dbfs", "mb", "megabytes", "%")
_OTHER_UNITS = {
    "min": (60, "seconds"),
    "minutes": (60, "seconds"),
    "h": (3600, "seconds"),
    "hours": (3600, "seconds"),
    "khz": (1000, "Hz"),
    "gb": (1000, "megabytes"),
}
"""How many there are in one, of the unit that the keys have."""
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def meant_by_value(kind: str, value: Any, key: str | int) -> str | None:
    """A likely meaning of a value that is wrong.

    Args:
        kind: pydantic's type of error.
        value: as read from the file.
        key: that it stands behind, for the example; of an item of a list its index.

    Returns:
        What to write; None where nothing can be guessed.
    """
    if value is None and kind not in _BOUNDS:
        if isinstance(key, int):
            return "nothing stands after the dash or comma; write a value, or remove it"
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
        if isinstance(key, int):
            return "it is a list in a list: leave one out" if isinstance(value, list) else "write it as {KEY: VALUE}"
        return f"the keys of {key} belong on lines of their own, indented, or in braces: {key}: {{KEY: VALUE}}"
    return None


def _meant_by_text(text: str, key: str | int) -> str:
    plain = text.replace(",", ".", 1)
    if _is_number(text):
        return f"write it without quotes: {key}: {text}"
    if _is_number(plain):
        return f"write a decimal point: {key}: {plain}"
    number, _, unit = plain.partition(" ")
    if not unit:
        digits = next((n for n, c in enumerate(plain) if c.isalpha() or c == "%"), len(plain))
        number, unit = plain[:digits], plain[digits:]
    unit = unit.strip().lower()
    if _is_number(number) and unit in _UNITS:
        return f"write the number alone, without its unit: {key}: {number}"
    if _is_number(number) and unit in _OTHER_UNITS:
        factor, name = _OTHER_UNITS[unit]
        return f"write the number alone, in {name}: {key}: {factor * float(number):.10g}"
    return "write a number"


def meant_by_key(name: str, known: Sequence[str], elsewhere: Mapping[str, Sequence[str]]) -> str:
    """A likely meaning of a key that its section does not have.

    Args:
        name: the key.
        known: what the section has.
        elsewhere: the keys of other sections, by their place.
    """
    if name.isdecimal():  # -55,5 in braces
        return "in braces a comma ends a value: write a decimal point"
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
