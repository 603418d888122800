"""YAML without its traps: plain values come out as written, everything doubtful is refused with its place."""

from __future__ import annotations

import time

import pytest

from edge_asd.strict_yaml import YamlError, load


def refusal(text: str) -> tuple[int, int, str]:
    with pytest.raises(YamlError) as caught:
        load(text)
    assert "\n" not in str(caught.value)
    return caught.value.line, caught.value.column, str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-7", -7),
        ("+3", 3),
        ("0", 0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("-55.25", -55.25),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-2.5E-3", -0.0025),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("3 of 5", "3 of 5"),
        ("plant-3", "plant-3"),
        ("127.0.0.1:9464", "127.0.0.1:9464"),
        ("/var/lib/edge asd", "/var/lib/edge asd"),
        ("1.2.3", "1.2.3"),
        ("nothing", "nothing"),
        ("yesterday", "yesterday"),
        ("'no'", "no"),
        ('"12:30"', "12:30"),
        ("'0755'", "0755"),
        ('"1_000"', "1_000"),
        ("'2024-01-01'", "2024-01-01"),
        ("'true'", "true"),
        ("'12'", "12"),
        ('""', ""),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("[1, a, [true]]", [1, "a", [True]]),
        ("{b: {c: 1}}", {"b": {"c": 1}}),
    ],
)
def test_plain_values(text, value):
    read = load(f"key: {text}").value["key"]
    assert read == value
    assert type(read) is type(value)


TRAPS = {
    "truth values": ["yes", "no", "on", "off", "Yes", "NO", "On", "oFF", "y", "N"],
    "capitals": ["True", "TRUE", "False", "FALSE", "Null", "NULL"],
    "base 60": ["12:30", "1:30:00", "190:20:30", "-1:30", "+12:30", "12:30.5", "190:20:30.15"],
    "octal": ["0755", "00", "-012", "+017", "08", "0_7"],
    "other bases": ["0x1F", "0o17", "0b101", "-0x1f"],
    "underscores": ["1_000", "1_0.5", "-1_000"],
    "dates": ["2024-01-01", "2024-1-1", "2024-01-01T10:00:00Z", "2024-01-01 10:00:00"],
    "quotes": ["\u201cplant-3\u201d", "\u2018a\u2019", "\u201eb\u201c"],
    "not finite": [".inf", "-.inf", "+.INF", ".nan", ".NaN"],
}


@pytest.mark.parametrize("text", [text for texts in TRAPS.values() for text in texts])
def test_what_yaml_would_turn_into_something_else_is_refused(text):
    line, column, message = refusal(f"site: plant\nmachine:\n  value: {text}\n")
    assert (line, column) == (3, 10)
    assert message.startswith(f"{text} is ambiguous in YAML: ")
    assert load(f'value: "{text}"').value == {"value": text}, "the advice helps"


