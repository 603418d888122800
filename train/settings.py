"""Reads the line of prose under each field of a settings class, so that ``--help`` says what the code says."""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import textwrap


def field_meanings(settings: type) -> dict[str, str]:
    """Field name to the text under it, white space folded; a field without a text is left out."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(settings)))
    assert isinstance(tree.body[0], ast.ClassDef)  # the source of a class is a class
    body = tree.body[0].body
    meanings = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(prose))):
                meanings[name] = " ".join(prose.split())
    return meanings


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)
