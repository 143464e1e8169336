"""Texts, rewards, constraints and search read one function of the tokens, whatever the tokenizer decodes."""

from __future__ import annotations

import re

import pytest
import torch

import motes
from motes.errors import MotesError
from motes.language import Generation, TransformersModel, predicate, regex
from motes.language.compression import compress, decompress
from motes.language.constraints.pieces import pieces
from motes.language.search import beam_search
from motes.language.uncertainty import score

WORDS = ["a", "b", "c", "i", "s", "▁a", "▁b", "▁c", "▁is", "is", "▁▁", ".", "▁.", "n't", "▁n't", "'", "é", "▁é"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]
STYLES = ["prepend", "first", "always", "never", "unigram"]


def sentencepiece(style: str):
    """A tokenizer as SentencePiece models are converted: "▁" for a space, bytes for what is not in the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", "<s>", "</s>", *BYTES, "▁", *WORDS]
    if style == "unigram":
        raw = Tokenizer(models.Unigram([(t, -float(i)) for i, t in enumerate(tokens)], unk_id=0, byte_fallback=True))
    else:
        ids = {t: i for i, t in enumerate(tokens)}
        merges = [("▁", t) for t in "abcé."] + [("i", "s"), ("▁", "is"), ("▁", "▁")]
        raw = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if style == "prepend":
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    else:
        scheme = "always" if style == "unigram" else style
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        parts = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme, split=False), decoders.Fuse()]
    raw.decoder = decoders.Sequence(parts)
    raw.add_special_tokens([AddedToken(t, special=True) for t in tokens[:3]])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=style == "first",
    )


def wordpiece():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["[UNK]", "[SEP]", "a", "b", "##b", "##c", ".", "is"]
    raw = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", eos_token="[SEP]")


def wrapped(tokenizer, spare: int = 3) -> TransformersModel:
    """A random model with a few rows that belong to no token."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer) + spare,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return TransformersModel(LlamaForCausalLM(config), tokenizer, name="small")


@pytest.fixture(scope="module", params=STYLES)
def model(request) -> TransformersModel:
    return wrapped(sentencepiece(request.param))


def test_a_text_is_the_bytes_of_its_tokens(model):
    known = pieces(model).bytes
    ids = model.tokenizer.get_vocab()
    writes = {"▁is": " is", "is": "is", "▁": " ", "▁▁": "  ", "<0x0A>": "\n", "é": "é"}
    assert {token: known[ids[token]].decode() for token in writes} == writes
    assert model.decode([ids["▁is"], ids["▁."], ids["n't"]]) == " is .n't"
    assert model.decode([ids["<s>"], ids["<0xC3>"], ids["<0xA9>"], ids["</s>"]]) == "é"
    assert model.decode([model.vocabulary - 1, ids["a"]]) == "a"
    rng = motes.Rng(1)
    for t in range(50):
        tokens = rng.at("tokens", step=t).integers((8,), len(model.tokenizer)).tolist()
        joined = b"".join(known[v] for v in tokens)
        assert model.decode(tokens) == joined.decode("utf-8", errors="replace")


def test_texts_match_their_own_constraint_and_rewards_read_the_same(model):
    """The broken twin: the tokenizer's own decoding of the same tokens."""
    seen: list[str] = []

    def reward(texts):
        seen.extend(texts)
        return torch.tensor([float(text.count(" a")) for text in texts])

    pattern = r"( (a|b|is|é)){2,3}"
    settings = {"constraint": regex(pattern), "reward": reward, "max_tokens": 8}
    run = motes.sample(Generation(model, "a b", **settings), 32, seed=1, progress=False)
    alive = [i for i in range(32) if float(run.log_weight[i]) > -torch.inf]
    assert len(alive) > 16
    own = [run.particles.x["tokens"][i, : int(run.particles.x["length"][i])].tolist() for i in alive]
    for i, tokens in zip(alive, own, strict=True):
        assert re.fullmatch(pattern, run.texts[i])
        assert run.texts[i] in seen
        assert model.decode(model.spell(run.texts[i])) == run.texts[i]
        assert pieces(model).write(tokens).decode() == run.texts[i]
    plain = [model.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in own]
    keeps = '"prepend_scheme":"never"' in model.tokenizer.backend_tokenizer.to_str()
    assert all(re.fullmatch(pattern, text) for text in plain) == keeps


def test_a_predicate_and_search_read_the_same_texts(model):
    asked: list[str] = []

    def fits(text):
        asked.append(text)
        return len(text) <= 12 and text[:2] in ("", " ", " a")

    found = beam_search(model, "b", width=8, constraint=regex("( a| is){1,2}"), max_tokens=8)
    assert all(re.fullmatch("( a| is){1,2}", text) for text in found.texts)
    begun = predicate(fits, complete=lambda text: text[:2] == " a") & regex("[ab ]*")
    run = motes.sample(Generation(model, "b", constraint=begun, max_tokens=6), 64, seed=4, progress=False)
    alive = [text for text, w in zip(run.texts, run.weight.tolist(), strict=True) if w > 0]
    assert alive
    assert all(text.startswith(" a") for text in alive)
    assert set(alive) & set(asked)


@pytest.mark.parametrize("text", ["a b", " a b", "is\nis", "é n't.", "  a"])
def test_a_text_is_spelt_as_what_goes_on(model, text):
    tokens = model.spell(text)
    assert model.decode(tokens) == text
    assert decompress(model, compress(model, text)) == text
    assert score(model, "a", [text]).total.isfinite().all()


def test_words_in_parts_are_texts_behind_others_and_no_constraint(tiny):
    model = wrapped(wordpiece(), 0)
    ids = model.tokenizer.get_vocab()
    one, two = [ids["is"], ids["##b"]], [ids["##c"], ids["a"], ids["."]]
    assert model.decode(one) == " isb"
    assert model.decode(one + two) == model.decode(one) + model.decode(two)
    run = motes.sample(Generation(model, "a b", max_tokens=4), 4, seed=0, progress=False)
    assert len(run.texts) == 4
    with pytest.raises(MotesError, match="byte-level or byte-fallback"):
        Generation(model, "a b", constraint=regex("a"), max_tokens=4)


def test_bytes_that_the_tokenizer_does_not_write_are_noticed(monkeypatch):
    """The broken twin: what llguidance makes of a decoder of which it does not know the sign for a space."""
    from motes.language.models import token_bytes

    monkeypatch.setattr(token_bytes, "plain_decoder", lambda decoder: decoder)
    model = wrapped(sentencepiece("always"))
    with pytest.raises(MotesError, match=r"writes ' .*' behind another where its bytes are b'\\xe2\\x96\\x81"):
        model.recogniser_tokenizer()


def test_byte_level_texts_are_what_the_tokenizer_decodes(tiny):
    rng = motes.Rng(3)
    for t in range(50):
        tokens = rng.at("tokens", step=t).integers((12,), tiny.vocabulary).tolist()
        assert tiny.decode(tokens) == tiny.tokenizer.decode(tokens, skip_special_tokens=True)
