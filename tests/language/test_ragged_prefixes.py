"""Rows of different lengths: carried over, looked ahead, kept; every row has the logits of its text alone."""

from __future__ import annotations

import pytest
import torch

import motes
from language.tables import table
from motes.errors import MotesError, ShapeError
from motes.language.models.cache import CachedPrefixes
from motes.language.models.model import in_place

KINDS = ["shared", "joined", "positions", "window"]
LENGTH = 60


@pytest.fixture(scope="module")
def others():
    """Models without the shared prompt: GPT-2 with learned positions, and a Mistral that sees the last 7 tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(3)
        gpt2 = GPT2Config(vocab_size=30, n_positions=LENGTH, n_embd=24, n_layer=2, n_head=3, initializer_range=0.3)
        mistral = MistralConfig(
            vocab_size=30,
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=7,
            initializer_range=0.3,
        )
        return {"positions": GPT2LMHeadModel(gpt2).eval(), "window": MistralForCausalLM(mistral).eval()}


def alone(model, prompt: torch.Tensor, text: list[int]) -> torch.Tensor:
    """The logits after every token of a text, the prompt's last one first, without a cache."""
    ids = torch.cat([prompt, torch.tensor(text, dtype=torch.int64)])[None]
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]


def random_walk(prefixes, vocabulary: int, seed: int, steps: int, most: int, expected):
    """Random `extend`, `look` and `keep`; `expected(text)` are the logits after each token of a text."""
    texts: list[list[int]] = [[]]
    uneven = 0

    def same(found, wanted):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)

    for t in range(steps):
        r = motes.Rng(seed).at("walk", step=t)
        if t % 2 == 0:
            slot = r.at("slot").integers((6,), len(texts))
            token = r.at("token").integers((6,), vocabulary)
            token[r.at("still").bernoulli(torch.full((6,), 0.3))] = -1
            token[torch.tensor([len(texts[s]) >= most for s in slot.tolist()])] = -1
            parent, token, row = in_place(slot, token, vocabulary)
            assert int(row.max()) + 1 == len(parent)
            prefixes.extend(parent, token)
            texts = [texts[p] + [v] * (v >= 0) for p, v in zip(parent.tolist(), token.tolist(), strict=True)]
        else:
            ahead = 1 + t % 4
            tokens = r.at("token").integers((len(texts), ahead), vocabulary)
            count = r.at("count").integers((len(texts),), ahead + 1)
            count = torch.minimum(count, torch.tensor([most - len(text) for text in texts]))
            looked = prefixes.look(tokens.masked_fill(torch.arange(ahead) >= count[:, None], -1), count)
            for i, text in enumerate(texts):
                c = int(count[i])
                same(looked[i, :c], expected([*text, *tokens[i, :c].tolist()])[len(text) + 1 :])
            if r.at("forget").uniform(()) < 0.3:
                continue
            kept = torch.minimum(r.at("keep").integers((len(texts),), ahead + 1), count)
            prefixes.keep(kept)
            texts = [text + tokens[i, : int(kept[i])].tolist() for i, text in enumerate(texts)]
        assert prefixes.length.tolist() == [len(text) for text in texts]
        uneven += len({len(text) for text in texts}) > 1
        for i, text in enumerate(texts):
            same(prefixes.logits[i], expected(text)[-1])
    assert uneven > steps // 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro_batch", [None, 4])
def test_each_row_has_the_logits_of_its_text_alone(tiny, others, kind, micro_batch):
    model = others.get(kind, tiny.model)
    vocabulary = model.config.vocab_size
    prompt = torch.arange(5, 14)
    prefixes = CachedPrefixes(model, prompt, shares=kind == "shared", micro_batch=micro_batch)
    most = LENGTH - len(prompt) if kind == "positions" else 30
    if kind == "window":
        prompt = prompt[:3]
        prefixes = CachedPrefixes(model, prompt, shares=False, micro_batch=micro_batch)
    random_walk(prefixes, vocabulary, 1, 24, most, lambda text: alone(model, prompt, text))


def test_the_table_keeps_the_same_contract():
    model = table()
    prefixes = model.prefixes(model.encode(""), 9)

    def expected(text):
        return torch.stack([model.row(tuple(text[:k])) for k in range(len(text) + 1)])

    random_walk(prefixes, 3, 2, 24, 9, expected)


def test_positions_run_up_to_the_last_that_the_model_knows(others):
    """Tokens that do not count may lie behind the end of the position table."""
    model, prompt = others["positions"], torch.arange(LENGTH - 2) % 30
    prefixes = CachedPrefixes(model, prompt, shares=False, micro_batch=None)
    looked = prefixes.look(torch.tensor([[3, 4, -1, -1, -1]]), torch.tensor([2]))
    torch.testing.assert_close(looked[0, :2], alone(model, prompt, [3, 4])[1:], rtol=1e-4, atol=1e-4)


def test_equal_rows_build_no_masks(tiny, monkeypatch):
    from motes.language.models import cache

    seen = []
    original = cache.CachedPrefixes._call

    def spy(self, tokens, length, rows, last):
        out = original(self, tokens, length, rows, last)
        block = self.layers[0].block
        seen.append((block.place is None and block.padded is None, isinstance(block.rows, slice)))
        return out

    monkeypatch.setattr(cache.CachedPrefixes, "_call", spy)
    prefixes = tiny.prefixes(tiny.encode("the cat"), 8)
    prefixes.extend(torch.tensor([0, 0, 0]), torch.tensor([3, 4, 5]))
    prefixes.extend(torch.tensor([1, 1, 2]), torch.tensor([3, 4, 5]))
    prefixes.extend(torch.tensor([0, 1, 2]), torch.tensor([3, -1, 5]))
    assert seen == [(True, True), (True, True), (True, False)]
    prefixes.extend(torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]))
    assert seen[-1] == (False, True)


def test_a_padding_mask_reaches_a_model_that_shares(tiny):
    """After loading, the model itself still hides the padding that its caller marks."""
    ids = torch.tensor([[3, 4, 5, 6], [0, 0, 5, 6]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    position = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 1]])
    with torch.inference_mode():
        both = tiny.model(input_ids=ids, attention_mask=mask, position_ids=position).logits[1, -1]
        one = tiny.model(input_ids=ids[1:, 2:]).logits[0, -1]
    torch.testing.assert_close(both, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["table", "tiny"])
def test_wrong_looks_are_named(tiny, kind):
    model = tiny if kind == "tiny" else table()
    prefixes = model.prefixes(model.encode("a" if kind == "tiny" else ""), 9)
    before = prefixes.logits.clone()
    prefixes.look(torch.zeros(1, 0, dtype=torch.int64), torch.tensor([0]))
    prefixes.keep(torch.tensor([0]))
    assert torch.equal(prefixes.logits, before)
    with pytest.raises(MotesError, match="call look before keep"):
        prefixes.keep(torch.tensor([1]))
    with pytest.raises(ShapeError, match="tokens"):
        prefixes.look(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([1, 1]))
    with pytest.raises(MotesError, match=r"0\.\.3"):
        prefixes.look(torch.zeros(1, 3, dtype=torch.int64), torch.tensor([4]))
    prefixes.look(torch.zeros(1, 3, dtype=torch.int64), torch.tensor([2]))
    with pytest.raises(MotesError, match="at most the counts"):
        prefixes.keep(torch.tensor([3]))
