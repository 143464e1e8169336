"""transformers models: loading, one evaluation a prefix, the shared prompt, fixed batches, resumption."""

from __future__ import annotations

import pytest
import torch

import motes
from motes.core.smc import steps
from motes.errors import FileError, MotesError
from motes.language import Generation, TransformersModel, nucleus, regex
from motes.language.models.cache import CachedPrefixes
from motes.language.models.model import in_place

PROMPT = "the cat sat on"


def plain_logits(model: TransformersModel, prompt: torch.Tensor, text: list[int]) -> torch.Tensor:
    """The logits after a text, in one call without any cache."""
    ids = torch.cat([prompt, torch.tensor(text, dtype=torch.int64)])[None]
    with torch.inference_mode():
        return model.model(input_ids=ids, use_cache=False).logits[0, -1]


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("micro_batch", [None, 4])
def test_growing_and_branching_rows_have_the_logits_of_their_texts(tiny, shares, micro_batch):
    prompt = tiny.encode(PROMPT)
    prefixes = CachedPrefixes(tiny.model, prompt, shares=shares, micro_batch=micro_batch)
    texts, rng = [[]], motes.Rng(8)
    torch.testing.assert_close(prefixes.logits[0], plain_logits(tiny, prompt, []))
    for t in range(20):
        r = rng.at("branch", step=t)
        slots = r.integers((7,), len(texts))
        parent, token, row = in_place(slots, r.at("token").integers((7,), tiny.vocabulary), tiny.vocabulary)
        texts = [[*texts[p], v] for p, v in zip(parent.tolist(), token.tolist(), strict=True)]
        prefixes.extend(parent, token)
        assert len(prefixes.logits) == len(texts) == int(row.max()) + 1
        for i, text in enumerate(texts):
            torch.testing.assert_close(prefixes.logits[i], plain_logits(tiny, prompt, text), rtol=1e-4, atol=1e-4)


def test_a_row_that_goes_on_stays_where_it_is():
    parent, token, row = in_place(torch.tensor([2, 0, 2, 2, 5]), torch.tensor([1, 1, 3, 1, 0]), 10)
    assert [(p, v) for p, v in zip(parent.tolist(), token.tolist(), strict=True)] == [(0, 1), (2, 3), (2, 1), (5, 0)]
    assert row.tolist() == [2, 0, 1, 2, 3]


def test_one_particle_is_what_the_model_alone_samples(tiny):
    run = motes.sample(Generation(tiny, PROMPT, max_tokens=12), 1, seed=2, progress=False)
    prompt, text = tiny.encode(PROMPT), []
    while len(text) < 12 and (not text or text[-1] != 1):
        row = torch.log_softmax(plain_logits(tiny, prompt, text).double(), -1)[None]
        text.append(int(motes.Rng(2).at("step", step=len(text) + 1).at("token").categorical(row)[0]))
    x = run.particles.x
    assert x["tokens"][0, : int(x["length"][0])].tolist() == text
    assert run.log_evidence == 0.0


class Counted:
    """Counts the rows that a model evaluates."""

    def __init__(self, model):
        self.rows: list[int] = []
        self.hook = model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module, args, kwargs):
        self.rows.append(kwargs["input_ids"].shape[0])


def test_the_prompt_is_evaluated_once_and_copies_share(tiny):
    counted = Counted(tiny.model)
    model = Generation(tiny, PROMPT, constraint=regex(" on a( mat)?"), max_tokens=6)
    run = motes.sample(model, 40, seed=0, progress=False)
    counted.hook.remove()
    assert {text for text, w in zip(run.texts, run.weight.tolist(), strict=True) if w > 0} <= {" on a", " on a mat"}
    assert counted.rows[0] == 1
    assert sum(counted.rows) == int(run.trace["evaluated"].sum()) < 40


def run_in_parts(model, seed: int, n: int):
    return motes.sample(Generation(model, PROMPT, rules=[nucleus(0.95)], max_tokens=16), n, seed=seed, progress=False)


def test_a_fixed_micro_batch_gives_each_text_the_same_bits(folder):
    """Cut into parts of 8 rows, a prefix has the same logits whether 8, 20 or 40 particles are there."""
    model = motes.language.load(folder, micro_batch=8)
    few, many = run_in_parts(model, 3, 20), run_in_parts(model, 3, 40)
    assert torch.equal(few.particles.x["tokens"], many.particles.x["tokens"][:20]) or few.trace["resampled"].any()
    prompt = model.encode(PROMPT)
    rows = torch.randint(0, model.vocabulary, (40, 12), generator=torch.Generator().manual_seed(1))
    whole, part = model.prefixes(prompt, 16), model.prefixes(prompt, 16)
    whole.extend(torch.zeros(40, dtype=torch.int64), rows[:, 0])
    part.extend(torch.zeros(13, dtype=torch.int64), rows[27:, 0])
    for t in range(1, 12):
        assert torch.equal(whole.logits[27:], part.logits)
        whole.extend(torch.arange(40), rows[:, t])
        part.extend(torch.arange(13), rows[27:, t])


@pytest.mark.parametrize("stop", [1, 4, 9])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_a_run_resumes_bit_for_bit(folder, tmp_path, stop, micro_batch):
    def model():
        loaded = motes.language.load(folder, micro_batch=micro_batch)
        return Generation(loaded, PROMPT, rules=[nucleus(0.9)], constraint=regex("[a-z .]*"), max_tokens=14)

    settings = {"seed": 6, "ess_threshold": 0.9, "progress": False}
    whole = motes.sample(model(), 12, **settings)
    assert whole.particles.t > 10
    assert whole.trace["resampled"].any()
    path = tmp_path / "run.safetensors"
    motes.sample(model(), 12, **settings, callback=lambda state: state.particles.t == stop, checkpoint=path)
    resumed = motes.resume(path, model(), progress=False)
    assert resumed.texts == whole.texts
    assert torch.equal(resumed.particles.log_weight, whole.particles.log_weight)
    assert torch.equal(resumed.particles.x["tokens"], whole.particles.x["tokens"])
    assert torch.equal(resumed.particles.root, whole.particles.root)


def test_a_state_keeps_its_own_next_step(tiny):
    model = Generation(tiny, PROMPT, constraint=regex("[a-z .]*"), max_tokens=10)
    states = steps(model, 6, seed=4, ess_threshold=0.0)
    old = [next(states).particles for _ in range(4)][-1]
    first = next(states)
    next(states)
    again = model.step(motes.Rng(4).at("step", step=first.particles.t), old)
    assert torch.equal(again.log_weight, first.particles.log_weight)
    assert torch.equal(again.x["tokens"], first.particles.x["tokens"])


def test_a_prompt_that_is_too_long_says_by_how_much(tiny):
    with pytest.raises(MotesError, match="at most 96 together"):
        motes.sample(Generation(tiny, PROMPT, max_tokens=95), 2, seed=0, progress=False)


def test_chat_needs_a_template(tiny):
    with pytest.raises(MotesError, match="no chat template"):
        tiny.encode([{"role": "user", "content": "hi"}])
    with pytest.raises(MotesError, match="no chat template"):
        Generation(tiny, "hi", chat=True)


def test_pickled_weights_are_not_read(tiny, tmp_path):
    tiny.model.config.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    torch.save(tiny.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(FileError, match="pickle"):
        motes.language.load(tmp_path)


def test_a_wrong_micro_batch(folder):
    with pytest.raises(MotesError, match="micro_batch"):
        motes.language.load(folder, micro_batch=0)
