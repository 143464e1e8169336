"""Which texts mean the same: by a key, a function, an embedding, or a language model's judgement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from motes.errors import MotesError, UnknownName
from motes.language.models.model import LanguageModel
from motes.language.uncertainty.embedding import Embed, embed_texts


class Meaning(ABC):
    """A judgement of which texts mean the same."""

    @abstractmethod
    def same(self, first: Sequence[str], second: Sequence[str]) -> list[bool]:
        """For each pair (first[i], second[i]) of different texts, whether they mean the same."""


@dataclass(frozen=True)
class ByKey(Meaning):
    """Texts mean the same if a function gives them the same key, as `str.casefold` does. Transitive."""

    key: Callable[[str], Hashable]

    def same(self, first: Sequence[str], second: Sequence[str]) -> list[bool]:
        return [self.key(a) == self.key(b) for a, b in zip(first, second, strict=True)]


@dataclass(frozen=True)
class ByFunction(Meaning):
    """Texts mean the same if a function of both says so, an entailment model in both directions for instance."""

    function: Callable[[str, str], bool]

    def same(self, first: Sequence[str], second: Sequence[str]) -> list[bool]:
        return [bool(self.function(a, b)) for a, b in zip(first, second, strict=True)]


@dataclass(frozen=True)
class ByEmbedding(Meaning):
    """Texts mean the same if the cosine of their embeddings is at least `least`.

    Args:
        embed: maps texts to (N, D), as `motes.language.uncertainty.MiniLM()`.
        least: from -1 to 1. There is no value that suits all texts: look at some pairs first.
    """

    embed: Embed
    _: KW_ONLY
    least: float = 0.8
    known: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not callable(self.embed) or not -1 <= self.least <= 1:
            raise MotesError(f"ByEmbedding needs a function of texts and a cosine from -1 to 1, not {self.least!r}")

    def same(self, first: Sequence[str], second: Sequence[str]) -> list[bool]:
        new = [text for text in dict.fromkeys([*first, *second]) if text not in self.known]
        if new:
            self.known.update(zip(new, embed_texts(self.embed, new), strict=True))
        pairs = zip(first, second, strict=True)
        return [float(self.known[a] @ self.known[b]) >= self.least for a, b in pairs]


JUDGE = (
    "Question: {question}\nFirst answer: {first}\nSecond answer: {second}\n"
    "Do the two answers mean the same? Reply with Yes or No."
)


@dataclass(frozen=True)
class ByJudge(Meaning):
    """Texts mean the same if a language model rather says yes than no, asked in both orders.

    The log-odds are those of the first token of the reply, all spellings of yes against all of no, added for the two
    orders. A small model's judgement is worth little: check it on pairs that you know.

    Args:
        model: a language model.
        question: what the texts answer.
        template: with the fields {question}, {first} and {second}.
        least: the log-odds from which on it counts as yes, nats.
    """

    model: LanguageModel
    _: KW_ONLY
    question: str = ""
    template: str = JUDGE
    least: float = 0.0
    known: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def same(self, first: Sequence[str], second: Sequence[str]) -> list[bool]:
        return [self.log_odds(a, b) >= self.least for a, b in zip(first, second, strict=True)]

    def log_odds(self, first: str, second: str) -> float:
        """The log-odds of yes, the two orders added, nats."""
        pair = tuple(sorted((first, second)))
        if pair not in self.known:
            self.known[pair] = self._asked(*pair) + self._asked(*pair[::-1])
        return self.known[pair]

    def _asked(self, first: str, second: str) -> float:
        text = self.template.format(question=self.question, first=first, second=second)
        logits = self.model.prefixes(self.model.encode(text), 1).logits[0].detach().cpu().double()
        yes, no = self._words()
        return float(torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0))

    def _words(self) -> tuple[Tensor, Tensor]:
        """The tokens that read yes and no."""
        if "words" not in self.known:
            words = [self.model.decode([v]).strip().lower() for v in range(self.model.vocabulary)]
            found = [torch.tensor([v for v, word in enumerate(words) if word == k]) for k in ("yes", "no")]
            if not all(len(f) for f in found):
                raise MotesError(f"{self.model.name} has no token that reads 'yes' or none that reads 'no'")
            self.known["words"] = (found[0], found[1])
        yes, no = self.known["words"]
        return yes, no


def cluster(texts: Sequence[str], meaning: Meaning, *, how: str = "first") -> Tensor:
    """(N,) int64 the cluster of each text, numbered in the order of appearance.

    A judgement need not be transitive, so two ways can differ. "first": a text joins the first cluster whose *first
    member* means the same, as in the published code of semantic entropy; this depends on the order of the texts and
    asks at most N times the number of clusters. "components": the connected components of the relation, which do not
    depend on the order, ask about every pair, and chain: a text may stand with one that it does not mean.

    Args:
        texts: N texts; equal ones are judged once.
        meaning: `ByKey`, `ByFunction`, `ByEmbedding`, `ByJudge`, or a `Meaning` of your own.
        how: "first" or "components".

    Raises:
        UnknownName: `how` is neither.
        MotesError: `meaning` is no `Meaning`.

    Example:
        >>> from motes.language.uncertainty import ByKey, cluster
        >>> cluster(["Paris", "Rome", "paris"], ByKey(str.casefold)).tolist()
        [0, 1, 0]
    """
    if how not in ("first", "components"):
        raise UnknownName("way of clustering", how, ["first", "components"])
    if not isinstance(meaning, Meaning):
        raise MotesError(f"meaning must be ByKey, ByFunction, ByEmbedding or ByJudge, not {type(meaning).__name__}")
    distinct = list(dict.fromkeys(texts))
    if isinstance(meaning, ByKey):
        keys: dict[Hashable, int] = {}
        label = [keys.setdefault(meaning.key(text), len(keys)) for text in distinct]
    else:
        label = _by_first(distinct, meaning) if how == "first" else _components(distinct, meaning)
    of = dict(zip(distinct, label, strict=True))
    return torch.tensor([of[text] for text in texts])


def _by_first(texts: list[str], meaning: Meaning) -> list[int]:
    first: list[str] = []
    label: list[int] = []
    for text in texts:
        same = meaning.same(first, [text] * len(first)) if first else []
        label.append(same.index(True) if True in same else len(first))
        if label[-1] == len(first):
            first.append(text)
    return label


def _components(texts: list[str], meaning: Meaning) -> list[int]:
    pairs = [(i, j) for j in range(len(texts)) for i in range(j)]
    same = meaning.same([texts[i] for i, _ in pairs], [texts[j] for _, j in pairs]) if pairs else []
    root = list(range(len(texts)))
    for (i, j), yes in zip(pairs, same, strict=True):
        if yes:
            low, high = sorted((root[i], root[j]))
            root = [low if r == high else r for r in root]
    number: dict[int, int] = {}
    return [number.setdefault(r, len(number)) for r in root]