def test_traps_are_found_in_lists_and_short_forms_too():
    assert refusal("a: [1, no]")[:2] == (1, 8)
    assert refusal("- 1\n- - 0755")[:2] == (2, 5)
    assert refusal("{a: {b: 12:30:15}}")[:2] == (1, 9)


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a: 1\nb: 2\na: 3\n", (3, 1), "a: is there twice; the first is in line 1"),
        ("m:\n  x: 1\n  x: 1\n", (3, 3), "x: is there twice; the first is in line 2"),
        ("a: 1\n'a': 2\n", (2, 1), "is there twice"),
        ("a: 1\nb: *gone\n", (2, 4), "anchor"),
        ("a: &x 1\n", (1, 4), "anchor"),
        ("a: &x [1]\nb: *x\n", (1, 4), "anchor"),
        ("a: &x [*x]\n", (1, 4), "anchor"),
        ("a: {<<: {b: 1}}\n", (1, 5), "merges"),
        ("a: !!str 12\n", (1, 4), "tag"),
        ("a: !!python/object:os.system x\n", (1, 4), "tag"),
        ("a: !!int '5'\n", (1, 4), "tag"),
        ("a: !secret file\n", (1, 4), "!secret"),
        ("a: !!set {b, c}\n", (1, 4), "tag"),
        ("a:\n  - !thing {b: 1}\n", (2, 5), "tag"),
        ("a: 1\n---\nb: 2\n", (2, 1), "second document"),
        ("? [a, b]\n: 1\n", (1, 3), "is not a plain key"),
        ("? {a: b}\n: 1\n", (1, 3), "is not a plain key"),
        ("a: [1, 2\nb: 3\n", (2, 2), "is not YAML"),
        ("a: {b: 1\n", (2, 1), "is not YAML"),
        ("a: 'b\n", (2, 1), "is not YAML"),
        ("a:\n\tb: 1\n", (2, 1), "is not YAML"),
        ("a: b: c\n", (1, 5), "is not YAML"),
        ("a: @b\n", (1, 4), "is not YAML"),
        ("a:\n\u00a0 b: 1\n", (2, 1), "is not YAML: no-break space (U+00A0) looks like a blank, and is none"),
        ("a:\n  b: 1\n \u00a0c: 1\n", (3, 2), "no-break space (U+00A0)"),
        ("a:\u00a0b\nc: 1\n", (1, 3), "no-break space (U+00A0)"),
        ("a:\n \u2003b: 1\n", (2, 2), "em space (U+2003)"),
        ("a: 1\nb: \x07\n", (2, 4), "#x0007"),
        ("\x00", (1, 1), "#x0000"),
    ],
)
def test_what_is_refused_and_where(text, place, reason):
    line, column, message = refusal(text)
    assert (line, column) == place
    assert reason in message


@pytest.mark.parametrize(
    "text",
    ["[" * 5000, "- " * 5000, "{a: " * 5000, "a: " + "[" * 25 + "]" * 25, 'a: "\\U00110000"', "%YAML " + "9" * 5000],
    ids=["brackets", "dashes", "braces", "deep", "beyond Unicode", "version"],
)
def test_hostile_documents_are_refused(text):
    assert refusal(text)


@pytest.mark.parametrize(
    "text",
    ["[" * 400_000, "{" * 400_000, "---\n" * 100_000, "? a\n" * 100_000, "[" + "1," * 200_000 + "]", "- a\n" * 100_000],
    ids=["brackets", "braces", "documents", "keys", "items", "lines"],
)
def test_large_documents_are_refused_in_time(text):
    began = time.process_time()
    assert refusal(text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "text", ['"a\\nb": 1\n"a\\nb": 2', "a: 0" + "7" * 5000, "x" * 900 + ": 1\n" + "x" * 900 + ": 1"]
)
def test_what_is_quoted_stays_short_and_on_one_line(text):
    message = refusal(text)[2]
    assert message.isprintable() and len(message) <= 500


def test_aliases_do_not_multiply():
    laughs = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10 if n else ['ha'])}]" for n in range(12))
    assert "anchor" in refusal(laughs)[2]


@pytest.mark.parametrize("text", ["", "   \n", "# only a comment\n", "---\n", "---\n...\n"])
def test_an_empty_document_is_nothing(text):
    assert load(text).value is None


def test_keys_are_texts_as_written():
    assert load("1: a\nno: b\n12:30: c\ntrue: d\n").value == {"1": "a", "no": "b", "12:30": "c", "true": "d"}


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter():
    assert load("\ufeffa: 1\r\nb: [x]\r\n").value == {"a": 1, "b": ["x"]}


def test_places_are_those_of_keys_and_items():
    document = load("site: x\nmachines:\n  - name: a\n    detectors: [one,\n      two]\n")
    assert document.place(("site",)) == (1, 1)
    assert document.place(("machines",)) == (2, 1)
    assert document.place(("machines", 0)) == (3, 5)
    assert document.place(("machines", 0, "name")) == (3, 5)
    assert document.place(("machines", 0, "detectors", 1)) == (5, 7)
    assert document.place(("machines", 0, "alarm", "threshold")) == (3, 5), "the nearest that encloses it"
    assert document.place(("gone",)) == (1, 1)


def test_numbers_beyond_an_integer_are_floats():
    value = load("a: 123456789012345678901234567890").value["a"]
    assert isinstance(value, float)
