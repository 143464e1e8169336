"""Reprompting: its sweep is enumerated and leaves the joint law of recipes alone where there is one."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
import torch

from motes.errors import MotesError
from motes.language import TableModel, regex
from motes.language.search import Problem, reprompting
from motes.language.search.reprompting import last_word
from motes.testing import enumerate_runs

PROBLEMS = [Problem("1", "a"), Problem("2", "b")]
JOINT = torch.tensor([[0.4, 0.1], [0.2, 0.3]], dtype=torch.float64)
"""The law of both recipes before any is judged: rows are recipe 1, columns recipe 2, "a" and "b"."""
WRONG = 0.3


class Prompted(TableModel):
    """A table whose laws depend on the prompt: the law of one recipe given the other, which stands in the prompt."""

    def __init__(self, law):
        super().__init__(["a", "b", "1", "2", "."], torch.zeros(6, 5))
        self.law = law

    def encode(self, prompt, chat="auto"):
        return torch.tensor([self.tokens.index(c) for c in prompt])

    def prefixes(self, prompt, max_tokens):
        shown = "".join(self.tokens[v] for v in prompt.tolist())
        model = TableModel(self.tokens, lambda text: self.law(shown, text))
        return model.prefixes(torch.tensor([self.end[0]]), max_tokens)


def conditional(prompt: str, text: tuple[int, ...]) -> torch.Tensor:
    question = prompt[-1]
    if len(prompt) == 1:
        row = torch.tensor([0.5, 0.5], dtype=torch.float64)
    else:
        other = "ab".index(prompt[1])
        row = JOINT[:, other] if question == "1" else JOINT[other]
    return torch.cat([(row / row.sum()).log(), torch.full((3,), -torch.inf, dtype=torch.float64)])


def write(solved, question: str) -> str:
    return "".join(q + r for q, r in solved) + question


MODEL = Prompted(conditional)
KNOBS = {"write": write, "read": str, "max_tokens": 1, "stop": None}
STATES = [tuple(s) for s in itertools.product("ab", repeat=2)]


def sweep(tries: int, keep_wrong: float = WRONG) -> torch.Tensor:
    """(4, 4) the transition matrix of one sweep, every outcome enumerated."""
    out = torch.zeros(4, 4, dtype=torch.float64)
    for i, begin in enumerate(STATES):
        law = defaultdict(float)

        def run(rng, begin=begin):
            return reprompting(
                MODEL, PROBLEMS, seed=rng, sweeps=1, tries=tries, keep_wrong=keep_wrong, begin=begin, **KNOBS
            ).recipes[-1]

        for p, state in enumerate_runs(run):
            law[state] += p
        out[i] = torch.tensor([law[s] for s in STATES], dtype=torch.float64)
    return out


def target(keep_wrong: float = WRONG) -> torch.Tensor:
    accept = torch.tensor([1.0, keep_wrong], dtype=torch.float64)
    pi = JOINT * accept[:, None] * accept.flip(0)[None]
    return (pi / pi.sum()).flatten()


@pytest.mark.parametrize("tries", [1, 2])
def test_a_sweep_leaves_the_joint_law_as_it_is(tries):
    found, pi = sweep(tries), target()
    torch.testing.assert_close(found.sum(1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(pi @ found, pi, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.linalg.matrix_power(found, 200)[0], pi, rtol=0, atol=1e-9)


@pytest.mark.parametrize("tries", [1, 2])
def test_a_sweep_is_the_product_of_its_updates(tries):
    """K_j = q^T I + (1 - q^T) pi_j with q = 1 - E a, by hand from the conditional laws."""
    out = torch.eye(4, dtype=torch.float64)
    for j in range(2):
        k = torch.zeros(4, 4, dtype=torch.float64)
        for i, state in enumerate(STATES):
            other = "ab".index(state[1 - j])
            p = JOINT[:, other] if j == 0 else JOINT[other]
            a = torch.tensor([1.0, WRONG] if j == 0 else [WRONG, 1.0], dtype=torch.float64)
            pi = p / p.sum() * a
            q = (1 - float(pi.sum())) ** tries
            for v in range(2):
                new = list(state)
                new[j] = "ab"[v]
                k[i, STATES.index(tuple(new))] += (1 - q) * float(pi[v] / pi.sum())
            k[i, i] += q
        out = out @ k
    torch.testing.assert_close(sweep(tries), out, rtol=0, atol=1e-12)


def test_accepting_whatever_comes_is_noticed():
    """The broken twin has the law before judgement as its stationary law."""
    twin = sweep(1, keep_wrong=1.0)
    torch.testing.assert_close(JOINT.flatten() @ twin, JOINT.flatten(), rtol=0, atol=1e-12)
    assert float((target() @ twin - target()).abs().max()) > 0.1


def test_without_wrong_answers_a_right_recipe_is_never_left():
    found = reprompting(MODEL, PROBLEMS, seed=3, sweeps=6, tries=3, keep_wrong=0.0, **KNOBS)
    for state, good in zip(found.recipes, found.right.tolist(), strict=True):
        assert good == [state[0] == "a", state[1] == "b"]
    assert bool((found.right[1:] >= found.right[:-1]).all()) and bool(found.right[-1].all())
    assert found.recipes[found.best] == ("a", "b") and found.prompt("2") == "1a2b2"
    assert found.prompt("1", 0) == "1{}2{}1".format(*found.recipes[0])


def test_examples_are_chosen_among_the_others_and_the_recipes_come_in_turn():
    asked = []

    def note(solved, question: str) -> str:
        asked.append((solved, question))
        return "1"

    three = [Problem("x", "a"), Problem("y", "a"), Problem("z", "a")]
    knobs = {**KNOBS, "write": note}
    reprompting(MODEL, three, seed=0, sweeps=40, shots=1, keep_wrong=1.0, begin=["a", "a", "b"], **knobs)
    assert [q for _, q in asked] == ["x", "y", "z"] * 40
    seen = {(question, solved[0][0]) for solved, question in asked}
    assert seen == {(q, o) for q in "xyz" for o in "xyz" if o != q} and all(len(s) == 1 for s, _ in asked)
    asked.clear()
    found = reprompting(MODEL, three, seed=0, sweeps=2, tries=1, keep_wrong=1.0, begin=["a", "a", "b"], **knobs)
    assert asked[0][0] == [("y", "a"), ("z", "b")]
    assert asked[1][0] == [("x", found.recipes[1][0]), ("z", "b")] and bool(found.moved.all())


def test_it_runs_on_a_model_of_transformers(tiny):
    problems = [Problem("the cat sat", "mat"), Problem("a dog ran", "the mat"), Problem("a cat", "dog")]
    found = reprompting(tiny, problems, seed=1, sweeps=2, keep_wrong=0.5, stop="a", max_tokens=8)
    assert len(found.recipes) == 3 and found.right.shape == (3, 3) and found.moved.any()
    assert all("a" not in recipe for state in found.recipes for recipe in state)
    again = reprompting(tiny, problems, seed=1, sweeps=2, keep_wrong=0.5, stop="a", max_tokens=8)
    assert again.recipes == found.recipes
    shown = found.prompt("the dog", 0)
    assert isinstance(shown, str) and shown.startswith("Q: the cat sat\nA:") and shown.endswith("Q: the dog\nA:")


def test_a_recipe_satisfies_the_constraint_or_is_not_accepted():
    def any_letter(prompt: str, text: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor([0.5, 0.3, 0.0, 0.0, 0.2], dtype=torch.float64).log()

    knobs = {**KNOBS, "max_tokens": 3, "constraint": regex("ab*")}
    found = reprompting(Prompted(any_letter), PROBLEMS, seed=0, sweeps=5, tries=8, keep_wrong=1.0, **knobs)
    assert all(r.startswith("a") and "a" not in r[1:] for state in found.recipes for r in state)


def test_the_answer_is_the_last_word():
    assert last_word("3 + 4 is 7.") == "7" and last_word(" ") is None


@pytest.mark.parametrize(
    "knobs",
    [{"sweeps": 0}, {"tries": 0}, {"shots": 2}, {"shots": 0}, {"keep_wrong": 1.5}, {"stop": ""}, {"begin": ["a"]}],
)
def test_wrong_knobs_are_refused(knobs):
    with pytest.raises(MotesError, match="must"):
        reprompting(MODEL, PROBLEMS, seed=0, **{**KNOBS, **knobs})
    with pytest.raises(MotesError, match="must"):
        reprompting(MODEL, PROBLEMS[:1], seed=0, **KNOBS)
