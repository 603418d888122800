"""Reads the line of prose under each field of a settings class, so that ``--help`` says what the code says."""

from __future__ import annotations

import ast
import inspect
import textwrap


def field_meanings(settings: type) -> dict[str, str]:
    """Field name to the text under it, white space folded; a field without a text is left out."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(settings)))
    assert isinstance(tree.body[0], ast.ClassDef)  # the source of a class is a class
    body = tree.body[0].body
    meanings = {}
    for field, text in zip(body[:-1], body[1:], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            if isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
                meanings[field.target.id] = " ".join(text.value.value.split())
    return meanings
