"""Calls written as text, such as `min_p(0.05)`, of what a registry holds: for commands and files."""

from __future__ import annotations

import ast
import warnings
from typing import Any

from motes.core.registry import Registry
from motes.errors import MotesError
from motes.language.constraint import shorten


def parse(registry: Registry[Any], text: str, example: str) -> tuple[Any, ...]:
    """What is written, as in `example`: one call, or several with commas between, in their order.

    Arguments are numbers, strings, tuples, lists, dictionaries, True, False and None; nothing in the text is run.

    Raises:
        MotesError: it is not of this form.
        UnknownName: there is no entry of that name.
    """
    form = f"write {registry.kind}s as in {example!r}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last where brackets are too deep
        raise MotesError(f"{shorten(text)} cannot be read: {form}") from error
    parts = tree.elts if isinstance(tree, ast.Tuple) else [tree]
    return tuple(_one(registry, part, form) for part in parts)


def _one(registry: Registry[Any], tree: ast.expr, form: str) -> Any:
    if isinstance(tree, ast.Name):  # without brackets: every knob at its default
        return registry.make(tree.id)
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise MotesError(f"{_shown(tree)} is no {registry.kind}: {form}")
    try:
        arguments = [_value(a) for a in tree.args]
        named = {k.arg: _value(k.value) for k in tree.keywords if k.arg is not None}
    except (ValueError, TypeError, RecursionError) as error:
        raise MotesError(f"an argument in {_shown(tree)} is no plain value: {form}") from error
    return registry.make(tree.func.id, *arguments, **named)


def _shown(tree: ast.expr) -> str:
    try:
        return shorten(ast.unparse(tree))
    except RecursionError:
        return "what is nested so deeply"


def _value(tree: ast.expr) -> Any:
    if isinstance(tree, ast.Name) and tree.id == "inf":
        return float("inf")
    return ast.literal_eval(tree)
