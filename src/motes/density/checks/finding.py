"""What a check of a model found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from motes.laws.law import Law
from motes.laws.parameters import Values

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"


@dataclass(frozen=True)
class Finding:
    """One check: its name, a mark (ok, FAILED, skipped), a sentence, and the numbers behind it."""

    name: str
    mark: str
    said: str
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """All findings; `ok` is whether none failed."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(f.mark != FAILED for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"ok": self.ok, "findings": [asdict(f) for f in self.findings]}

    def __str__(self) -> str:
        return "\n".join(f"{f.mark:8} {f.name:12} {f.said}" for f in self.findings)


def coordinates(density: Law) -> list[str]:
    """A name for each coordinate of z: its parameter, with the place in it where there are several."""
    from motes.laws.density import Density

    if not isinstance(density, Density):
        return [f"z[{k}]" for k in range(density.dim)]
    names = []
    for b in density.parameters.blocks:
        size = b.stop - b.start
        names += [b.name] if size == 1 else [f"{b.name}[{k}]" for k in range(size)]
    return names


def point(values: Values, i: int, most: int = 6) -> str:
    """The parameters of point i, as words."""
    named = {"x": values} if not isinstance(values, dict) else values
    said = []
    for name, value in list(named.items())[:most]:
        numbers = value[i].detach().flatten().tolist()
        text = ", ".join(f"{v:.4g}" for v in numbers[:most]) + (", ..." if len(numbers) > most else "")
        said.append(f"{name}={text}" if value.ndim == 1 else f"{name}=[{text}]")
    return ", ".join(said)
