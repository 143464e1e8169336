"""What guides a population on the way does not change what it ends with: twists, steps of text, annealed resampling."""

from __future__ import annotations

import math

import pytest
import torch

import motes
from language.tables import exact, table
from language.test_exact import TOLERANCE, assert_same_law, mean_law
from motes.errors import MotesError, NanLogPotential, UnknownName
from motes.language import Generation, Potential, on_tokens, regex, reward_model
from motes.language.generation.reward_account import RewardAccount


def worth(text: str) -> float:
    return 0.8 * text.count("b") - 0.3 * len(text)


def rewards(texts: list[str]) -> torch.Tensor:
    return torch.tensor([worth(text) for text in texts], dtype=torch.float64)


def critic(texts: list[str]) -> torch.Tensor:
    """A bad guess: what it prefers, the reward does not."""
    return torch.tensor([1.5 * text.count("a") for text in texts], dtype=torch.float64)


class Judge(Potential):
    def complete(self, texts):
        return rewards(texts)

    def prefix(self, texts):
        return critic(texts)


@pytest.mark.parametrize("settings", [{"reward": rewards, "twist": critic}, {"reward": Judge()}])
def test_a_twist_is_taken_back(settings):
    found, z = mean_law(Generation(table(), "", max_tokens=2, **settings), 2, ess_threshold=0.95)
    expected = exact(2, reward=worth)
    assert z == pytest.approx(sum(expected.values()), abs=TOLERANCE)
    assert_same_law(found, expected)


def test_a_twist_without_a_reward_leaves_the_law_alone():
    found, _ = mean_law(Generation(table(), "", twist=critic, max_tokens=2), 2, ess_threshold=0.95)
    assert_same_law(found, exact(2))


class Generous(RewardAccount):
    def pay(self, texts, before, now, lent, alive, t):
        return super().pay(texts, before, now, lent, torch.zeros_like(alive), t)


class Kept(Generation):
    """The broken twin: what the twist lent is never taken back."""

    @property
    def account(self):
        return Generous(**vars(super().account))


def test_a_twist_that_stays_is_noticed():
    found, _ = mean_law(Kept(table(), "", twist=critic, max_tokens=2), 2, ess_threshold=0.95)
    assert max(abs(found[text] - value) for text, value in exact(2).items()) > 0.02


def two(text: str) -> bool:
    return len(text) >= 2


@pytest.mark.parametrize(
    "step, ess_threshold, most",
    [
        ("b", 0.0, 3),
        ("b", 1.0, 2),
        (two, 0.0, 3),
        *(pytest.param(s, 1.0, 3, marks=pytest.mark.slow) for s in ("b", two)),
    ],
)
def test_steps_of_text_give_the_same_law(step, ess_threshold, most):
    """Resampling only after a "b", or after two letters: texts of different lengths stand side by side."""
    settings = {"constraint": regex("[ab]*b"), "reward": rewards, "twist": critic}
    model = Generation(table(), "", step=step, max_tokens=most, **settings)
    found, z = mean_law(model, 2, ess_threshold=ess_threshold)
    expected = exact(most, "[ab]*b", reward=worth)
    assert z == pytest.approx(sum(expected.values()), abs=TOLERANCE)
    assert_same_law(found, expected)


def test_steps_of_text_end_where_they_should():
    model = Generation(table(), "", step="b", max_tokens=8)
    texts = []

    def look(state):
        x = state.particles.x
        for i in range(state.particles.n):
            if not x["finished"][i] and state.particles.t > 0:
                texts.append(model.view(state.particles)[i])

    motes.sample(model, 50, seed=3, progress=False, callback=look)
    assert texts and all(text.endswith("b") for text in texts)
    assert any(text.count("b") != len(text) for text in texts)


@pytest.mark.parametrize(
    "scheme, anneal",
    [
        ("systematic", "ess"),
        ("systematic", lambda ess, progress: 5.0),
        pytest.param("systematic", "progress", marks=pytest.mark.slow),
        *(
            pytest.param("multinomial", a, marks=pytest.mark.slow)
            for a in ("ess", "progress", lambda ess, progress: 5.0)
        ),
    ],
)
def test_annealed_resampling_is_properly_weighted(scheme, anneal):
    model = Generation(table(), "", reward=rewards, twist=critic, anneal=anneal, max_tokens=2)
    found, z = mean_law(model, 2, scheme, ess_threshold=1.0)
    expected = exact(2, reward=worth)
    assert z == pytest.approx(sum(expected.values()), abs=TOLERANCE)
    assert_same_law(found, expected)


class Dropped(Generation):
    """The broken twin: resampled by the tempered weights, and the rest of the weights forgotten."""

    def resampled(self, rng, scheme, particles):
        return particles.resampled(scheme(rng, particles.log_weight / 5))


def test_annealing_that_drops_weights_is_noticed():
    model = Dropped(table(), "", reward=rewards, steer=1, max_tokens=2)
    found, _ = mean_law(model, 2, ess_threshold=1.0)
    assert max(abs(found[text] - value) for text, value in exact(2, reward=worth).items()) > 0.005


