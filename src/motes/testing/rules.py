"""Laws of decoding rules: normalised laws, right masses, and states that are functions of the text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.core.particles import Particles
from motes.errors import MotesError, WrongType
from motes.language import Generation, TableModel
from motes.language.rule import Chain, Rule, SeenTokens, renormalised
from motes.testing.models import mean_weights
from motes.testing.violation import LawViolation, at_least, must_be

EXACT = 1e-9
TABLE = torch.tensor(
    [[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [1 / 3, 1 / 3, 1 / 3], [0.7, 0.25, 0.05]], dtype=torch.float64
).log()
"""Rows: after "a", after "b", after the end (never used), at the start. Columns: "a", "b", end."""

Text = tuple[int, ...]


def three_tokens() -> TableModel:
    """A model of the tokens "a", "b" and the end, whose every text can be counted."""
    return TableModel(["a", "b", "."], TABLE)


def check_rule(
    rule: Rule,
    *,
    model: TableModel | None = None,
    max_tokens: int = 3,
    target: Callable[[Text], float | None] | None = None,
    truncates: bool = False,
    adds: bool = False,
) -> dict[str, float]:
    """Check that a decoding rule keeps the laws of rules, on every text of a model that is a table.

    - "normalised": the law after each text adds to 1, and some mass is kept.
    - "state": asked twice about a text, the rule says the same.
    - "excluded": a token that an earlier rule excluded stays so.
    - "mass" (with `truncates`): what is left of the law is in proportion to what it was, and the mass is its sum.
    - "rows": texts that are asked about together have the laws that each has alone.
    - "run": a run's texts have the law that follows from laws and masses one by one, by a walk through every outcome,
      globalised and not.
    - "target" (with `target`): law times mass, over a text, is the unnormalised global law that the rule states.

    Without `target` or `truncates` nothing says what the mass should be. There is no chance in any of this, so that no
    check fails for a rule that is right; it takes about a second.

    Args:
        rule: what is checked, with its knobs: such as change something on so few tokens.
        model: a table; None has the tokens "a", "b" and the end (numbers 0, 1, 2). Companions need its vocabulary.
        max_tokens: the length at which texts are cut.
        target: texts, as token numbers with the end, to their global law; None where it does not say.
        truncates: whether the rule does nothing but exclude tokens.
        adds: whether it may give mass to tokens that an earlier rule excluded, and says so; then "excluded" is not
            checked.

    Returns:
        By law the largest difference that was found.

    Raises:
        LawViolation: a law does not hold; the message names the text.

    >>> from motes.language import top_k
    >>> from motes.testing import check_rule
    >>> sorted(check_rule(top_k(2), truncates=True))
    ['excluded', 'mass', 'normalised', 'rows', 'run', 'state']
    """
    must_be(rule, Rule, "rule", "a decoding rule with its knobs, such as motes.language.top_k(2)")
    must_be(model, (TableModel, type(None)), "model", "None or a motes.language.TableModel, whose texts can be counted")
    at_least(1, max_tokens=max_tokens)
    if target is not None and not callable(target):
        raise WrongType(f"target must be None or a function of a text (a tuple of token numbers), not {target!r}")
    walk = Tried(rule, model or three_tokens(), max_tokens)
    found: dict[str, float] = {}
    for row in walk.rows.values():
        walk.one_by_one(row, truncates, adds, found)
    walk.together(found)
    walk.in_a_run(found)
    if target is not None:
        known = {text: value for text in walk.texts() if (value := target(text)) is not None}
        law = {text: value for text, value in walk.whole(True).items() if text in known}
        found["target"] = walk.same("target", law, known, "what the rule states")
    return found


@dataclass(frozen=True)
class Answer:
    """What a rule says after one text: its law (V,) and the log of the mass kept, and what it was asked."""

    text: Text
    asked: Tensor
    seen: SeenTokens
    law: Tensor
    kept: float


class Tried:
    """A rule asked about every text of a model, one at a time."""

    rule: Rule
    model: TableModel
    max_tokens: int

    def __init__(self, rule: Rule, model: TableModel, max_tokens: int):
        self.rule, self.model, self.max_tokens = rule, model, max_tokens
        self.prompt: Tensor = model.encode("")
        companions = rule.companions(model, self.prompt)
        self.others: list[TableModel] = [other for other, _ in companions if isinstance(other, TableModel)]
        if len(self.others) < len(companions):
            raise MotesError(
                f"to check {rule!r} give it companions that are a TableModel, with {model.vocabulary} tokens"
            )
        self.rows: dict[Text, Answer] = {}
        self._grow((), rule.start(model, self.prompt))

    def _grow(self, text: Text, state: Any) -> None:
        if self.ended(text):
            return
        asked = torch.log_softmax(self.model.row(text), -1)[None]
        others = tuple(torch.log_softmax(other.row(text), -1)[None] for other in self.others)
        tokens, length = torch.tensor([text], dtype=torch.int64).reshape(1, -1), torch.tensor([len(text)])
        seen = SeenTokens(self.model, self.prompt, tokens, length, asked, state, others)
        law, kept = self.rule(asked, seen)
        self.rows[text] = Answer(text, asked, seen, law[0], float(kept[0]))
        for v in range(self.model.vocabulary):
            if law[0, v] > -math.inf:
                self._grow((*text, v), self.rule.advance(seen, asked, torch.tensor([v])))

    def ended(self, text: Text) -> bool:
        """Whether nothing comes behind a text."""
        return len(text) == self.max_tokens or any(v in self.model.end for v in text)

    def texts(self, begun: Text = ()) -> Iterator[Text]:
        """Every text that begins with `begun`, whether the rule allows it or not."""
        if self.ended(begun):
            yield begun
        else:
            for v in range(self.model.vocabulary):
                yield from self.texts((*begun, v))

    def whole(self, globalise: bool) -> dict[Text, float]:
        """The law of whole texts that follows from laws and masses."""
        out: dict[Text, float] = {}
        for text, row in self.rows.items():
            value = 1.0
            for k in range(len(text) + 1):
                before = self.rows[text[:k]]
                step = 1.0 if k == len(text) else float(before.law[text[k]].exp())
                value *= step * (math.exp(before.kept) if globalise else 1.0)
            for v in range(self.model.vocabulary):
                if row.law[v] > -math.inf and self.ended((*text, v)):
                    out[(*text, v)] = value * float(row.law[v].exp())
        return out

    def violation(self, law: str, text: Text, said: str) -> LawViolation:
        """The error that names rule and text."""
        return LawViolation(
            law, f"{self.rule!r} after the text {self.model.decode(text)!r} (tokens {list(text)}): {said}"
        )

    def one_by_one(self, row: Answer, truncates: bool, adds: bool, found: dict[str, float]) -> None:
        """What can be seen of one text alone."""
        total = float(row.law.exp().sum())
        if not abs(total - 1) < EXACT or not math.isfinite(row.kept):
            raise self.violation(
                "normalised",
                row.text,
                f"the probabilities add to {total:.6g} and should add to 1, with a finite log-mass, which is "
                f"{row.kept:.6g}: `motes.language.rule.renormalised` gives both",
            )
        found["normalised"] = max(found.get("normalised", 0.0), abs(total - 1))
        law, kept = self.rule(row.asked, row.seen)
        found["state"] = 0.0
        if not (torch.equal(law[0], row.law) and float(kept[0]) == row.kept):
            raise self.violation(
                "state",
                row.text,
                f"asked again, it answers {law[0].exp().tolist()} instead of {row.law.exp().tolist()}: what it "
                "remembers belongs into the state that `start` and `advance` return, not into the rule",
            )
        left = row.law > -math.inf
        if truncates:
            mass = float(row.asked[0][left].exp().sum())
            off = (row.law[left] - (row.asked[0][left] - math.log(mass))).abs().max().item()
            off = max(off, abs(row.kept - math.log(mass)))
            found["mass"] = max(found.get("mass", 0.0), off)
            if off > EXACT:
                raise self.violation(
                    "mass",
                    row.text,
                    f"it keeps the tokens {torch.nonzero(left)[:, 0].tolist()}, whose mass is {mass:.6g}, and says "
                    f"that it kept {math.exp(row.kept):.6g} and left the law {row.law.exp().tolist()}",
                )
        if adds:
            return
        found["excluded"] = 0.0
        for v in torch.nonzero(left)[:, 0].tolist():
            rest = row.asked.clone()
            rest[0, v] = -math.inf
            law, _ = self.rule(renormalised(rest)[0], row.seen)
            if not law[0, v] == -math.inf:
                raise self.violation(
                    "excluded",
                    row.text,
                    f"token {v}, which an earlier rule had excluded, has probability {float(law[0, v].exp()):.6g} and "
                    "should have 0: leave log-probabilities of -inf alone",
                )

    def together(self, found: dict[str, float]) -> None:
        """All texts of one length at once, in another order than they were made."""
        chain, texts = Chain((self.rule,), self.model, self.prompt, self.max_tokens), [()]
        found["rows"] = 0.0
        while texts:
            laws, kept = chain(torch.cat([self.rows[text].asked for text in texts]))
            for text, law, mass in zip(texts, laws, kept.tolist(), strict=True):
                alone = self.rows[text]
                apart = (law.exp() - alone.law.exp()).abs().max().item()
                off = max(apart, abs(mass - alone.kept))
                found["rows"] = max(found["rows"], off)
                if not off < EXACT:
                    raise self.violation(
                        "rows",
                        text,
                        f"as one of {len(texts)} texts its law is {law.exp().tolist()} with mass {math.exp(mass):.6g}, "
                        f"alone it is {alone.law.exp().tolist()} with {math.exp(alone.kept):.6g}: sums and "
                        "maxima go over the last axis, and states are taken row by row",
                    )
            new = [
                (i, v) for i, text in enumerate(texts) for v in range(self.model.vocabulary) if (*text, v) in self.rows
            ]
            texts = [(*texts[i], v) for i, v in new[::-1]]
            if texts:
                chain.extend(torch.tensor([i for i, _ in new[::-1]]), torch.tensor([v for _, v in new[::-1]]))

    def in_a_run(self, found: dict[str, float]) -> None:
        """Every outcome of a run of one particle."""
        found["run"] = 0.0
        for globalise in (True, False):
            model = Generation(self.model, "", rules=self.rule, max_tokens=self.max_tokens, globalise=globalise)
            law: Any = mean_weights(model, 1, label=texts_of, ess_threshold=0.0)
            what = f"followed text by text (globalise={globalise})"
            found["run"] = max(found["run"], self.same("run", law, self.whole(globalise), what))

    def same(self, law: str, one: Mapping[Text, float], two: Mapping[Text, float], what: str) -> float:
        """The largest difference between two laws of texts, as a part of the whole."""
        scale = sum(two.values())
        off = {text: abs(one.get(text, 0.0) - two.get(text, 0.0)) / scale for text in {**one, **two}}
        text = max(off, key=lambda t: off[t])
        if off[text] > EXACT:
            raise self.violation(
                law,
                text,
                f"a whole text has weight {one.get(text, 0.0):.8g}, and {two.get(text, 0.0):.8g} is {what}: is the "
                "mass that the rule returns what its law was divided by?",
            )
        return off[text]


def texts_of(particles: Particles) -> list[Text]:
    """The tokens of each particle of a `Generation`."""
    x: Any = particles.x
    return [tuple(x["tokens"][i, : int(x["length"][i])].tolist()) for i in range(particles.n)]
