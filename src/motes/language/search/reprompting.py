"""A Markov chain over chains of thought for a few solved problems: each is drawn anew with the others before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError, check_share, check_whole
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules
from motes.language.models.model import LanguageModel, Message
from motes.language.search.beam import drawn_on
from motes.language.search.search_result import start
from motes.rng import Rng

Prompt = str | Sequence[Message]
Write = Callable[[Sequence[tuple[str, str]], str], Prompt]
"""Maps solved problems (question, recipe) and a new question to a prompt."""


@dataclass(frozen=True)
class Problem:
    """A question with its right answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Reprompted:
    """The chain: state 0 is where it began, state s what it was after s sweeps.

    Attributes:
        problems: the training problems.
        recipes: the recipes of all problems, a tuple a state.
        right: (S + 1, P) bool, whether each recipe leads to its answer.
        moved: (S, P) bool, whether the sweep found a new recipe for the problem.
        write: what makes a prompt of them.
    """

    problems: tuple[Problem, ...]
    recipes: list[tuple[str, ...]]
    right: Tensor
    moved: Tensor
    write: Write

    @property
    def best(self) -> int:
        """The last of the states with the most right recipes."""
        score = self.right.sum(1)
        return int(torch.nonzero(score == score.max())[-1])

    def prompt(self, question: str, state: int | None = None) -> Prompt:
        """A new question behind the recipes of a state, `best` if none is named."""
        recipes = self.recipes[self.best if state is None else state]
        return self.write([(p.question, r) for p, r in zip(self.problems, recipes, strict=True)], question)


def written(solved: Sequence[tuple[str, str]], question: str) -> str:
    """`Q: question`, `A: recipe`, a blank line, for each that is solved, and the new question with an open answer."""
    return "".join(f"Q: {q}\nA: {r}\n\n" for q, r in solved) + f"Q: {question}\nA:"


def last_word(recipe: str) -> str | None:
    """The last word of a recipe, without full stop: where the answer stands."""
    words = recipe.replace(".", " ").split()
    return words[-1] if words else None


