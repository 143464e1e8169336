"""What a newcomer may pass by mistake, and what is said of it; and what is taken although it is short."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import motes
from language.tables import table
from motes.errors import MotesError, ShapeError
from motes.language import (
    DiscreteParticleFilter,
    Generation,
    TableModel,
    compression,
    evaluation,
    nucleus,
    rules,
    search,
)
from motes.language.generation.particle_gibbs import particle_gibbs
from motes.language.speculation import ModelDraft, speculating
from motes.language.uncertainty import (
    ByEmbedding,
    kernel_entropy,
    semantic_entropy,
    semantic_volume,
    shapley_uncertainty,
)

FOUR = TableModel(["a", "b", "c", "."], torch.zeros(5, 4), name="four")


def generation(prompt: Any = "", **settings: Any) -> Generation:
    return Generation(table(), prompt, max_tokens=3, **settings)


def rewards(texts: list[str]) -> torch.Tensor:
    return torch.tensor([1.0 * text.count("b") for text in texts])


def run():
    return motes.sample(generation(), 4, seed=0, progress=False)


def first_letters(texts: list[str]) -> torch.Tensor:
    """Texts that begin alike lie together."""
    return torch.tensor([[1.0, 0.0] if text.startswith("a") else [0.0, 1.0] for text in texts])


@pytest.mark.parametrize("text", ["prompt_guidance(1.5)", "pointwise_information(1.0)", "kl_temperature(1)"])
def test_a_context_that_is_no_prompt_is_refused_by_its_rule(text):
    with pytest.raises(MotesError, match=r"context .* a prompt is a text, or chat messages"):
        rules.parse(text)


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: rules.prompt_guidance("", other="small"), "other of prompt_guidance must be a model"),
        (lambda: rules.antidistillation(table(), 1), "minus of antidistillation must be a model"),  # pyright: ignore
        (lambda: generation(5), "a prompt is a text, or chat messages"),
        (lambda: generation([{"content": "a"}]), "a prompt is a text, or chat messages"),
        (lambda: search.StochasticBeam(table(), 5), "a prompt is a text"),  # pyright: ignore
        (lambda: compression.compress(table(), 5), "a text to compress is a string"),  # pyright: ignore
        (lambda: compression.compress(table(), 5, prompt=6), "a text to compress is a string"),  # pyright: ignore
        (lambda: generation(rules=nucleus), r"give its knobs, as in nucleus\(mass\)"),
        (lambda: generation(rules=[nucleus]), r"give its knobs, as in nucleus\(mass\)"),
        (lambda: generation(rules=5), "rules are made by"),
        (lambda: generation(rules="typical(mas=0.9)"), r"typical\(mass\) has no knob 'mas', perhaps you meant 'mass'"),
        (lambda: rules.by_name("typical", mas=0.9), "perhaps you meant 'mass'"),
        (lambda: run().draws("3"), "k, the number of draws"),  # pyright: ignore
        (lambda: run().draws(2.5), "k, the number of draws"),  # pyright: ignore
        (lambda: run().draws(-1), "k, the number of draws"),
        (lambda: speculating("smollm2"), r"model must come from motes\.language\.load"),  # pyright: ignore
        (lambda: speculating(table(), draft=ModelDraft(FOUR)), "four has 4 tokens"),
        (lambda: ModelDraft("small"), "guesses with a model"),  # pyright: ignore
        (lambda: generation(steer=2), "steer asks about unfinished texts, and there is nothing to ask"),
        (lambda: DiscreteParticleFilter(table(), "", steer=2), "nothing to ask"),
        (lambda: generation(steer=2, reward=rewards, step="b"), "steer counts tokens"),
        (lambda: particle_gibbs(generation(reward=rewards, lookahead=2), 4, sweeps=2, seed=0), "leave lookahead out"),
        (lambda: semantic_entropy(["a", "b"], ByEmbedding), "ByEmbedding is a class"),  # pyright: ignore
        (lambda: semantic_entropy(["a", "b"], "exact"), "a Meaning .* or an embedding"),  # pyright: ignore
        (lambda: semantic_entropy(["a", "b"], 3), "a Meaning .* or an embedding"),  # pyright: ignore
        (lambda: semantic_volume(["a", "b"], torch.eye(2)), "a function of texts"),  # pyright: ignore
        (lambda: kernel_entropy(run(), first_letters), r"shapley_uncertainty\(answers, alike\)"),  # pyright: ignore
        (lambda: kernel_entropy(torch.ones(3) / 3, torch.eye(2)), r"\(3, 3\) for 3"),
        (lambda: kernel_entropy(torch.ones(2), torch.eye(2)), "sum to 1"),
        (lambda: shapley_uncertainty(["a", "b"], torch.ones(2, 5)), r"V @ V\.T"),
        (lambda: evaluation.accuracy((5, 10)), r"right and wrong, right and asked"),  # pyright: ignore
        (lambda: evaluation.accuracy([5, 10]), r"for counts write Counts"),  # pyright: ignore
        (lambda: evaluation.accuracy([]), "at least one answer"),
        (lambda: evaluation.accuracy(torch.zeros(0)), "at least one answer"),
        (lambda: evaluation.accuracy("yes"), "at least one answer"),  # pyright: ignore
        (lambda: evaluation.accuracy(evaluation.Counts(0, 0)), "at least one answer"),
        (lambda: evaluation.accuracy(evaluation.Counts(-1, 5)), "must not be negative"),
    ],
)
def test_it_is_said_what_belongs_there(make, what):
    with pytest.raises(MotesError, match=what):
        make()


@pytest.mark.parametrize("n", ["4", 4.0, True, None])
def test_a_number_of_particles_is_a_whole_number(n):
    with pytest.raises(TypeError, match="n, the number of particles, must be a whole number"):
        motes.sample(generation(), n, seed=0, progress=False)
    with pytest.raises(ValueError, match="ess_threshold must lie in"):
        motes.sample(generation(), 4, seed=0, ess_threshold="1", progress=False)  # pyright: ignore


def test_rules_may_be_text():
    made = (rules.temperature(0.9), rules.top_k(2))
    for given in ("temperature(0.9), top_k(2)", ["temperature(0.9)", rules.top_k(2)]):
        assert generation(rules=given).rules == made
        assert search.StochasticBeam(table(), "", rules=given).rules == made
    found, plain = (
        search.beam_search(table(), "", width=2, rules=given, max_tokens=3) for given in ("top_k(2)", made[1])
    )
    assert found.tokens == plain.tokens


def test_an_embedding_is_a_meaning():
    texts = ["ab", "a", "b", "b"]
    bare, wrapped = (semantic_entropy(texts, judge) for judge in (first_letters, ByEmbedding(first_letters)))
    assert bare == wrapped and bare.parts["cluster"].tolist() == [0, 0, 1, 1]


def test_shapes_are_shape_errors():
    with pytest.raises(ShapeError):
        semantic_entropy(["a", "b"], [0, 1, 2])
    with pytest.raises(ShapeError):
        evaluation.accuracy(torch.zeros(2, 2))
