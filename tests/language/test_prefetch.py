"""Reading guesses along changes the number of calls and nothing else."""

from __future__ import annotations

import pytest
import torch

import motes
from language.tables import TABLE, table
from motes.errors import MotesError
from motes.language import Generation, TableModel, mirostat_2, nucleus, regex, repetition
from motes.language.speculation import ModelDraft, PromptLookup, single, speculating
from motes.language.speculation.adaptive_draft_length import AdaptiveDrafter
from motes.language.speculation.drafts import Drafter


def small() -> TableModel:
    return TableModel(["a", "b", "."], TABLE.exp().pow(0.5).log(), name="small")


DRAFTS = [PromptLookup(1), ModelDraft(small())]
JOBS = {
    "plain": {},
    "rules": {"rules": (repetition(1.3), mirostat_2(2.0, rate=0.3), nucleus(0.9))},
    "constraint": {"constraint": regex("(ab|ba|bb)+")},
    "reward": {"reward": lambda texts: torch.tensor([0.4 * t.count("b") for t in texts]), "steer": 2},
    "steps": {"step": "b", "twist": lambda texts: torch.tensor([0.2 * t.count("a") for t in texts])},
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("draft", DRAFTS, ids=["look-up", "model"])
@pytest.mark.parametrize("n", [1, 20])
def test_texts_and_weights_are_the_same_bits(job, draft, n):
    plain = motes.sample(
        Generation(table(), "", max_tokens=12, **JOBS[job]), n, seed=4, progress=False, ess_threshold=0.9
    )
    model = speculating(table(), draft=draft, tokens=3)
    ahead = motes.sample(
        Generation(model, "", max_tokens=12, **JOBS[job]), n, seed=4, progress=False, ess_threshold=0.9
    )
    assert ahead.texts == plain.texts
    assert torch.equal(ahead.particles.log_weight, plain.particles.log_weight)
    assert torch.equal(ahead.particles.x["log_prob"], plain.particles.x["log_prob"])


def test_a_run_that_reads_ahead_resumes(tmp_path):
    def job():
        return Generation(speculating(table(), tokens=3), "", constraint=regex("[ab]+"), max_tokens=12)

    whole = motes.sample(job(), 20, seed=2, progress=False)
    motes.sample(job(), 20, seed=2, progress=False, max_steps=4, checkpoint=tmp_path / "run.motes")
    rest = motes.resume(tmp_path / "run.motes", job(), progress=False)
    assert rest.texts == whole.texts and torch.equal(rest.particles.log_weight, whole.particles.log_weight)


def test_a_perfect_guess_saves_nearly_every_call():
    """A model that counts a, b, a, b, ... almost surely: two tokens with the first call, then three and four."""
    sure = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]]).double() * 60
    model = speculating(
        TableModel(["a", "b", "."], sure), draft=ModelDraft(TableModel(["a", "b", "."], sure)), tokens=3
    )
    run = motes.sample(Generation(model, "", max_tokens=40), 1, seed=0, progress=False)
    assert run.texts == ["ab" * 20]
    assert (model.counts["calls"], model.counts["right"]) == (11, 28)


def test_a_guess_is_right_as_often_as_the_best_scheme_accepts_it():
    """One particle a seed on a chain that never ends: |z| < 4.9, an error of 5 % would be seen."""
    law = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).double()
    p = torch.cat([law, law[:1]])
    model = TableModel(["a", "b", "."], torch.cat([p, torch.zeros(3, 1).double()], 1).log().repeat(2, 1)[:4])
    quick = speculating(model, draft=ModelDraft(model), tokens=1)
    motes.sample(Generation(quick, "", max_tokens=4000), 1, seed=5, progress=False)
    guessed, right = quick.counts["guessed"], quick.counts["right"]
    q = torch.tensor([[1.0, 0.0]]).double()
    best = float(single.rate(law[:1], q)[0])
    assert best == pytest.approx(0.6)
    assert abs(right / guessed - best) < 4.9 * (best * (1 - best) / guessed) ** 0.5


def test_a_wrong_law_from_a_guess_would_be_noticed(monkeypatch):
    """The broken twin: a token that was not the guess takes the guess's law."""
    from motes.language.speculation import prefetch

    real = prefetch.PrefetchedPrefixes.extend

    def careless(self, parent, token):
        for p, v in zip(parent.tolist(), token.tolist(), strict=True):
            if self.guesses[p]:
                self.guesses[p][0] = v
        real(self, parent, token)

    monkeypatch.setattr(prefetch.PrefetchedPrefixes, "extend", careless)
    plain = motes.sample(Generation(table(), "", max_tokens=12), 20, seed=4, progress=False)
    quick = speculating(table(), draft=ModelDraft(small()))
    wrong = motes.sample(Generation(quick, "", max_tokens=12), 20, seed=4, progress=False)
    assert wrong.texts != plain.texts