def reprompting(
    model: LanguageModel,
    problems: Sequence[Problem],
    *,
    seed: int | Rng,
    sweeps: int = 10,
    shots: int | None = None,
    tries: int = 4,
    keep_wrong: float = 0.01,
    begin: Sequence[str] | None = None,
    read: Callable[[str], str | None] = last_word,
    write: Write = written,
    stop: str | None = "\n\n",
    rules: Rules = (),
    constraint: Constraint | None = None,
    max_tokens: int = 64,
    chat: bool | str = False,
) -> Reprompted:
    """Finds chains of thought (recipes) that work as examples for each other, without one written by hand.

    A sweep visits the problems j in turn. With the recipes of other problems before it as solved examples (all of them
    in their order, or `shots` at random in random order), the model answers question j `tries` times, independently. A
    try z is accepted with the probability

        a(z) = 1 if `read(z)` is the right answer, else `keep_wrong`,

    and the first that is accepted becomes recipe j; if none is, recipe j stays. `tries=1` is the published rule, with
    1 - `keep_wrong` its rejection probability.

    Let p(z | others) be the law of the model's answer. The update draws from pi_j(z) proportional to p(z | others) a(z)
    with the probability 1 - (1 - E_p a)^tries and changes nothing otherwise, so it leaves pi_j as it is at any number
    of tries: it is a Gibbs step for pi_j. The conditional laws pi_1, ..., pi_P of a language model need not belong to
    one joint law; where they do, and all others stand before each question, it is stationary. Where they do not, the
    chain still has a stationary law, for finitely many texts fit into `max_tokens`, but it depends on the order of the
    visits and has no formula, and is the only one if every recipe can be reached. Under rules and constraint p is the
    law renormalised token by token; a try that runs into a dead end is not accepted.

    Args:
        model: from `motes.language.load`.
        problems: at least two, solved.
        seed: of all draws; or an `Rng`.
        sweeps: how often each problem is visited.
        shots: how many examples stand before a question; None: all others.
        tries: answers drawn a visit, in one batch.
        keep_wrong: the probability that a wrong answer is accepted; small, so that useful parts of it can be found.
        begin: the recipes at the beginning; None: the model's answers without examples, the first that is accepted or
            else the first.
        read: finds the answer in a recipe; None if there is none.
        write: makes a prompt of (question, recipe) pairs and a question: a text, or chat messages.
        stop: a recipe ends before this; None: only with the model's end token or `max_tokens`.
        rules, constraint, max_tokens, chat: as for `motes.Generation`.

    Raises:
        EmptyConstraint: nothing can follow a prompt.
        MotesError: an argument is of the wrong kind.

    References:
        Xu, Banburski-Fahey & Jojic (2024), Reprompting: automated chain-of-thought prompt inference through Gibbs
        sampling, ICML (arXiv 2305.09993, 2023), section 2.
    """
    problems = tuple(problems)
    if len(problems) < 2 or not all(isinstance(p, Problem) for p in problems):
        raise MotesError("problems must be at least two of motes.language.search.Problem(question, answer)")
    check_whole(1, sweeps=sweeps, tries=tries, **({} if shots is None else {"shots": shots}))
    if shots is not None and shots >= len(problems):
        raise MotesError(f"shots must be below the number of problems, {len(problems)}, not {shots}")
    check_share("[0, 1]", keep_wrong=keep_wrong)
    if stop is not None and not (isinstance(stop, str) and stop):
        raise MotesError(f"stop must be None or a string that is not empty, not {stop!r}")
    if begin is not None and len(begin) != len(problems):
        raise MotesError(f"begin must hold a recipe for each of {len(problems)} problems, not {len(begin)}")
    root = (Rng(seed) if isinstance(seed, int) else seed).at("reprompting")

    def right(j: int, recipe: str) -> bool:
        return read(recipe) == problems[j].answer

    def answers(rng: Rng, j: int, solved: list[tuple[str, str]]) -> tuple[list[str], int | None]:
        """The tries, and which is accepted first."""
        beam = start(model, write(solved, problems[j].question), rules, constraint, max_tokens, chat)
        beam = beam.keep(torch.zeros(tries, dtype=torch.int64))
        beam = drawn_on(beam, rng, beam.going, max_tokens, stop=stop)
        texts = [beam.text(i).strip() if stop is None else beam.text(i).split(stop)[0].strip() for i in range(tries)]
        lucky = rng.at("accept").bernoulli(torch.full((tries,), keep_wrong, dtype=torch.float64)).tolist()
        dead = torch.isneginf(beam.log_mass).tolist()
        taken = [i for i in range(tries) if not dead[i] and (lucky[i] or right(j, texts[i]))]
        return texts, taken[0] if taken else None

    if begin is None:
        begin = []
        for j in range(len(problems)):
            texts, taken = answers(root.at(f"begin-{j}"), j, [])
            begin.append(texts[taken or 0])
    recipes = list(begin)
    states, moved = [tuple(recipes)], torch.zeros(sweeps, len(problems), dtype=torch.bool)
    for s in range(sweeps):
        for j in range(len(problems)):
            here = root.at(f"sweep-{s}").at(f"problem-{j}")
            others = [i for i in range(len(problems)) if i != j]
            if shots is not None:
                others = [others[k] for k in here.at("shots").permutation(len(others)).tolist()[:shots]]
            texts, taken = answers(here, j, [(problems[i].question, recipes[i]) for i in others])
            if taken is not None:
                recipes[j], moved[s, j] = texts[taken], True
        states.append(tuple(recipes))
    good = torch.tensor([[right(j, r) for j, r in enumerate(state)] for state in states])
    return Reprompted(problems, states, good, moved, write)
