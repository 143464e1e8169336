"""Short answers of SmolLM2-135M, all of them counted: under a constraint, under a strong reward, and under both.

Under the constraint an answer counts with every way in which tokens spell it. Under the reward alone a text is one
token, and the truth is a sum over the vocabulary. Sums are exact but for the model's 32-bit numbers, whose last digits
depend on the batch (`ROUNDING`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from benchmarks.trust.target import Target, Truth
from benchmarks.trust.texts import each, smollm2, tilted, under_constraint, under_reward

from motes.language import Generation, choices

QUESTION = "Is a tomato a fruit? Answer yes or no."
ANSWERS = ["Yes", "No", "Maybe", "Yes.", "No."]
MOST = 5
FUNCTIONS = {"Yes": lambda text: float(text.startswith("Yes")), "No": lambda text: float(text.startswith("No"))}
ROUNDING = 1e-5


@cache
def known() -> dict[str, int]:
    """The tokens by what they write, as far as it is made of the letters of the answers."""
    model, letters = smollm2(), {*"".join(ANSWERS)}
    written = ((model.decode([v]), v) for v in range(model.vocabulary) if v not in model.end)
    return {text: v for text, v in written if text and {*text} <= letters}


def spellings(text: str) -> list[list[int]]:
    """Every way to write a text in tokens."""
    if not text:
        return [[]]
    heads = [text[:k] for k in range(1, len(text) + 1) if text[:k] in known()]
    return [[known()[head], *rest] for head in heads for rest in spellings(text[len(head) :])]


@cache
def counted() -> list[tuple[str, float]]:
    """The probability of each answer: the sum over its spellings, each with the end token behind it."""
    model, out = smollm2(), []
    prompt = model.encode(QUESTION)
    for answer in ANSWERS:
        p = 0.0
        for tokens in spellings(answer):
            front = model.prefixes(prompt, MOST)
            log_p = 0.0
            for v in [*tokens, model.end[0]][:MOST]:
                log_p += float(torch.log_softmax(front.logits[0].double(), -1)[v])
                if v != model.end[0]:
                    front.extend(torch.tensor([0]), torch.tensor([v]))
            p += float(torch.tensor(log_p).exp()) if len(tokens) <= MOST else 0.0
        out.append((answer, p))
    return out


def valid() -> Truth:
    return rounded(tilted(counted(), lambda text: 0.0, FUNCTIONS))


def worth(text: str) -> float:
    """Four nats for one valid answer of sixty."""
    return 4.0 * (text == "Yes")


def both() -> Truth:
    return rounded(tilted(counted(), worth, FUNCTIONS))


def opening(text: str) -> float:
    """Four nats for a letter that one reply of fourteen begins with."""
    return 4.0 * text.startswith("Y")


def rewarded() -> Truth:
    model = smollm2()
    law = torch.log_softmax(model.prefixes(model.encode(QUESTION), 1).logits[0].double(), -1).exp().tolist()
    texts = ("" if v in model.end else model.decode([v]) for v in range(model.vocabulary))
    return rounded(tilted(zip(texts, law, strict=True), opening, FUNCTIONS))


def rounded(truth: Truth) -> Truth:
    return replace(truth, errors=dict.fromkeys(["evidence", *FUNCTIONS], ROUNDING))


def make(**options: object) -> Generation:
    return Generation(  # type: ignore[arg-type]
        smollm2(), QUESTION, constraint=choices(ANSWERS), reward=each(worth), max_tokens=MOST, **options
    )


def make_one(**options: object) -> Generation:
    return Generation(smollm2(), QUESTION, reward=each(opening), max_tokens=1, **options)  # type: ignore[arg-type]


MEANS = {name: each(f) for name, f in FUNCTIONS.items()}
TARGETS = [
    Target(
        "language-smollm2-valid",
        "Answers of SmolLM2",
        valid,
        MEANS,
        under_constraint(lambda kind: kind(smollm2(), QUESTION, constraint=choices(ANSWERS), max_tokens=MOST)),
        domain="language",
        sizes=(32,),
    ),
    Target(
        "language-smollm2-rewarded",
        "Replies of SmolLM2, four nats for a letter",
        rewarded,
        MEANS,
        under_reward(make_one),
        domain="language",
        sizes=(32, 128),
    ),
    Target(
        "language-smollm2-both",
        "Answers of SmolLM2, four nats for one",
        both,
        MEANS,
        under_reward(make),
        domain="language",
        sizes=(32,),
    ),
]
