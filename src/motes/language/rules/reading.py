"""Rules by name: for commands and files."""

from __future__ import annotations

from typing import Any

from motes.core.registry import signature as written
from motes.language import calls
from motes.language.rule import Rule, rules


def by_name(name: str, *arguments: Any, **named: Any) -> Rule:
    """The rule of that name with its knobs.

    Raises:
        UnknownName: there is none; the message names what is near, and all that there are.
        MotesError: knobs that the rule does not take; the message shows those that it takes.

    Example:
        >>> by_name("min_p", 0.05)
        MinP(ratio=0.05)
    """
    return rules.make(name, *arguments, **named)


def signature(name: str, kind: type[Rule] | None = None) -> str:
    """`mirostat_2(target=5.0, rate=0.1)`: a rule's name with its knobs; `kind` for a rule of your own."""
    return written(name, kind or rules[name])


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
    return calls.parse(rules, text, "temperature(0.8), min_p(0.05)")
