"""Which papers a run rests on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
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

    def used_for(self, about: str) -> Reference:
        """The same source for another part of a run."""
        return replace(self, about=about)

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


ENGINE = (
    Reference(
        "delmoral2004",
        "Del Moral",
        2004,
        "Feynman-Kac Formulae: Genealogical and Interacting Particle Systems with Applications",
        "Springer",
        "the particle engine",
    ),
    Reference(
        "salmon2011",
        "Salmon, Moraes, Dror, Shaw",
        2011,
        "Parallel random numbers: as easy as 1, 2, 3",
        "SC '11, Proceedings of the International Conference for High Performance Computing",
        "the random numbers",
    ),
)


class Sourced(Protocol):
    """What has sources, as a `Run` does."""

    @property
    def references(self) -> tuple[Reference, ...]: ...


# papers on which methods of several domains rest; what one rests on alone stands beside it
ANDRIEU = Reference(
    "andrieu2010",
    "Andrieu, Doucet, Holenstein",
    2010,
    "Particle Markov chain Monte Carlo methods",
    "Journal of the Royal Statistical Society B 72(3)",
)
CHOPIN = Reference(
    "chopin2002", "Chopin", 2002, "A sequential particle filter method for static models", "Biometrika 89(3)"
)
COTTER = Reference(
    "cotter2013",
    "Cotter, Roberts, Stuart, White",
    2013,
    "MCMC methods for functions: modifying old algorithms to make them faster",
    "Statistical Science 28(3)",
)
DEL_MORAL = Reference(
    "delmoral2006",
    "Del Moral, Doucet, Jasra",
    2006,
    "Sequential Monte Carlo samplers",
    "Journal of the Royal Statistical Society B 68(3)",
)


def cite(run: Sourced, style: str = "bibtex") -> str:
    """The sources of everything that `run` used, as BibTeX (`style="bibtex"`) or lines of prose (`style="text"`)."""
    check_name("style", style, ("bibtex", "text"))
    references = {r.key: r for r in run.references}.values()
    return "\n\n".join(r.bibtex() if style == "bibtex" else r.text() for r in references)
