"""Arithmetic coding with a model: exact round trips, and no more bits than the probability allows."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from language.tables import TABLE, spell, table, texts
from motes.errors import FileError, MotesError
from motes.language import TableModel
from motes.language.compression import HEAD, compress, decompress, decompress_tokens, frequencies


def test_every_text_comes_back_in_no_more_bits_than_its_probability_allows():
    seen = 0
    for text, p in texts(6):
        if text[-1] != 2:
            continue
        small = compress(table(), spell(text))
        ideal = -sum(math.log2(q) for q in p)
        assert small.ideal_bits == pytest.approx(ideal, abs=1e-9)
        assert ideal <= small.bits <= math.floor(ideal + 1e-9) + 2
        assert decompress(table(), small) == spell(text)
        seen += 1
    assert seen == 63


def test_codes_are_free_of_prefixes_so_that_kraft_holds():
    """Sum over texts of 2^-bits is at most 1; with codes one bit shorter it would pass 1."""
    codes = {}
    for text, _ in texts(7):
        if text[-1] == 2:
            small = compress(table(), spell(text))
            codes[text] = "".join(f"{b:08b}" for b in small.data[HEAD:])[: small.bits]
    words = sorted(codes.values())
    assert len(set(words)) == len(words)
    assert not any(b.startswith(a) for a, b in itertools.pairwise(words))
    assert sum(2.0 ** -len(w) for w in words) <= 1


def test_a_long_text_costs_its_probability():
    tokens = [0, 1, 1, 0, 0, 0, 1] * 300
    small = compress(table(), tokens)
    assert small.ideal_bits <= small.bits <= math.floor(small.ideal_bits) + 2
    assert decompress_tokens(table(), small) == tokens
    assert small.bits_per_character == pytest.approx(small.ideal_bits / 2100, abs=2e-3)


def test_frequencies_are_whole_positive_and_near_the_law():
    for law in (
        torch.tensor([0.7, 0.3, 0.0]).double().log(),
        torch.log_softmax(torch.linspace(-30, 20, 49152).double(), -1),
    ):
        f = frequencies(law)
        assert int(f.min()) >= 1 and int(f.sum()) <= 2**48
        assert ((f.double().log2() - 48) >= law / math.log(2) - 1.5 * 2 * len(law) / 2**48 - 1e-12).all()


def test_tokens_of_no_probability_can_still_be_coded():
    law = torch.tensor([1.0, 0.0, 0.0]).log().expand(4, 3)
    model = TableModel(["a", "b", "."], law)
    small = compress(model, "ab")
    assert small.ideal_bits == math.inf and small.bits < 2 * 48 + 4
    assert decompress(model, small) == "ab"


def test_another_model_prompt_or_a_damaged_code_is_refused():
    small = compress(table(), "abbab")
    other = TABLE.clone()
    other[0] = torch.tensor([0.4, 0.3, 0.3]).log()  # the first law is the same: only the settings tell them apart
    with pytest.raises(FileError, match="another model"):
        decompress(TableModel(["a", "b", "."], other), small)
    with pytest.raises(FileError, match="not made by"):
        decompress(table(), b"hello")
    flipped = bytearray(small.data)
    flipped[HEAD] ^= 0x40
    with pytest.raises(FileError, match=r"damaged|does not end"):
        decompress(table(), bytes(flipped))


def test_a_model_that_drifts_after_the_first_token_is_noticed():
    def make(shift: float) -> TableModel:
        def logits(text: tuple[int, ...]) -> torch.Tensor:
            return TABLE[text[-1] if text else -1] + shift * len(text) * torch.tensor([1.0, 0.0, 0.0])

        return TableModel(["a", "b", "."], logits)

    small = compress(make(0.0), "abbabbbbaabab")
    with pytest.raises(FileError, match=r"checksum|does not end"):
        decompress(make(0.5), small)


def test_what_cannot_be_spelled_is_an_error_that_says_where():
    with pytest.raises(MotesError, match="character 2"):
        compress(table(), "abc")
    with pytest.raises(MotesError, match="not end the text"):
        compress(table(), [0, 2])


def test_a_coder_that_gives_out_one_bit_less_loses_texts():
    """The broken twin: without the last bit, the interval of another text can be hit."""
    lost = 0
    for text, _ in texts(5):
        if text[-1] == 2:
            small = compress(table(), spell(text))
            cut = small.bits - 1
            code = "".join(f"{b:08b}" for b in small.data[HEAD:])[:cut].ljust(8 * (len(small.data) - HEAD), "0")
            data = small.data[:HEAD] + int(code, 2).to_bytes(len(small.data) - HEAD, "big")
            try:
                lost += decompress(table(), data) != spell(text)
            except FileError:
                lost += 1
    assert lost > 5


def test_a_real_model_beats_eight_bits_a_character(smollm2):
    text = "The sea is salty because rivers carry minerals from the rocks into it."
    small = compress(smollm2, text)
    assert small.ideal_bits <= small.bits <= math.floor(small.ideal_bits) + 2
    assert small.bits_per_character < 1.8
    assert decompress(smollm2, small) == text
    with pytest.raises(FileError, match="another model"):
        decompress(smollm2, small, prompt="The")


def test_a_special_token_in_the_text_is_an_error(smollm2):
    with pytest.raises(MotesError, match=r"does not give the text back|not end the text"):
        compress(smollm2, "a<|im_end|>b")
