"""GGUF files: a model written as one and read back is the same model."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

import motes
from fuzz.harness import limits
from fuzz.readers.gguf_files import Array, File, good, nested, written
from motes.errors import FileError, MotesError
from motes.language.models import gguf


def permute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Query or key rows into GGUF's interleaved order, as llama.cpp stores them."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write(tiny, path, kind=None, pre="gpt-2", template=None) -> None:
    from gguf import GGUFWriter, quantize

    config, tokenizer = tiny.model.config, json.loads(tiny.tokenizer.backend_tokenizer.to_str())
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if t in ("<s>", "</s>") else 1 for t in vocabulary])
    writer.add_token_merges([" ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    if template is not None:
        writer.add_chat_template(template)
    theirs = {v: k for k, v in gguf.NAMES.items()} | {v: k for k, v in gguf.TOP.items()}
    for name, value in tiny.model.state_dict().items():
        place, suffix = name.rsplit(".", 1)
        if place.startswith("model.layers."):
            _, _, block, rest = place.split(".", 3)
            key, place = theirs[rest], f"blk.{block}.{theirs[rest]}"
            if key in ("attn_q", "attn_k"):
                value = permute(value, config.num_attention_heads if key == "attn_q" else config.num_key_value_heads)
        else:
            place = theirs[place]
        data = value.numpy().astype(np.float32)
        if kind is not None and data.ndim == 2:
            writer.add_tensor(f"{place}.{suffix}", quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{place}.{suffix}", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(model, prompt: str) -> torch.Tensor:
    with torch.inference_mode():
        return model.model(input_ids=model.encode(prompt)[None], use_cache=False).logits


def test_a_model_written_as_gguf_is_read_back_bit_for_bit(tiny, tmp_path):
    write(tiny, tmp_path / "model.gguf")
    again = motes.language.load(tmp_path / "model.gguf")
    text = "the cat sat on a mat"
    assert again.encode(text).tolist() == tiny.encode(text).tolist()
    assert (again.end, again.vocabulary, again.longest) == (tiny.end, tiny.vocabulary, tiny.longest)
    assert torch.equal(logits(again, text), logits(tiny, text))
    assert again.decode(again.encode(text).tolist()) == text


def test_an_unpermuted_file_is_noticed(tiny, tmp_path, monkeypatch):
    """The broken twin: query and key rows are left in the file's order."""
    write(tiny, tmp_path / "model.gguf")
    monkeypatch.setattr(gguf, "unpermute", lambda weight, heads: weight)
    wrong = motes.language.load(tmp_path / "model.gguf")
    assert float((logits(wrong, "the cat sat") - logits(tiny, "the cat sat")).abs().max()) > 0.01


def test_half_precision_files_are_near(tiny, tmp_path):
    from gguf import GGMLQuantizationType

    write(tiny, tmp_path / "model.gguf", GGMLQuantizationType.F16)
    again = motes.language.load(tmp_path / "model.gguf")
    torch.testing.assert_close(logits(again, "the dog ran"), logits(tiny, "the dog ran"), rtol=0.02, atol=0.05)


def test_a_tokenizer_that_is_not_known_goes_to_transformers(tiny, tmp_path):
    """Its way needs accelerate; without it the error says how to get it."""
    write(tiny, tmp_path / "model.gguf", pre="llama-bpe")
    assert not gguf.supported(gguf.read_header(tmp_path / "model.gguf"))
    try:
        model = motes.language.load(tmp_path / "model.gguf")
    except MotesError as error:
        assert "accelerate" in str(error)
    else:
        torch.testing.assert_close(logits(model, "the cat"), logits(tiny, "the cat"), rtol=1e-3, atol=1e-3)


LARGE = {
    "a block count of a million": ("must be a whole number", lambda f: changed(f, "llama.block_count", 4, 10**6)),
    "no heads": ("must be a whole number", lambda f: changed(f, "llama.attention.head_count", 4, 0)),
    "no alignment": ("alignment is 0", lambda f: changed(f, "general.alignment", 4, 0)),
    "a text as alignment": ("alignment is 'x'", lambda f: changed(f, "general.alignment", 8, "x")),
    "other names": (
        "should have",
        lambda f: replace(f, tensors=[("a.b.c.d.e", *f.tensors[0][1:]), *f.tensors[1:]]),
    ),
    "a token twice": ("are both 'a'", lambda f: changed(f, "tokenizer.ggml.tokens", 9, Array(8, ["a"] * 8))),
    "a merge of nothing": ("no tokens of it", lambda f: changed(f, "tokenizer.ggml.merges", 9, Array(8, ["a z"]))),
    "an end outside": ("must be a whole number", lambda f: changed(f, "tokenizer.ggml.eos_token_id", 4, 8)),
    "one place for two": ("lies over another", lambda f: replace(f, tensors=[(*t[:3], 0) for t in f.tensors])),
    "arrays in each other": ("arrays of arrays", lambda f: changed(f, "x", 9, nested(100_000))),
    "three million empty texts": ("no vocabulary is that long", lambda f: changed(f, "x", 9, Empty(8, 3 * 10**6))),
    "200 MB of bytes": ("no vocabulary is that long", lambda f: changed(f, "x", 9, Empty(0, 2 * 10**8))),
    "more items than bytes": ("bytes are left", lambda f: changed(f, "x", 9, Array(8, [], 2**60))),
    "more fields than bytes": ("bytes are left", lambda f: replace(f, n_fields=2**63)),
    "a tensor larger than the file": (
        "more than the file holds",
        lambda f: replace(f, tensors=[("token_embd.weight", (2**40, 2**40), 0, 0), *f.tensors[1:]]),
    ),
}


def changed(file: File, key: str, kind: int, value: object) -> File:
    return replace(file, fields=[*(f for f in file.fields if f[0] != key), (key, kind, value)])


class Empty(Array):
    """An array of items that are all zero bytes."""

    def __init__(self, kind: int, count: int):
        super().__init__(kind, [], count)


@pytest.mark.parametrize("case", LARGE)
def test_what_a_file_cannot_hold_is_refused_before_it_is_read(tmp_path, case):
    """Each below 2 s and 500 MB; `good()` itself loads."""
    says, spoil = LARGE[case]
    motes_file, file = tmp_path / "model.gguf", spoil(good())
    last = file.fields[-1][2]
    motes_file.write_bytes(written(good()))
    motes.language.load(motes_file)
    motes_file.write_bytes(written(file))
    if isinstance(last, Empty):
        os.truncate(motes_file, motes_file.stat().st_size + (last.count or 0) * (8 if last.kind == 8 else 1))
    with pytest.raises(FileError, match=says), limits():
        motes.language.load(motes_file)


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 something", b"GGUF\x09\x00\x00\x00" + bytes(16)])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(FileError):
        motes.language.load(tmp_path / "model.gguf")


def test_a_file_cut_anywhere_is_refused(tiny, tmp_path):
    write(tiny, tmp_path / "model.gguf")
    whole = (tmp_path / "model.gguf").read_bytes()
    for cut in range(5, len(whole), len(whole) // 40):
        (tmp_path / "cut.gguf").write_bytes(whole[:cut])
        with pytest.raises(FileError):
            motes.language.load(tmp_path / "cut.gguf")
