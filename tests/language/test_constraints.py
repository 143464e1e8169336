"""Every kind of constraint on the table model: masks and tests against enumeration, and the weighted law of a run."""

from __future__ import annotations

import itertools
import json
import math
import re

import jsonschema
import pytest
import torch

from language.tables import TABLE, exact, table, texts
from language.test_exact import assert_same_law, mean_law
from motes.errors import EmptyConstraint, MotesError
from motes.language import Generation, TableModel, json_schema, regex
from motes.language.constraints import both, canonical, choices, constraints, grammar, predicate, starts_with
from motes.language.constraints import example as search
from motes.language.constraints.choices import Listed
from motes.language.constraints.example import example, no_room
from motes.language.constraints.parsed import Parsers
from motes.language.generation.proposals.rejection import draw
from motes.rng import Rng


def pair_table() -> TableModel:
    """Texts over a and b that can be spelt in several ways."""
    return TableModel(["a", "b", "ab", "ba", "."], torch.zeros(6, 5, dtype=torch.float64))


@pytest.mark.parametrize(
    "constraint, pattern",
    [
        (choices(["ab", "b", "aab"]), "ab|b|aab"),
        (starts_with("ab"), "ab[ab]*"),
        (regex("a[ab]*") & choices(["ab", "b", "aab"]), "ab|aab"),
    ],
    ids=["choices", "starts_with", "both"],
)
def test_the_weighted_law_of_a_full_constraint_is_that_of_all_texts(constraint, pattern):
    found, _ = mean_law(Generation(table(), "", constraint=constraint, max_tokens=3), 1)
    assert_same_law(found, exact(3, pattern))


KNOBS = {
    "both": lambda: both(regex("a[ab]*"), predicate(lambda text: "bb" not in text)),
    "choices": lambda: choices(["ab", "b", "aab"]),
    "grammar": lambda: grammar('start: "a" | "b" start'),
    "json_schema": lambda: json_schema({"const": 1}),
    "predicate": lambda: predicate(lambda text: "bb" not in text),
    "regex": lambda: regex("ab?|b|aab"),
    "starts_with": lambda: starts_with("ab"),
}
"""What the constraints without defaults are given."""
MODELS = {"json_schema": lambda: TableModel(["1", " ", "."], TABLE)}


def what_its_recogniser_accepts(constraint, model):
    """The law of all texts of at most three tokens, by asking about each of them alone, token by token."""
    row, out = torch.zeros(1, dtype=torch.int64), {}
    for text, p in texts(3):
        recogniser, good = constraint.open(model), True
        for at, v in enumerate(text):
            last = torch.tensor([v])
            cut = at == 2 and v != 2
            good = good and bool(recogniser.allowed()[0, v]) and bool(recogniser.test(row, last))
            good = good and (not cut or bool(recogniser.accepts(row, last)))
            if good:
                recogniser.extend(row, last if v != 2 else torch.tensor([-1]))
        if good:
            out[text] = math.prod(p)
    return out


@pytest.mark.parametrize("name", constraints)
def test_the_law_of_every_constraint_is_that_of_the_texts_that_it_accepts(name):
    """Up to the random weights of what is tested token by token, whose mean is exact."""
    constraint, model = KNOBS.get(name, constraints[name])(), MODELS.get(name, table)()
    found, _ = mean_law(Generation(model, "", constraint=constraint, max_tokens=3), 1)
    assert_same_law(found, what_its_recogniser_accepts(constraint, model))


def test_a_recogniser_that_accepts_too_much_has_another_law(monkeypatch):
    constraint = choices(["ab", "b", "aab"])
    right = what_its_recogniser_accepts(constraint, table())
    monkeypatch.setattr(Listed, "mask", lambda self, text: torch.ones(3, dtype=torch.bool))
    assert what_its_recogniser_accepts(constraint, table()) != right == exact(3, "ab|b|aab")


def spelt_by_enumeration(model, accepts, most):
    """Prefixes of token sequences (without end) whose text `accepts`, by length of the sequence."""
    good = {
        text
        for n in range(most + 1)
        for text in itertools.product(range(4), repeat=n)
        if accepts("".join(model.tokens[v] for v in text))
    }
    return good, {text[:k] for text in good for k in range(len(text) + 1)}


