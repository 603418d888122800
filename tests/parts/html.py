"""A page as a browser reads it: its elements, and whether they are closed in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "img", "input", "br", "hr", "link"}
_SELF_CLOSED_SVG = {"path", "rect", "line"}


@dataclass
class Element:
    """One element, with the text within it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def all(self, tag: str = "", kind: str = "") -> list[Element]:
        """All elements within of a tag and a class, in order."""
        found = []
        for child in self.children:
            if (not tag or child.tag == tag) and (not kind or kind in child.classes):
                found.append(child)
            found += child.all(tag, kind)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _SELF_CLOSED_SVG, f"<{tag}/>"
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read_html(text: str) -> Element:
    """The page's elements; every one must be closed, and in order."""
    reader = _Reader()
    reader.feed(str(text))  # Markup would escape what is added to it
    reader.close()
    assert [e.tag for e in reader.open] == ["page"], "something is not closed"
    return reader.open[0]


def assert_complete(page: Element) -> None:
    """The page needs nothing from elsewhere and runs nothing that it did not bring."""
    for element in page.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"{element.tag} {name}"
            if name in ("src", "href", "data", "action", "poster", "srcset"):
                assert value.startswith(("data:image/png;base64,", "data:audio/flac;base64,", "#")), value[:80]
        assert element.tag not in ("link", "iframe", "object", "embed", "base", "form")
    assert "url(" not in "".join(style.text for style in page.all("style"))
