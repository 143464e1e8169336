"""What the documentation takes from the code: `{{ name }}` on a page becomes the table or the list made here."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, walk_packages
from typing import Any

from motes.core.registry import signature

MARK = re.compile(r"^\{\{ (\w+)(?: ([\w.]+))? \}\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page; an unknown name fails the build."""
    return MARK.sub(lambda m: MAKERS[m[1]](*([m[2]] if m[2] else [])), markdown)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def first_sentence(doc: str | None) -> str:
    return re.split(r"(?<=[.:])\s|\n\n", (doc or "").strip())[0].replace("\n", " ").rstrip(":.")


def sentence(doc: str | None) -> str:
    """The first sentence, colons included, with nothing in it that Markdown would take for its own."""
    whole = re.split(r"(?<=[^.]\.)\s|\n\n", (doc or "").strip())[0]
    return re.sub(r"([*_<^~])", r"\\\1", " ".join(whole.split()).rstrip("."))


def named_sources(doc: str | None) -> str:
    """Authors and years of a docstring's references."""
    listed = re.search(r"^ *References:\n(.*?)(?:\n\s*\n|\Z)", doc or "", re.DOTALL | re.MULTILINE)
    found = re.findall(r"^ *([^\W\d_][^()\n]*?) \((\d{4})\),", listed[1] if listed else "", re.MULTILINE)
    return "; ".join(
        f"{re.split(', | & ', who)[0]}{' et al.' if re.search(', | & ', who) else ''} ({y})" for who, y in found
    )


def sources(references: Any) -> str:
    return "; ".join(
        f"{r.authors.split(', ')[0]}{' et al.' if ',' in r.authors else ''} ({r.year})" for r in references
    )


def schemes() -> str:
    """One row a resampling scheme."""
    from motes.core.resampling import schemes as registered

    estimators = {"chan_lai": "Chan & Lai", "lee_whiteley": "Lee & Whiteley", None: "none known"}
    rows = [
        (
            f"`{s.name}`",
            "yes" if s.bounded else "no",
            "yes" if s.needs_order else "no",
            estimators.get(s.variance, str(s.variance)),
            sources(s.references),
        )
        for s in sorted(registered.values(), key=lambda s: s.name)
    ]
    return table(("name", "children within 1 of n W", "sorts first", "standard error by", "source"), rows)


def kernels() -> str:
    """One row a Markov kernel."""
    from motes.kernels import kernels as registered

    def mark(yes: bool) -> str:
        return "yes" if yes else "no"

    rows = [
        (
            f"`{name}`",
            f"`{k.__name__}`",
            sentence(k.__doc__),
            mark(k.gradient),
            mark(k.exact),
            mark(k.reversible),
            mark(k.discrete),
            sources(k.references),
        )
        for name, k in sorted(registered.items())
    ]
    return table(
        ("name", "class", "what it does", "gradients", "exact", "reversible", "whole numbers", "source"),
        rows,
    )


def rules() -> str:
    """One row a rule of decoding, with the distance between its two laws on the model of the tests."""
    from motes.language.rules import rules as registered

    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from language.test_rule_laws import distance

    rows = [(f"`{signature(name, rule)}`", doc_of(rule), f"{distance(name):.4f}") for name, rule in registered.items()]
    return table(("rule and its knobs", "what it does", "distance"), rows)


def doc_of(rule: type) -> str:
    return sentence(rule.__doc__).split(": ")[0]


def entries(path: str) -> str:
    """One row an entry of the registry at `path`, a package and a name in it."""
    package, _, name = path.rpartition(".")
    registry = getattr(import_module(package), name)
    rows = [(f"`{signature(name, e)}`", sentence(e.__doc__), named_sources(e.__doc__)) for name, e in registry.items()]
    return table(("name and knobs", "what it is or does", "source"), rows)


def samplers() -> str:
    """One row a sampler: every model that a domain and its parts export."""
    import motes
    from motes.core.model import FeynmanKac

    rows, seen = [], {FeynmanKac}
    domains = [m.name for m in iter_modules(motes.__path__) if m.ispkg and m.name not in ("cli", "testing")]
    for door, module in (found for domain in domains for found in doors(f"motes.{domain}")):
        for name in module.__all__:
            c = getattr(module, name)
            if inspect.isclass(c) and issubclass(c, FeynmanKac) and not inspect.isabstract(c) and c not in seen:
                seen.add(c)
                rows.append((f"`{name}`", f"`{door}`", sentence(c.__doc__), named_sources(c.__doc__)))
    return table(
        ("class", "import it from", "what it does", "source"), sorted(rows, key=lambda row: (row[1].split(".")[1], row))
    )


def generators() -> str:
    """One row a random generator."""
    from motes.rng.rng import GENERATORS

    rows = [(f"`{name}`", first_sentence(type(g).__doc__)) for name, g in GENERATORS.items()]
    return table(("name", "what it is"), rows)


def commands() -> str:
    """The help of every command."""
    from motes.cli.main import COMMANDS, parser

    parts = []
    for name, what in COMMANDS.items():
        top = parser([name])
        sub = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction)).choices[name]
        sub.formatter_class = lambda prog: argparse.ArgumentDefaultsHelpFormatter(prog, width=100)
        parts.append(f"## motes {name}\n\n{what[0].upper()}{what[1:]}.\n\n```text\n{sub.format_help().strip()}\n```\n")
    return "\n".join(parts)


def reference(package: str) -> str:
    """Every name that a package and its parts export, and nothing else, as mkdocstrings shows it."""
    shown = [f"::: {package}\n    options:\n      members: []\n      show_root_heading: false\n"]
    seen: set[int] = set()
    for name, module in doors(package):
        if name != package:
            shown.append(f"## {name}\n\n{sentence(module.__doc__)}.\n")
        for export in module.__all__:
            thing = getattr(module, export)
            if not inspect.ismodule(thing) and id(thing) not in seen:
                seen.add(id(thing))
                shown.append(f"::: {name}.{export}\n    options:\n      heading_level: 3\n")
    return "\n".join(shown)


def doors(package: str) -> list[tuple[str, Any]]:
    """A package and the packages inside of it that export anything, by their names."""
    inner = [m.name for m in walk_packages(import_module(package).__path__, f"{package}.") if m.ispkg]
    found = [(name, import_module(name)) for name in [package, *sorted(inner)]]
    return [(name, module) for name, module in found if "__all__" in vars(module)]


MAKERS: dict[str, Callable[..., str]] = {
    "schemes": schemes,
    "kernels": kernels,
    "rules": rules,
    "entries": entries,
    "samplers": samplers,
    "generators": generators,
    "commands": commands,
    "reference": reference,
}