@pytest.mark.parametrize(
    "constraint, pattern",
    [(choices(["abba", "b", "aab"]), "abba|b|aab"), (starts_with("bab"), "bab[ab]*")],
    ids=["choices", "starts_with"],
)
def test_a_mask_keeps_exactly_what_can_end_well(constraint, pattern):
    model = pair_table()
    good, begun = spelt_by_enumeration(model, lambda t: re.fullmatch(pattern, t), 5)
    recogniser = constraint.open(model)
    assert recogniser.full
    for text in (t for t in begun if len(t) <= 3):
        recogniser.reopen({0: list(text)}, 1)
        mask = recogniser.allowed()[0].tolist()
        assert mask[:4] == [(*text, v) in begun for v in range(4)], text
        assert mask[4] == (text in good)
        ends = recogniser.accepts(torch.zeros(4, dtype=torch.int64), torch.arange(4)).tolist()
        assert ends == [(*text, v) in good for v in range(4)]


def weighted_law_by_rejection(constraint, seed, n, max_tokens):
    """Particles that each draw their whole text by tests alone: (tokens, weight)."""
    recogniser, out = constraint.open(table()), []
    rows, weight = [()] * n, torch.zeros(n, dtype=torch.float64)
    done = torch.zeros(n, dtype=torch.bool)
    for t in range(max_tokens):
        recogniser.reopen({i: list(r) for i, r in enumerate(rows) if not done[i]}, n)
        law = torch.stack([TABLE[r[-1] if r else -1] for r in rows])
        ids = torch.nonzero(~done)[:, 0]
        if not len(ids):
            break
        token, log_weight, _ = draw(
            Rng(seed).at("text", step=t), law[ids], lambda i, v, ids=ids: recogniser.test(ids[i], v), ids=ids
        )
        weight[ids] += log_weight
        live = token >= 0
        if t == max_tokens - 1:
            cut = live & (token != 2)
            ok = torch.ones(len(ids), dtype=torch.bool)
            ok[cut] = recogniser.accepts(ids[cut], token[cut])
            weight[ids[~ok]] = -torch.inf
        for i, v in zip(ids.tolist(), token.tolist(), strict=True):
            rows[i] = (*rows[i], v)
            done[i] = v in (-1, 2)
    for r, w in zip(rows, weight.exp().tolist(), strict=True):
        out.append((r, w))
    return out


def no_double_b(text: str) -> bool:
    return "bb" not in text


@pytest.mark.parametrize(
    "constraint, pattern",
    [
        (predicate(no_double_b, complete=lambda t: t.endswith("a")), "(b?a)+"),
        (predicate(lambda ts: [no_double_b(t) for t in ts], batched=True), "(b?a)*b?"),
        (both(predicate(no_double_b), predicate(lambda t: len(t) < 3)), "(?!bb).{0,2}"),
    ],
    ids=["prefix and whole", "batched", "two"],
)
def test_texts_drawn_by_tests_alone_have_the_right_law(constraint, pattern):
    """20,000 particles: |z| < 4.9 for each text; an error of 0.02 in any probability would be seen."""
    n = 20_000
    found = weighted_law_by_rejection(constraint, 1, n, 3)
    expected = exact(3, pattern)
    assert {r for r, w in found if w > 0} <= expected.keys()
    for text, p in expected.items():
        mine = torch.tensor([w if r == text else 0.0 for r, w in found], dtype=torch.float64)
        se = float(mine.std()) / n**0.5
        assert abs(float(mine.mean()) - p) <= 4.9 * se < 0.02, text


def test_canonical_is_what_the_tokenizer_writes():
    model = pair_table()
    tokenizer = model.recogniser_tokenizer()
    recogniser = canonical().open(model)
    assert not recogniser.full
    rows = [t for n in (1, 2, 3) for t in itertools.product(range(4), repeat=n)]
    recogniser.reopen({i: list(t) for i, t in enumerate(rows)}, len(rows))
    ends = recogniser.test(torch.arange(len(rows)), torch.full((len(rows),), 4)).tolist()
    expected = [tokenizer.tokenize_str("".join(model.tokens[v] for v in t)) == list(t) for t in rows]
    assert ends == expected and 0 < sum(expected) < len(rows)


