"""Which papers a run rests on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

from motes.errors import check_name


@dataclass(frozen=True)
class Reference:
    """One source: who, when, what, where; `about` says what of the run it stands for."""

    key: str
    authors: str
    year: int
    title: str
    where: str
    about: str = ""

    def bibtex(self) -> str:
        """The source as a BibTeX entry."""
        authors = " and ".join(self.authors.split(", "))
        fields = {"author": authors, "title": f"{{{self.title}}}", "year": self.year, "note": self.where}
        body = ",\n".join(f"  {k} = {{{v}}}" for k, v in fields.items())
        return f"@misc{{{self.key},\n{body}\n}}"

    def text(self) -> str:
        """The source as a line of prose."""
        return f"{self.authors} ({self.year}). {self.title}. {self.where}."

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@cache
def _papers() -> dict[str, dict[str, Any]]:
    return json.loads(files("motes.core").joinpath("bibliography.json").read_text("utf-8"))


def cited(key: str, about: str = "") -> Reference:
    """The paper of this key in `bibliography.json`, as the source of what `about` names."""
    return Reference(key, **_papers()[key], about=about)


ENGINE = (cited("delmoral2004", "the particle engine"), cited("salmon2011", "the random numbers"))


class Sourced(Protocol):
    """What has sources, as a `Run` does."""

    @property
    def references(self) -> tuple[Reference, ...]: ...


def cite(run: Sourced, style: str = "bibtex") -> str:
    """The sources of everything that `run` used, as BibTeX (`style="bibtex"`) or lines of prose (`style="text"`)."""
    check_name("style", style, ("bibtex", "text"))
    references = {r.key: r for r in run.references}.values()
    return "\n\n".join(r.bibtex() if style == "bibtex" else r.text() for r in references)
