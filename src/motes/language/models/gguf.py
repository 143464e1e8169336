"""Llama-family GGUF files as transformers models: header, tensors and tokenizer read directly.

transformers reads GGUF too, but parses the vocabulary three times over (half a minute for SmolLM2-135M here, against
two seconds) and needs accelerate. Files of other architectures or tokenizers go that way, see `motes.language.load`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from motes.errors import FileError
from motes.language.models.gguf_file import BLOCKS, Header, read_tensors
from motes.language.models.gguf_file import read_header as read_header

CONTROL, USER_DEFINED = 3, 4  # token types
MOST_CONTROL = 2**14
"""Tokens that are marked as control or user defined; Llama 3 has 256."""


def supported(header: Header) -> bool:
    """Whether this module can build the model and its tokenizer."""
    f = header.fields
    llama = f.get("general.architecture") == "llama" and "rope_freqs.weight" not in header.tensors
    scaled = any(k.startswith(("llama.rope.scaling", "llama.expert", "llama.attention.sliding_window")) for k in f)
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


def shapes(header: Header) -> dict[str, tuple[int, ...]]:
    """The tensors that the fields of a Llama file ask for, by name.

    Raises:
        FileError: a field is missing, or says what cannot be.
    """
    width = header.whole("llama.embedding_length", 1, 2**20)
    inner = header.whole("llama.feed_forward_length", 1, 2**24)
    blocks = header.whole("llama.block_count", 1, len(header.tensors))
    heads = header.whole("llama.attention.head_count", 1, width)
    kv_heads = header.whole("llama.attention.head_count_kv", 1, heads)
    if width % heads or heads % kv_heads or width // heads % 2:
        raise FileError(
            f"{header.path} is damaged: {width} numbers a token, {heads} heads and {kv_heads} of keys do not match"
        )
    head = width // heads
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        header.whole(f"llama.{key}", head, head, head)  # others are not built here
    vocabulary, keys = len(header.array("tokenizer.ggml.tokens", str)), head * kv_heads
    out: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    if "output.weight" in header.tensors:
        out["output.weight"] = (vocabulary, width)
    for i in range(blocks):
        sizes = {"attn_norm": (width,), "ffn_norm": (width,), "attn_q": (width, width), "attn_output": (width, width)}
        sizes |= {"attn_k": (keys, width), "attn_v": (keys, width)}
        sizes |= {"ffn_gate": (inner, width), "ffn_up": (inner, width), "ffn_down": (width, inner)}
        out |= {f"blk.{i}.{key}.weight": shape for key, shape in sizes.items()}
    return out


def check_tensors(header: Header) -> None:
    """Raise FileError unless the file has the tensors that its fields ask for, and no others."""
    wanted, found = shapes(header), {name: e.shape for name, e in header.tensors.items()}
    if wanted != found:
        wrong = [n for n in {**wanted, **found} if wanted.get(n) != found.get(n)]
        name = wrong[0]
        raise FileError(
            f"{header.path} does not hold the model that it says: the tensor {name[:80]!r} has the shape "
            f"{found.get(name)}, and should have {wanted.get(name)} (None: it is not there; {len(wrong)} such tensors)"
        )


def token_id(header: Header, name: str) -> int | None:
    """The id of the token of this name ("bos", "eos", "unknown", "padding"), if the file has one."""
    key = f"tokenizer.ggml.{name}_token_id"
    return header.whole(key, 0, len(header["tokenizer.ggml.tokens"]) - 1) if key in header.fields else None


def build_model(header: Header, dtype: torch.dtype) -> Any:
    """A transformers LlamaForCausalLM with the weights of the file, in evaluation mode.

    Raises:
        FileError: a field is missing or wrong, or the tensors are not those that the fields ask for.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    check_tensors(header)
    heads, kv_heads = header["llama.attention.head_count"], header["llama.attention.head_count_kv"]
    tied = "output.weight" not in header.tensors
    config = LlamaConfig(
        vocab_size=header.tensors["token_embd.weight"].shape[0],
        hidden_size=header["llama.embedding_length"],
        intermediate_size=header["llama.feed_forward_length"],
        num_hidden_layers=header["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=header.whole("llama.context_length", 1, 2**31),
        rms_norm_eps=header.positive("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": header.positive("llama.rope.freq_base", 10000.0)},
        tie_word_embeddings=tied,
        bos_token_id=token_id(header, "bos"),
        eos_token_id=token_id(header, "eos"),
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


def build_tokenizer(header: Header) -> Any:
    """The byte-level BPE tokenizer of the file, with its chat template.

    Raises:
        FileError: the vocabulary, its types or its merges do not go together.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = header.array("tokenizer.ggml.tokens", str)
    types = header.array("tokenizer.ggml.token_type", int, len(tokens))
    merges, ids = [tuple(m.split(" ", 1)) for m in header.array("tokenizer.ggml.merges", str)], {}
    for i, token in enumerate(tokens):
        if token in ids:
            raise FileError(f"{header.path} is damaged: its tokens {ids[token]} and {i} are both {token[:80]!r}")
        ids[token] = i
    for merge in merges:
        if len(merge) != 2 or any(part not in ids for part in (*merge, "".join(merge))):
            raise FileError(f"{header.path} is damaged: it merges {' '.join(merge)[:80]!r}, which are no tokens of it")
    raw = Tokenizer(models.BPE(ids, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if header["tokenizer.ggml.pre"] == "smollm":
        byte_level = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    raw.pre_tokenizer = byte_level
    raw.decoder = decoders.ByteLevel()
    marked = [(t, k) for t, k in zip(tokens, types, strict=True) if k in (CONTROL, USER_DEFINED)]
    if len(marked) > MOST_CONTROL or any(not t for t, _ in marked):
        raise FileError(f"{header.path} is damaged: {len(marked)} of its tokens are marked as no text, or one is empty")
    for kind, add in ((CONTROL, raw.add_special_tokens), (USER_DEFINED, raw.add_tokens)):
        add([AddedToken(t, special=k == CONTROL, normalized=False) for t, k in marked if k == kind])
    named = {
        f"{ours}_token": tokens[at]
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if (at := token_id(header, theirs)) is not None
    }
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False, **named)
    template = header.fields.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise FileError(f"{header.path} is damaged: its chat template is a {type(template).__name__}")
    tokenizer.chat_template = template
    return tokenizer
