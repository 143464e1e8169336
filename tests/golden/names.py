"""The public names of the package and their signatures, a line each: what users may rely on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import griffe

SOURCE = Path(__file__).parents[2] / "src"
FILE = Path(__file__).parent / "names.txt"


def names() -> list[str]:
    """Every name in the `__all__` of a package, with its signature; of a class, what it adds to its base too."""
    root = griffe.load("motes", search_paths=[SOURCE], resolve_aliases=True)
    lines = [line for package in packages(root) for name in package.exports or () for line in lines_of(package, name)]
    return sorted(set(lines))


def packages(module: griffe.Module) -> Iterator[griffe.Module]:
    """The module and every package within it."""
    yield module
    for inner in module.modules.values():
        if inner.is_init_module:
            yield from packages(inner)


def lines_of(package: griffe.Module, name: str) -> Iterator[str]:
    """The lines of one exported name; a submodule has its own."""
    found, path = package.members[str(name)], f"{package.path}.{name}"
    if found.is_alias:
        found = found.final_target
    if isinstance(found, griffe.Class):
        yield path + signature(found.parameters, skip=1)
        given = {p.name for p in found.parameters}
        for inner, member in found.members.items():
            if inner.startswith("_") or inner in given:
                continue
            if isinstance(member, griffe.Function):
                yield f"{path}.{inner}" + signature(member.parameters) + returned(member)
            elif isinstance(member, griffe.Attribute):
                yield f"{path}.{inner}: {member.annotation or ''}"
    elif isinstance(found, griffe.Function):
        yield path + signature(found.parameters) + returned(found)
    elif isinstance(found, griffe.Attribute):
        yield f"{path}: {found.annotation or ''}"


def signature(parameters: griffe.Parameters, skip: int = 0) -> str:
    """The parameters as they are written."""
    said, starred = [], False
    for p in list(parameters)[skip:]:
        if p.kind is griffe.ParameterKind.keyword_only and not starred:
            said.append("*")
        starred = starred or p.kind in (griffe.ParameterKind.keyword_only, griffe.ParameterKind.var_positional)
        star = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(p.kind, "")
        default = "" if star or p.default is None else f"={p.default}"
        said.append(f"{star}{p.name}: {p.annotation}{default}" if p.annotation else f"{star}{p.name}{default}")
    return f"({', '.join(said)})"


def returned(function: griffe.Function) -> str:
    return f" -> {function.returns}" if function.returns else ""


def write() -> None:
    """Write the list anew."""
    FILE.write_text("\n".join(names()) + "\n")
