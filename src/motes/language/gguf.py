"""Llama-family GGUF files as transformers models: header, tensors and tokenizer read directly.

transformers reads GGUF too, but parses the vocabulary three times over (half a minute for SmolLM2-135M here, against
two seconds) and needs accelerate. Files of other architectures or tokenizers go that way, see `motes.language.load`.
Nothing in a GGUF file is code, and none is run.

References:
    The GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motes.core.errors import FileError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 30: (1, 2)}  # (values, bytes) of a block
CONTROL, USER_DEFINED = 3, 4  # token types


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in the file; `shape` is slowest axis first."""

    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says before its tensors."""

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, Entry]
    start: int

    def __getitem__(self, key: str) -> Any:
        if key not in self.fields:
            raise FileError(f"{self.path} has no field {key!r}: it is damaged, or no language model")
        return self.fields[key]


class _Reader:
    """A cursor over the bytes of a file."""

    def __init__(self, data: bytes | mmap.mmap):
        self.data, self.at = data, 0

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize(code)
        return value

    def text(self) -> str:
        size = self.number("Q")
        if self.at + size > len(self.data):
            raise struct.error("a text runs past the end of the file")
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.number(SCALARS[kind])
        item, count = self.number("I"), self.number("Q")
        if item in SCALARS:
            out = struct.unpack_from(f"<{count}{SCALARS[item]}", self.data, self.at)
            self.at += struct.calcsize(f"<{count}{SCALARS[item]}")
            return list(out)
        return [self.value(item) for _ in range(count)]


def read_header(path: Path) -> Header:
    """The fields and the table of tensors of a GGUF file.

    Raises:
        FileError: the file is no GGUF file of version 2 or 3, or it is truncated.
    """
    with open(path, "rb") as f:
        if f.read(4) != b"GGUF":
            raise FileError(f"{path} is no GGUF file")
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    r = _Reader(data)
    try:
        r.at = 4
        version, n_tensors, n_fields = r.number("I"), r.number("Q"), r.number("Q")
        if version not in (2, 3):
            raise FileError(f"{path} is GGUF version {version}; versions 2 and 3 are read")
        fields = {r.text(): r.value(r.number("I")) for _ in range(n_fields)}
        tensors = {}
        for _ in range(n_tensors):
            name, ndim = r.text(), r.number("I")
            shape = tuple(r.number("Q") for _ in range(ndim))[::-1]
            tensors[name] = Entry(shape, r.number("I"), r.number("Q"))
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise FileError(f"{path} is truncated or damaged in its header: {error!r}") from error
    step = fields.get("general.alignment", 32)
    return Header(path, fields, tensors, -(-r.at // step) * step)


def dequantize(raw: Tensor, kind: int) -> Tensor:
    """The values (float32) of a flat uint8 tensor that holds blocks of type `kind`, one of `BLOCKS`."""
    if kind in (0, 1, 30):
        return raw.view({0: torch.float32, 1: torch.float16, 30: torch.bfloat16}[kind]).float()
    blocks = raw.view(-1, BLOCKS[kind][1])

    def half(at: int) -> Tensor:
        return blocks[:, at : at + 2].contiguous().view(torch.float16).float()

    if kind == 8:  # Q8_0: scale, 32 signed bytes
        return (half(0) * blocks[:, 2:].contiguous().view(torch.int8)).reshape(-1)
    nibbles = blocks[:, BLOCKS[kind][1] - 16 :]
    values = torch.cat([nibbles & 15, nibbles >> 4], 1)
    if kind == 2:  # Q4_0: scale, nibbles around 8
        return (half(0) * (values.to(torch.int8) - 8)).reshape(-1)
    return (half(0) * values + half(2)).reshape(-1)  # Q4_1: scale, minimum, nibbles


def read_tensors(header: Header) -> dict[str, Tensor]:
    """Every tensor of the file in float32.

    Raises:
        FileError: the file ends before its tensors do.
    """
    data = np.memmap(header.path, dtype=np.uint8, mode="r")
    out = {}
    for name, e in header.tensors.items():
        values, size = BLOCKS[e.kind]
        start, length = header.start + e.offset, int(np.prod(e.shape)) // values * size
        if start + length > len(data):
            raise FileError(f"{header.path} is truncated: it ends inside tensor {name!r}")
        raw = torch.from_numpy(np.array(data[start : start + length]))
        out[name] = dequantize(raw, e.kind).reshape(e.shape)
    return out


def supported(header: Header) -> bool:
    """Whether this module can build the model and its tokenizer."""
    f = header.fields
    llama = f.get("general.architecture") == "llama" and "rope_freqs.weight" not in header.tensors
    scaled = any(k.startswith(("llama.rope.scaling", "llama.expert")) for k in f)
    tokens = f.get("tokenizer.ggml.model") == "gpt2" and f.get("tokenizer.ggml.pre") in ("smollm", "gpt-2")
    return llama and tokens and not scaled and all(e.kind in BLOCKS for e in header.tensors.values())


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Query or key rows from GGUF's interleaved rotary order to transformers' halves."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, half, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def build_model(header: Header, dtype: torch.dtype):
    """A transformers LlamaForCausalLM with the weights of the file, in evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads, kv_heads = header["llama.attention.head_count"], header["llama.attention.head_count_kv"]
    tied = "output.weight" not in header.tensors
    config = LlamaConfig(
        vocab_size=header.tensors["token_embd.weight"].shape[0],
        hidden_size=header["llama.embedding_length"],
        intermediate_size=header["llama.feed_forward_length"],
        num_hidden_layers=header["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=header["llama.context_length"],
        rms_norm_eps=header["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": header.fields.get("llama.rope.freq_base", 10000.0)},
        tie_word_embeddings=tied,
        bos_token_id=header.fields.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=header.fields.get("tokenizer.ggml.eos_token_id"),
        dtype=dtype,
    )
    state = {}
    for name, value in read_tensors(header).items():
        *block, key, suffix = name.split(".")
        if key in ("attn_q", "attn_k"):
            value = unpermute(value, heads if key == "attn_q" else kv_heads)
        place = f"model.layers.{block[1]}.{NAMES[key]}" if block else TOP[key]
        state[f"{place}.{suffix}"] = value.to(dtype)
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its frequencies are no weights: computed anew
    return model.eval()


def build_tokenizer(header: Header):
    """The byte-level BPE tokenizer of the file, with its chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, types = header["tokenizer.ggml.tokens"], header["tokenizer.ggml.token_type"]
    merges = [tuple(m.split(" ", 1)) for m in header["tokenizer.ggml.merges"]]
    raw = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if header["tokenizer.ggml.pre"] == "smollm":
        byte_level = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    raw.pre_tokenizer = byte_level
    raw.decoder = decoders.ByteLevel()
    marked = [(AddedToken(t, special=k == CONTROL, normalized=False), k) for t, k in zip(tokens, types, strict=True)]
    raw.add_special_tokens([t for t, k in marked if k == CONTROL])
    raw.add_tokens([t for t, k in marked if k == USER_DEFINED])
    named = {
        f"{ours}_token": tokens[header.fields[f"tokenizer.ggml.{theirs}_token_id"]]
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"tokenizer.ggml.{theirs}_token_id" in header.fields
    }
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False, **named)
    tokenizer.chat_template = header.fields.get("tokenizer.chat_template")
    return tokenizer