def test_the_tokens_of_a_real_text_are_canonical_at_every_step(smollm2):
    text = "I've 12 apples  and\n\n  ça va? 你好, it's 'llama' \t x"
    tokens = smollm2.tokenizer(text, add_special_tokens=False)["input_ids"]
    recogniser = canonical().open(smollm2)
    zero = torch.tensor([0])
    for v in tokens:
        assert recogniser.test(zero, torch.tensor([v])).all(), smollm2.decode([v])
        recogniser.extend(zero, torch.tensor([v]))
    assert recogniser.test(zero, torch.tensor([smollm2.end[0]])).all()
    recogniser.reopen({}, 1)
    split = smollm2.tokenizer.convert_tokens_to_ids(["app", "les"])
    recogniser.extend(zero, torch.tensor(split[:1]))
    assert not recogniser.test(zero, torch.tensor(split[1:])).any(), "apples is one token"


def test_too_little_room_is_an_error_that_says_how_much_is_needed():
    assert choices(["abba", "aabb"]).open(pair_table()).needs() == 2
    assert regex("(ab){4}").open(pair_table()).needs() == 4
    assert regex("(ab){4}").open(table()).needs() == 8
    with pytest.raises(EmptyConstraint, match="at least 2 tokens"):
        choices(["abba", "aabb"]).open(pair_table(), 1)
    assert "8 tokens" in no_room(regex("(ab){4}"), table(), 5)
    both_ways = regex("(ab){4}") & predicate(lambda text: "aba" not in text)
    assert "a short search found none either" in no_room(both_ways, table(), 5)


@pytest.mark.parametrize("constraint, text", [(choices(["aab"]), "aab"), (regex("b|aa"), "b"), (regex("a*"), "")])
def test_a_short_text_that_satisfies(constraint, text):
    found = example(constraint.open(table()), table(), 5)
    assert found is not None and table().decode(found) == text
    if text:
        assert example(constraint.open(table()), table(), len(text) - 1) is None


NAMED = {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}}}
NAMED |= {"required": ["city", "n"]}


@pytest.mark.parametrize(
    "schema, most", [(NAMED, 12), ({"type": "array", "items": NAMED, "minItems": 3}, 60)], ids=["object", "array"]
)
def test_the_length_of_some_json_is_found_with_little_work(smollm2, schema, most, monkeypatch):
    """Free strings, numbers and properties can go on for ever; a search that forgets what it met is lost in them."""
    recogniser, rows, reopen = json_schema(schema, layout="spaced").open(smollm2), [], Parsers.reopen
    monkeypatch.setattr(Parsers, "reopen", lambda self, texts, n: (rows.append(n), reopen(self, texts, n))[1])
    found = example(recogniser, smollm2, 400)
    assert found is not None and len(found) <= most
    jsonschema.validate(json.loads(smollm2.decode(found)), schema)
    assert sum(rows) < search.TRIED + 200
    monkeypatch.setattr(search, "MET", 0)
    monkeypatch.setattr(search, "FORCED", 0)
    monkeypatch.setattr(search, "TRIED", sum(rows) + 200)
    assert example(json_schema(schema, layout="spaced").open(smollm2), smollm2, 400) is None


def test_how_long_some_json_would_have_to_be_is_said(smollm2):
    said = no_room(json_schema(NAMED), smollm2, 6)
    assert re.search(r"(one of \d+ tokens is .*|at least \d+ tokens.*): raise max_tokens", said)


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: choices([]), "at least one"),
        (lambda: choices(["a", "a"]), "twice"),
        (lambda: predicate(3), "function"),  # pyright: ignore
        (lambda: starts_with(3), "string or bytes"),  # pyright: ignore
        (lambda: both("a"), "none"),  # pyright: ignore
        (lambda: choices(["xyz"]).open(table()), "nothing can satisfy"),
        (lambda: both(regex("a+"), regex("b+")).open(table()), "first token"),
    ],
)
def test_what_is_wrong_is_said(make, what):
    with pytest.raises(MotesError, match=what):
        make()


def test_a_function_that_fails_or_answers_otherwise_is_named():
    def broken(text: str) -> bool:
        raise KeyError(text)

    for function, what in ((broken, "KeyError"), (lambda text: "yes", "True or False")):
        recogniser = predicate(function).open(table())
        with pytest.raises(MotesError, match=what):
            recogniser.test(torch.tensor([0]), torch.tensor([1]))