def test_the_model_s_own_probabilities_are_kept():
    run = motes.sample(Generation(table(), "", constraint=regex("(ab)+"), max_tokens=6), 40, seed=0, progress=False)
    x = run.particles.x
    exact_law = exact(6, "(ab)+")
    for i in range(run.particles.n):
        length = int(x["length"][i])
        text = tuple(x["tokens"][i, :length].tolist())
        if run.particles.log_weight[i] > -math.inf:
            assert float(x["log_prob"][i, :length].sum().exp()) == pytest.approx(exact_law[text])


def test_a_reward_of_tokens_is_the_same_as_one_of_texts():
    by_text = Generation(
        table(), "", reward=lambda texts: torch.tensor([0.5 * t.count("b") for t in texts]), max_tokens=5
    )
    by_token = Generation(
        table(), "", reward=on_tokens(lambda rows: torch.stack([0.5 * (row == 1).sum() for row in rows])), max_tokens=5
    )
    runs = [motes.sample(model, 64, seed=5, progress=False) for model in (by_text, by_token)]
    assert runs[0].texts == runs[1].texts
    torch.testing.assert_close(runs[0].particles.log_weight, runs[1].particles.log_weight)


def test_a_reward_model_of_transformers_scores_texts(folder):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = "</s>"
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_labels=1, pad_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LlamaForSequenceClassification(config).eval()
    reward = reward_model(model, tokenizer=tokenizer, scale=2.0, before="the cat ")
    texts = ["sat on a mat.", "ran", "sat on the mat. a dog ran"]
    alone = torch.stack(
        [model(**tokenizer("the cat " + text, return_tensors="pt")).logits[0, 0].detach().double() for text in texts]
    )
    torch.testing.assert_close(reward(texts), 2 * alone, rtol=1e-4, atol=1e-5)
    run = motes.sample(
        Generation(motes.language.load(folder), "the cat", reward=reward, max_tokens=4), 4, seed=0, progress=False
    )
    assert math.isfinite(run.log_evidence)
    with pytest.raises(MotesError, match="label"):
        reward_model(model, tokenizer=tokenizer, label=1)
    tokenizer.model_max_length = 12
    with pytest.raises(MotesError, match="at most 12 tokens"):
        reward_model(model, tokenizer=tokenizer)(["cat", "the cat sat on the mat. the dog ran on the mat."])
    model.config.pad_token_id = 0
    with pytest.raises(MotesError, match="padding token 0 and its tokenizer writes 1"):
        reward_model(model, tokenizer=tokenizer)


def boom(texts):
    raise RuntimeError("no such judge")


@pytest.mark.parametrize(
    "settings, error, what",
    [
        ({"reward": boom}, MotesError, "no such judge.*-inf"),
        ({"reward": lambda texts: torch.full((len(texts),), torch.nan)}, NanLogPotential, "the text"),
        ({"reward": rewards, "twist": boom}, MotesError, "the twist raised"),
    ],
)
def test_a_reward_that_fails_is_named(settings, error, what):
    with pytest.raises(error, match=what):
        motes.sample(Generation(table(), "", max_tokens=3, **settings), 10, seed=0, progress=False)


def test_a_reward_that_raises_loses_nothing(tmp_path):
    path = tmp_path / "run.motes"
    calls = []

    def fragile(texts):
        calls.append(len(texts))
        if len(calls) == 1:  # all texts are asked about at once, in the end
            raise RuntimeError("out of memory")
        return rewards(texts)

    fragile.__name__ = "rewards"
    model = Generation(table(), "", reward=fragile, max_tokens=6)
    with pytest.raises(MotesError, match="out of memory"):
        motes.sample(model, 50, seed=1, progress=False, checkpoint=path)
    rest = motes.resume(path, Generation(table(), "", reward=rewards, max_tokens=6), progress=False)
    whole = motes.sample(Generation(table(), "", reward=rewards, max_tokens=6), 50, seed=1, progress=False)
    assert rest.texts == whole.texts
    torch.testing.assert_close(rest.particles.log_weight, whole.particles.log_weight, rtol=0, atol=0)


def test_a_run_by_steps_of_text_resumes(tmp_path):
    def model():
        return Generation(table(), "", reward=rewards, twist=critic, step="b", max_tokens=8)

    whole = motes.sample(model(), 30, seed=2, progress=False)
    path = tmp_path / "run.motes"
    motes.sample(model(), 30, seed=2, progress=False, max_steps=2, checkpoint=path)
    rest = motes.resume(path, model(), progress=False)
    assert rest.texts == whole.texts
    assert torch.equal(rest.particles.log_weight, whole.particles.log_weight)


@pytest.mark.parametrize(
    "settings, error", [({"anneal": "slowly"}, UnknownName), ({"step": ""}, MotesError), ({"twist": 3}, MotesError)]
)
def test_wrong_settings_are_refused(settings, error):
    with pytest.raises(error):
        Generation(table(), "", max_tokens=3, **settings)


def test_an_annealing_below_one_is_refused():
    model = Generation(table(), "", reward=rewards, steer=1, anneal=lambda ess, progress: 0.5, max_tokens=3)
    with pytest.raises(MotesError, match="at least 1"):
        motes.sample(model, 10, seed=0, ess_threshold=1.0, progress=False)
