"""Rules by name: for commands and files."""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

from motes.errors import MotesError, UnknownName, perhaps
from motes.language.constraint import shorten
from motes.language.rule import Rule


def snake(name: str) -> str:
    """`TopNSigma` to `top_n_sigma`, `KLTemperature` to `kl_temperature`, `Mirostat1` to `mirostat_1`."""
    out = ""
    for i, letter in enumerate(name):
        after_lower = i > 0 and (name[i - 1].islower() or (letter.isupper() and name[i + 1 : i + 2].islower()))
        out += "_" + letter if i > 0 and after_lower and not letter.islower() else letter
    return out.lower()


def rules() -> dict[str, type[Rule]]:
    """Every rule that motes comes with, by name."""
    import motes.language.rules  # noqa: F401 so that all are defined

    def below(kind: type) -> Iterator[type[Rule]]:
        for child in kind.__subclasses__():
            if not inspect.isabstract(child) and child.__module__.startswith("motes.language.rules."):
                yield child
            yield from below(child)

    return {snake(kind.__name__): kind for kind in sorted(below(Rule), key=lambda k: snake(k.__name__))}


def by_name(name: str, *arguments: Any, **named: Any) -> Rule:
    """The rule of that name with its knobs.

    Raises:
        UnknownName: there is none; the message names what is near, and all that there are.
        MotesError: knobs that the rule does not take; the message shows those that it takes.

    Example:
        >>> by_name("min_p", 0.05)
        MinP(ratio=0.05)
    """
    known = rules()
    if name not in known:
        raise UnknownName("rule", name, known)
    kind = known[name]
    knobs = inspect.signature(kind).parameters
    for knob in named:
        if knob not in knobs:
            raise MotesError(f"the rule {signature(name)} has no knob {knob!r}{perhaps(knob, knobs)}")
    try:
        inspect.signature(kind).bind(*arguments, **named)
    except TypeError as error:
        raise MotesError(f"the rule {signature(name)} cannot be made: {error}") from error
    return kind(*arguments, **named)


def signature(name: str, kind: type[Rule] | None = None) -> str:
    """`mirostat_2(target=5.0, rate=0.1)`: a rule's name with its knobs; `kind` for a rule of your own."""
    knobs = inspect.signature(kind or rules()[name]).parameters.values()
    shown = (k.name if k.default is k.empty else f"{k.name}={k.default!r}" for k in knobs)
    return f"{name}({', '.join(shown)})"


def parse(text: str) -> tuple[Rule, ...]:
    """Rules from text: `min_p(0.05)`, or several with commas between, in the order in which they apply.

    Arguments are numbers, strings, tuples, dictionaries, True, False and None; nothing in the text is run.

    Raises:
        MotesError: it is not of this form.
        UnknownName: there is no rule of that name.

    Example:
        >>> parse("temperature(0.8), top_h(criterion='partial')")
        (Temperature(temperature=0.8), TopH(share=0.4, criterion='partial'))
    """
    form = "write rules as in 'temperature(0.8), min_p(0.05)'"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last where brackets are too deep
        raise MotesError(f"{shorten(text)} cannot be read: {form}") from error
    return tuple(_one(part, form) for part in (tree.elts if isinstance(tree, ast.Tuple) else [tree]))


def _one(tree: ast.expr, form: str) -> Rule:
    if isinstance(tree, ast.Name):  # without brackets: every knob at its default
        return by_name(tree.id)
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise MotesError(f"{_shown(tree)} is no rule: {form}")
    try:
        arguments = [_value(a) for a in tree.args]
        named = {k.arg: _value(k.value) for k in tree.keywords if k.arg is not None}
    except (ValueError, TypeError, RecursionError) as error:
        raise MotesError(f"an argument in {_shown(tree)} is no plain value: {form}") from error
    return by_name(tree.func.id, *arguments, **named)


def _shown(tree: ast.expr) -> str:
    try:
        return shorten(ast.unparse(tree))
    except RecursionError:
        return "what is nested so deeply"


def _value(tree: ast.expr) -> Any:
    if isinstance(tree, ast.Name) and tree.id == "inf":
        return float("inf")
    return ast.literal_eval(tree)
