"""Good files after a bad day: mutations of text, of structure and of bytes, the same ones for the same seed."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from typing import Any

ODD_TEXTS = [
    *"\t\n\"'[]{}:,&*!|>%@`#-?~ 0=\\",
    "\u00e9", "\U0001f600", "\ufeff", "\u2028", "\u00a0", "\x00", "\x07", "\x85", "\ud800",
    "no", "null", "0755", "12:30", "[x", "- ", ".inf", "1e999", "2024-01-01", "1_000", "0x1F", "<<: *a", "&a ", "*a ",
    "!!python/object:os.system ", "!!binary ", "!x ", "---\n", "...\n", "%YAML 9.9\n", "? ", "'\\", '"\\ud800"',
    '"\\U00110000"', "|\n", ">-\n", "=", "{a: ", "[" * 30, "- " * 30, "9" * 400, "-" * 300, "a" * 5000, "\r", "\r\n",
    "${HOME}", "~/x", "../" * 40, "/dev/zero", "/proc/self/mem", "a\u0000b",
]  # fmt: skip
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 65536, 2**31, 2**63, 10**19, -(10**40), 0.5, -0.0, 1e308, 1e-320, "", " ", "no", "0",
    "\x00", "a\x00b", "\n", "\u00e9", "\U0001f600", "x" * 3000, "a/b", "/", ".", "..", "+", "#", "$share/x", "%", "{}",
    "3 of 5", "5 of 3", "9" * 30 + " of 1", "[::1]:9", "\u0663 of \u0665", ":\u0665", "a:\u00b2", "xn--", "a..b",
    "b" * 70 + ".c",
    [], {}, [[]], [None], [{}], {"": None}, {"a": {"b": {}}}, [1] * 40, "learned", "id_00",
]  # fmt: skip


def mutated_text(text: str, rng: random.Random) -> str:
    """Characters, words and lines changed, lost, doubled, swapped or indented otherwise."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        lines = text.split("\n")
        line, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        place = rng.randrange(len(text) + 1)
        match rng.randrange(9):
            case 0:
                text = text[:place] + rng.choice(ODD_TEXTS) + text[place:]
            case 1:
                text = text[:place] + text[place + rng.randrange(1, 12) :]
            case 2:
                text = "\n".join([*lines[: line + 1], *lines[line:]])
            case 3:
                text = "\n".join([*lines[:line], " " * rng.randrange(9) + lines[line].strip(), *lines[line + 1 :]])
            case 4:
                words = re.findall(r"[\w.-]+", text) or ["x"]
                text = text.replace(rng.choice(words), rng.choice([*words, *ODD_TEXTS]), 1)
            case 5:
                lines[line], lines[other] = lines[other], lines[line]
                text = "\n".join(lines)
            case 6:
                text = "\n".join([*lines[:line], *lines[line + rng.randrange(1, 4) :]])
            case 7:
                text = text[:place]
            case _:
                key = lines[line].partition(":")[0]
                text = "\n".join([*lines[:line], f"{key}: {rng.choice(ODD_TEXTS)}", *lines[line + 1 :]])
    return text


def mutated_document(document: Any, rng: random.Random, odd: Any = None) -> Any:
    """A copy with values replaced, removed, doubled, moved, wrapped or deepened; keys too."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        holders = list(_holders(document))
        if not holders:
            return document
        holder = rng.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        value = copy.deepcopy(rng.choice(odd or ODD_VALUES))
        match rng.randrange(7):
            case 0 | 1 | 2:
                holder[key] = value
            case 3:
                del holder[key]
            case 4:
                holder[key] = [holder[key]] if rng.random() < 0.5 else {str(key): holder[key]}
            case 5:
                giver = rng.choice(holders)
                taken = rng.choice(list(giver.values()) if isinstance(giver, dict) else giver)
                holder[key] = copy.deepcopy(taken)
            case _:
                if isinstance(holder, dict):
                    holder[rng.choice(["sit", "", "a b", "hop_second", "x" * 200, "\u00e9", "<<", "0", "a\nb"])] = value
                else:
                    holder.extend(copy.deepcopy(holder[key]) for _ in range(rng.choice([1, 1, 20])))
    return document


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bits flipped, blocks lost, doubled, zeroed or moved, or the end cut off."""
    damaged = bytearray(content)
    # Near the beginning or the end as often as anywhere: there the graph and the metadata are, not the weights.
    reach = rng.choice([len(damaged), min(12_000, len(damaged))])
    start = rng.choice([0, len(damaged) - reach])
    place, length = start + rng.randrange(reach), rng.choice([1, 4, 64, 4096])
    match rng.randrange(8):
        case 0:
            del damaged[place:]
        case 1:
            del damaged[place : place + length]
        case 2:
            damaged[place:place] = damaged[place : place + length]
        case 3:
            damaged[place : place + length] = bytes(len(damaged[place : place + length]))
        case 4:
            damaged[place : place + length] = rng.randbytes(len(damaged[place : place + length]))
        case _:
            for _ in range(2 ** rng.randrange(7)):
                damaged[start + rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def as_yaml(value: Any, rng: random.Random, indent: int = 0) -> str:
    """Block style, each text in double quotes, so that the document comes back as it is; at times in one line."""
    if rng.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return json.dumps(value).replace("Infinity", "1e999")
    pad = "\n" + " " * indent
    if isinstance(value, dict):
        return pad + pad.join(f"{json.dumps(str(k))}: {as_yaml(v, rng, indent + 2)}" for k, v in value.items())
    return pad + pad.join(f"- {as_yaml(v, rng, indent + 2)}" for v in value)


def without_comments(text: str) -> str:
    """YAML is read at some hundred kilobytes a second: most mutations do without prose."""
    lines = (re.sub(r"\s+#.*|^#.*", "", line) for line in text.split("\n"))
    return "\n".join(line for line in lines if line.strip()) + "\n"


def _holders(value: Any) -> Any:
    if isinstance(value, dict | list):
        if value:
            yield value
        for item in list(value.values()) if isinstance(value, dict) else value:
            yield from _holders(item)


Mutate = Callable[[str, random.Random], str]
