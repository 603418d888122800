"""YAML without its traps, and with the place of every value.

Only what a configuration needs is read: mappings, lists, texts, numbers, true, false and null, as in YAML 1.2's core
schema. What YAML 1.1 would quietly turn into something else (``no``, ``12:30``, ``0755``, a date) is an error that says
how to write it, and so are duplicate keys, anchors, tags and several documents.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

from edge_asd.secrets_file import is_secret

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_LITERALS = {"true": True, "false": False, "null": None, "~": None, "": None}
_TRAPS = [
    (re.compile(r"(?i:yes|no|on|off|y|n)\Z"), "write true or false, or put it in quotes if it is a text"),
    (re.compile(r"(?i:true|false|null)\Z"), "write it in small letters, or in quotes if it is a text"),
    (
        re.compile(r"[-+]?[0-9]+(:[0-9]{1,2})+(\.[0-9]*)?\Z"),
        "put it in quotes if it is a time, or write a plain number",
    ),
    (re.compile(r"[-+]?0[0-9_]+\Z"), "put it in quotes, or write the number without the leading zero"),
    (re.compile(r"[-+]?0[xob][0-9a-fA-F_]+\Z"), "write a decimal number, or put it in quotes"),
    (
        re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?\Z"),
        "write the number without underscores, or put it in quotes",
    ),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?\Z"), "put it in quotes if it is a date"),
    (re.compile(r"(?i:[-+]?\.inf|\.nan)\Z"), "write a finite number"),
    # A word processor's quotes are part of the text for YAML.
    (re.compile(r"[\u2018-\u201f\u00ab\u00bb].*\Z"), "write plain quotes, \" or '"),
]
_ODD_BLANK = re.compile(r"[^\S \t\r\n]")
"""Copied from a web page or a word processor."""
_MAX_DEPTH = 20
_MAX_NODES = 30_000
"""Keys and values: a thousand machines with every key have fewer, and reading so many takes a second or two."""
_LIKELY = (
    ("'\\t'", "indent with spaces, not with tabs"),
    ("mapping values are not allowed", "put a text with a colon in quotes; or a line is indented too far"),
    ("could not find expected ':'", "is a colon with a space after it missing, as in `key: value`?"),
    ("expected <block end>", "is the line indented as those that it belongs to?"),
    ("expected ',' or", "is a bracket not closed, or a comma missing?"),
    ("unexpected end of stream", "is a quote not closed?"),
    ("found '<stream end>'", "is a bracket not closed?"),
    ("that cannot start any token", "put a text that begins with this character in quotes"),
    ("unknown escape character", "within double quotes \\ is special: take single quotes"),
    ("escape sequence of", "within double quotes \\ is special: take single quotes"),
)
"""What PyYAML says, and what it means as a rule."""

_MOST_CHARACTERS = 500
"""Of a message: values and keys in it may be of any length."""

Path = tuple[str | int, ...]
"""Keys and indices from the top of the document to a value."""


class YamlError(ValueError):
    """A document that cannot be read; the place is counted from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(on_one_line(message))
        self.line, self.column = line, column


@dataclass
class Document:
    """The values of a document and where each stands."""

    value: Any
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column, from 1, of every key (of every item, in lists)."""

    def place(self, path: Path) -> tuple[int, int]:
        """Of a value, or of the nearest that encloses it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _error(event, f"has more than {_MAX_NODES} keys and values, which no configuration has")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _error(event, "uses an anchor (& and *); write the value out")
        if event.tag is not None:
            has_key = isinstance(index, yaml.ScalarNode)  # an item of a list has a number
            tag = "" if has_key and is_secret(index.value) else f", {event.tag}"
            raise _error(event, f"has a tag{tag}; tags are not read: put a text that begins with ! in quotes")
        if self._depth > _MAX_DEPTH:
            raise _error(event, "is nested too deeply")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def only_document(self) -> yaml.Node | None:
        """The document, if there is one; a second one is not even read."""
        node = self.get_node() if self.check_node() else None
        if self.check_node():
            raise _error(self.peek_event(), "holds a second document; one is read")  # type: ignore[no-untyped-call]
        return node


def load(text: str) -> Document:
    """Read one document.

    Raises:
        YamlError: not YAML, or one of its traps.
    """
    try:
        node = _Loader(text).only_document()
    except YamlError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        _refuse_odd_blank(text, place[0])
        raise YamlError(f"is not YAML: {_in_words(str(error.problem or error.context))}", *place) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = (before.count("\n") + 1, error.position - before.rfind("\n"))
        raise YamlError(f"is not YAML: the character #x{error.character:04x} is not allowed", *place) from None
    # ValueError: PyYAML lets an escape beyond Unicode and an endless version number through to Python.
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise YamlError(f"is not YAML: {' '.join(str(error).split())[:200]}", 1, 1) from None
    document = Document(None)
    if node is not None:
        document.value = _value(node, (), document)
    return document


def on_one_line(message: str) -> str:
    """Fit for a terminal and a log: what a file quotes may hold anything, and have any length."""
    short = message if len(message) <= _MOST_CHARACTERS else f"{message[: _MOST_CHARACTERS - 3]}..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in short)


def _value(node: yaml.Node, path: Path, document: Document) -> Any:
    document.places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), document) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)  # there is no fourth kind
    return _scalar(node, path)


def _mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[Hashable, Any]:
    values: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _error(key_node, "is not a plain key")
        key = key_node.value
        if _ODD_BLANK.match(key):
            raise _error(key_node, _in_place_of_a_blank(key[0]))
        if key in values:
            raise _error(key_node, f"{key}: is there twice; the first is in line {document.places[(*path, key)][0]}")
        if key == "<<":
            raise _error(key_node, "merges (<<) are not read; write the values out")
        document.places[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        values[key] = _value(value_node, (*path, key), document)
    return values


def _scalar(node: yaml.ScalarNode, path: Path) -> Any:
    text: str = node.value
    if node.style is not None:
        return text
    if text in _LITERALS:
        return _LITERALS[text]
    if _INTEGER.match(text):
        return int(text) if len(text) < 20 else float(text)
    for pattern, advice in _TRAPS:
        if pattern.match(text):
            shown = "this" if any(is_secret(str(part)) for part in path) else text
            raise _error(node, f"{shown} is ambiguous in YAML: {advice}")
    if _FLOAT.match(text):
        return float(text)
    return text


def _refuse_odd_blank(text: str, line: int) -> None:
    """Where a line cannot be read, it or the one before it may have what only looks like a blank."""
    lines = text.split("\n")
    for number in (line - 1, line):
        if found := _ODD_BLANK.search(lines[number - 1]) if 0 < number <= len(lines) else None:
            raise YamlError(_in_place_of_a_blank(found[0]), number, found.start() + 1)


def _in_place_of_a_blank(character: str) -> str:
    name = unicodedata.name(character, "a control character").lower()
    return f"is not YAML: {name} (U+{ord(character):04X}) looks like a blank, and is none; type a blank in its place"


def _error(node: Any, message: str) -> YamlError:
    return YamlError(message, node.start_mark.line + 1, node.start_mark.column + 1)


def _in_words(problem: str) -> str:
    likely = next((meaning for words, meaning in _LIKELY if words in problem), None)
    return f"{problem}; {likely}" if likely else problem