@pytest.mark.parametrize("shares", [True, False])
def test_a_transformers_model_reads_ahead(tiny, shares, monkeypatch):
    monkeypatch.setattr(tiny, "cache", "shared" if shares else "rows")
    if not shares:
        monkeypatch.setattr(tiny.model.config, "_attn_implementation", "sdpa")
    plain = motes.sample(Generation(tiny, "the cat", max_tokens=16), 6, seed=1, progress=False)
    quick = speculating(tiny, draft=PromptLookup(2), tokens=3)
    run = motes.sample(Generation(quick, "the cat", max_tokens=16), 6, seed=1, progress=False)
    assert run.texts == plain.texts
    torch.testing.assert_close(run.particles.x["log_prob"], plain.particles.x["log_prob"], atol=1e-4, rtol=1e-4)
    assert quick.counts["guessed"] > 0


def test_smollm2_copies_with_fewer_calls(smollm2):
    """A text that repeats its prompt: at least a third of the calls are saved, and the text is the same."""
    prompt = (
        "one two three four five six seven eight nine ten. one two three four five six seven eight nine ten. one two"
    )
    job = {"rules": motes.language.temperature(0.3), "chat": False, "max_tokens": 16}
    plain = motes.sample(Generation(smollm2, prompt, **job), 1, seed=0, progress=False)
    quick = speculating(smollm2)
    run = motes.sample(Generation(quick, prompt, **job), 1, seed=0, progress=False)
    assert run.texts == plain.texts
    assert quick.counts["calls"] <= 10


@pytest.mark.parametrize(
    "settings, what",
    [({"tokens": 0}, "at least 1"), ({"draft": "lookup"}, "PromptLookup"), ({"tokens": True}, "tokens")],
)
def test_wrong_settings_are_refused(settings, what):
    with pytest.raises(MotesError, match=what):
        speculating(table(), **settings)


def test_a_draft_with_another_vocabulary_is_refused():
    other = TableModel(["a", "b", "c", "."], torch.zeros(5, 4), name="other")
    with pytest.raises(MotesError, match="same vocabulary"):
        motes.sample(
            Generation(speculating(table(), draft=ModelDraft(other)), "", max_tokens=3), 2, seed=0, progress=False
        )


def test_guesses_that_fail_become_rare_and_those_that_are_right_longer():
    class Wrong(Drafter):
        asked: list[int] = []

        def extend(self, parent, token):
            return

        def guess(self, rows, most):
            self.asked.append(most[0])
            return [[1] * k for k in most]

    wrong = Wrong()
    patient = AdaptiveDrafter(wrong, 4)
    for at in range(1, 48):
        patient.extend(torch.tensor([0]), torch.tensor([int(at in (17, 18, 33, 37, 38, 39))]))
        patient.guess([0], [4])
    tried = {at: k for at, k in enumerate(wrong.asked, 1) if k}
    # m: 2 after 1, 4 after 4; the trial at 16 is right: 3; those at 24 and 32 wrong and right: 5, 4; at 48 the next
    assert tried == {1: 1, 4: 1, 16: 1, 24: 1, 32: 1}
    quick = AdaptiveDrafter(wrong, 4)
    wrong.asked.clear()
    for _ in range(9):
        quick.extend(torch.tensor([0]), torch.tensor([1]))
        quick.guess([0], [4]) if not quick.rows[0].left else None
    assert wrong.asked == [1, 2, 4, 4]


def test_patience_is_a_function_of_the_row():
    """A row beside others, and branching from them, is guessed at as it is alone."""
    model = TableModel(["a", "b", "."], TABLE)
    texts = [[0, 1, 0, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 0, 0, 0]]
    seen: list[list] = [[], []]
    alone: list[list] = [[], []]
    both = AdaptiveDrafter(PromptLookup(2).open(model, torch.tensor([2]), 20), 4)
    both.extend(torch.tensor([0, 0]), torch.tensor([-1, -1]))
    for tokens in zip(*texts, strict=True):
        both.extend(torch.tensor([0, 1]), torch.tensor(tokens))
        for i, guess in enumerate(both.guess([0, 1], [4, 4])):
            seen[i].append(guess)
    for i, text in enumerate(texts):
        one = AdaptiveDrafter(PromptLookup(2).open(model, torch.tensor([2]), 20), 4)
        for token in text:
            one.extend(torch.tensor([0]), torch.tensor([token]))
            alone[i] += one.guess([0], [4])
    assert seen == alone and any(seen[0])
