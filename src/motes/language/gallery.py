"""Pictures of text as HTML: surprise token by token in colour, and two laws of the same texts side by side."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from motes.core.run import Run
from motes.errors import MotesError, NanLogPotential
from motes.language.compression import tokenise
from motes.language.models.model import LanguageModel, Message

WORST = 12.0
"""Nats at which the colour is deepest: a token that comes once in 160,000 times."""


@dataclass(frozen=True)
class Surprise:
    """One token of a text.

    Attributes:
        text: what it adds.
        surprise: -log of its probability, nats.
        entropy: of the law that it was drawn from, nats: the surprise that was to be expected.
    """

    text: str
    surprise: float
    entropy: float


def surprise(
    model: LanguageModel, text: str | Sequence[int], prompt: str | Sequence[Message] = "", *, chat: bool | str = False
) -> list[Surprise]:
    """How surprising each token of a text is to a model, nats.

    The sum over tokens is -log P(text is what follows or begins what follows). If a model wrote the text itself, the
    surprises less the entropies have mean zero.

    Args:
        model: the language model.
        text: the text, or its tokens.
        prompt: what stands before it.
        chat: wrap the prompt in the model's chat template, see `Generation`.

    Example:
        >>> from motes.language import TableModel
        >>> table = TableModel(["a", "b", "."], torch.tensor([0.5, 0.25, 0.25]).log().expand(4, 3))
        >>> [round(t.surprise / math.log(2)) for t in surprise(table, "aab")]
        [1, 1, 2]
    """
    tokens = tokenise(model, text)
    prefixes = model.prefixes(model.encode(prompt, chat), max(len(tokens), 1))
    out = []
    for at, token in enumerate(tokens):
        law = torch.log_softmax(prefixes.logits[0].detach().cpu().double(), -1)
        if torch.isnan(law).any():
            raise NanLogPotential(f"{model.name} returned NaN or infinite logits after {at} tokens of the text")
        out.append(Surprise(model.decode([token]), -float(law[token]), float(torch.special.entr(law.exp()).sum())))
        if at + 1 < len(tokens):
            prefixes.extend(torch.zeros(1, dtype=torch.int64), torch.tensor([token]))
    return out


def surprise_html(tokens: Sequence[Surprise]) -> str:
    """The text with each token on a colour that deepens with its surprise; numbers show under the pointer.

    It holds its own style and no script, fits light and dark pages, and goes into any of them.
    """
    parts = []
    for t in tokens:
        depth = 0.85 * min(t.surprise / WORST, 1.0) ** 0.8
        said = f"{t.surprise:.2f} nats, {t.entropy:.2f} expected"
        style = f"background:rgba(226,110,40,{depth:.2f});border-radius:3px;padding:.12em 0"
        parts.append(f'<span title="{said}" style="{style}">{html.escape(t.text)}</span>')
    total = sum(t.surprise for t in tokens)
    note = f"{total:.1f} nats, {total / max(len(tokens), 1):.2f} a token"
    box = "line-height:1.9;white-space:pre-wrap;overflow-wrap:anywhere"
    return f'<p style="{box}">{"".join(parts)}<br><small style="opacity:.7">{note}</small></p>'


def local_and_global(run: Run) -> list[tuple[str, float, float]]:
    """Each distinct text of a run without resampling: its share among the draws, and its share of the weight.

    The draws follow the local law (masked and renormalised token by token), the weights make the global one of them.
    The heaviest come first.

    Raises:
        MotesError: the population was resampled, so that the draws follow neither law.
    """
    if len(torch.unique(run.particles.root)) < run.n:
        raise MotesError(
            "the population was resampled: sample with ess_threshold=0.0 to see the law that masking alone draws"
        )
    shares: dict[str, list[float]] = {}
    for text, weight in zip(run.texts, run.weight.tolist(), strict=True):
        entry = shares.setdefault(text, [0.0, 0.0])
        entry[0] += 1 / run.n
        entry[1] += weight
    return sorted(((t, a, b) for t, (a, b) in shares.items()), key=lambda row: -row[2])


def laws_html(rows: Sequence[tuple[str, float, float]], names: tuple[str, str] = ("local", "global")) -> str:
    """Two laws of the same texts as pairs of bars, one above the other."""
    if not rows:
        raise MotesError("there is no text to draw")
    most = max(max(a, b) for _, a, b in rows) or 1.0
    if not math.isfinite(most):
        raise MotesError("shares must be finite")
    colours = ("rgba(208,102,31,.85)", "rgba(52,80,200,.85)")
    key = " ".join(
        f'<span style="display:inline-block;width:.8em;height:.8em;background:{c};border-radius:2px"></span> '
        f"{html.escape(name)}&ensp;"
        for name, c in zip(names, colours, strict=True)
    )
    parts = [f'<div style="margin:1em 0"><p style="margin:0 0 .5em"><small>{key}</small></p>']
    for text, *both in rows:
        bars = "".join(
            f'<div style="display:flex;align-items:center;gap:.5em"><div style="height:.6em;border-radius:2px;'
            f'background:{c};width:{70 * v / most:.1f}%"></div><small style="opacity:.75">{100 * v:.1f} %</small></div>'
            for v, c in zip(both, colours, strict=True)
        )
        parts.append(
            f'<div style="margin:0 0 .7em"><div style="overflow-wrap:anywhere">{html.escape(text)}</div>{bars}</div>'
        )
    return "".join(parts) + "</div>"
