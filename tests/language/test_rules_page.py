"""The table of docs/rules.md says what the rules do on the table model."""

from __future__ import annotations

from pathlib import Path

from language.test_rule_laws import CASES, counted
from motes.language.rules.registry import rules, signature

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def distance(name: str) -> float:
    """Total variation between the rule's law of whole texts and what token by token renormalising gives."""
    whole, local = counted(CASES[name], True), counted(CASES[name], False)
    total = sum(whole.values())
    return 0.5 * sum(abs(whole[text] / total - local[text]) for text in whole)


def rows() -> list[str]:
    out = []
    for name, kind in rules().items():
        first = (
            (kind.__doc__ or "").split("\n\n")[0].replace("\n   ", "").split(": ")[0].rstrip(".").replace("|", "\\|")
        )
        out.append(f"| `{signature(name)}` | {first} | {distance(name):.4f} |")
    return out


def test_the_table_is_up_to_date():
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("| `")] == rows()


def test_distances_that_are_known():
    assert distance("gamma_sampling") == distance("self_terminating") == 0
    assert abs(distance("nucleus") - 0.5 * sum(abs(a - b) for a, b in by_hand())) < 1e-12


def by_hand() -> list[tuple[float, float]]:
    """A nucleus of 0.75: {a, b} at the start (0.95), {a, end} after a (0.8), {b, end} after b (0.9)."""
    keep = {(0, 0): 0.5, (0, 2): 0.3, (1, 1): 0.6, (1, 2): 0.3}
    start, mass, end = {0: 0.7, 1: 0.25}, {0: 0.8, 1: 0.9}, 2
    whole: dict[tuple[int, ...], float] = {}
    local: dict[tuple[int, ...], float] = {}
    for first, q in start.items():
        for second in (first, end):
            value, alone = q * keep[first, second], q / 0.95 * keep[first, second] / mass[first]
            if second == end:
                whole[first, end], local[first, end] = value, alone
                continue
            for third in (first, end):
                key = (first, second, third)
                whole[key] = value * keep[first, third]
                local[key] = alone * keep[first, third] / mass[first]
    total = sum(whole.values())
    return [(whole[text] / total, local[text]) for text in whole]
