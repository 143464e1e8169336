"""GGUF files: spoilt bytes, and well-formed files that say what cannot be."""

from __future__ import annotations

import random
import struct
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import gguf as _installed  # noqa: F401 - the reader needs the extra

import motes
from fuzz import mutate
from fuzz.harness import Reader
from motes.language.models import gguf

STRING, ARRAY, U32, F32 = 8, 9, 4, 6
CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TOKENS = ["<s>", "</s>", "a", "b", "Ġ", "ab", "c", "d"]
WIDTH, INNER, KEYS = 8, 16, 4
COUNTS = [0, 1, 7, 2**16, 10**6, 3 * 10**6, 2**31, 2**32, 2**53, 2**63, 2**64 - 1]


@dataclass(frozen=True)
class Array:
    """An array whose count may be a lie."""

    kind: int
    items: list[Any]
    count: int | None = None


@dataclass(frozen=True)
class File:
    """What a file says; counts of None are true."""

    fields: list[tuple[str, int, Any]]
    tensors: list[tuple[str, tuple[int, ...], int, int]]
    n_fields: int | None = None
    n_tensors: int | None = None
    version: int = 3
    body: bytes = field(default=b"", repr=False)


def good() -> File:
    """A Llama of one layer with eight tokens."""
    fields: list[tuple[str, int, Any]] = [
        ("general.architecture", STRING, "llama"),
        ("general.alignment", U32, 32),
        ("llama.block_count", U32, 1),
        ("llama.context_length", U32, 32),
        ("llama.embedding_length", U32, WIDTH),
        ("llama.feed_forward_length", U32, INNER),
        ("llama.attention.head_count", U32, 2),
        ("llama.attention.head_count_kv", U32, 1),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("llama.rope.freq_base", F32, 10000.0),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "gpt-2"),
        ("tokenizer.ggml.tokens", ARRAY, Array(STRING, TOKENS)),
        ("tokenizer.ggml.token_type", ARRAY, Array(5, [3, 3, *[1] * 6])),
        ("tokenizer.ggml.merges", ARRAY, Array(STRING, ["a b"])),
        ("tokenizer.ggml.bos_token_id", U32, 0),
        ("tokenizer.ggml.eos_token_id", U32, 1),
        ("tokenizer.chat_template", STRING, "{{ messages[0].content }}"),
    ]
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    sizes = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "attn_q": (WIDTH, WIDTH), "attn_k": (KEYS, WIDTH)}
    sizes |= {"attn_v": (KEYS, WIDTH), "attn_output": (WIDTH, WIDTH), "ffn_gate": (INNER, WIDTH)}
    sizes |= {"ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
    shapes |= {f"blk.0.{key}": shape for key, shape in sizes.items()}
    tensors, at, rng, body = [], 0, random.Random(1), b""
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        tensors.append((f"{name}.weight", shape[::-1], 0, at))
        body += struct.pack(f"<{count}f", *(rng.gauss(0, 0.5) for _ in range(count)))
        body += b"\0" * (-len(body) % 32)
        at = len(body)
    return File(fields, tensors, body=body)


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def packed(kind: int, value: Any) -> bytes:
    """A value of a kind as bytes; what does not fit the kind is written as it comes."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Array):
        count = len(value.items) if value.count is None else value.count
        return struct.pack("<IQ", value.kind, count) + b"".join(packed(value.kind, v) for v in value.items)
    if kind == STRING:
        return text(value if isinstance(value, str) else str(value)[:50])
    if kind not in CODES or isinstance(value, str):
        return text(str(value))
    try:
        return struct.pack("<" + CODES[kind], value)
    except (struct.error, OverflowError):
        return b"\xff" * struct.calcsize("<" + CODES[kind])


def written(file: File) -> bytes:
    """The file as bytes."""
    n_tensors = len(file.tensors) if file.n_tensors is None else file.n_tensors
    n_fields = len(file.fields) if file.n_fields is None else file.n_fields
    out = b"GGUF" + struct.pack("<IQQ", file.version, n_tensors, n_fields)
    for key, kind, value in file.fields:
        out += text(key) + struct.pack("<I", kind) + packed(kind, value)
    for name, shape, kind, offset in file.tensors:
        out += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *(s % 2**64 for s in shape), kind, offset)
    return out + b"\0" * (-len(out) % 32) + file.body


def nested(depth: int, count: int = 1) -> bytes:
    """Arrays in arrays, each of so many."""
    return struct.pack("<IQ", ARRAY, count) * depth + packed(ARRAY, Array(U32, [1]))


def odd(rng: random.Random, value: Any) -> tuple[int, Any]:
    """A kind and a value that nobody expects, at times near the right one."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice([4, 5, 10, 11]), rng.choice([*COUNTS, *mutate.NUMBERS[:9]]) % 2**32
    if kind == 1:
        return rng.choice([6, 12]), rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e-300, 1e30])
    if kind == 2:
        return STRING, rng.choice([*mutate.WORDS, "llama", "gpt2", "{% for", "{{ ''.__class__ }}"])
    if kind == 3:
        return rng.choice([7, 13, 99, 2**31]), True
    if isinstance(value, Array) and value.items:
        items, at = list(value.items), rng.randrange(len(value.items))
        change = rng.randrange(4)
        if change == 0:
            items[at] = rng.choice(items)
        elif change == 1:
            del items[at]
        elif change == 2:
            items[at] = rng.choice(mutate.WORDS) if value.kind == STRING else rng.choice([0, 3, 4, -1, 2**31 - 1])
        else:
            return ARRAY, Array(value.kind, items, rng.choice(COUNTS))
        return ARRAY, Array(value.kind, items)
    return rng.choice([(ARRAY, Array(4, [1, 2])), (ARRAY, Array(rng.choice([7, 9, 50]), [], rng.choice(COUNTS)))])


@cache
def loaded() -> None:
    """Load the file that is not spoilt: it can be read, and what a first time costs is not counted for the others."""
    with tempfile.TemporaryDirectory() as folder:
        for whole in (True, False):
            read((written(good()), whole), Path(folder))


def make(rng: random.Random) -> tuple[bytes, bool]:
    """A file, and whether it is loaded as a model or only built."""
    loaded()
    file, whole = good(), rng.random() < 0.1
    kind = rng.randrange(10)
    if kind < 3:
        data = written(file)
        head = len(data) - len(file.body)
        return mutate.spoil_bytes(rng, data[:head]) + (file.body if rng.random() < 0.8 else b""), whole
    if kind == 3:
        return mutate.spoil_bytes(rng, written(file)), whole
    if kind == 4:
        many = rng.choice(["nested", "empty texts", "bytes", "fields", "lies"])
        return _many(rng, file, many), whole
    fields, tensors = list(file.fields), list(file.tensors)
    for _ in range(rng.choice([1, 1, 2, 3])):
        if kind < 8:
            at = rng.randrange(len(fields))
            key, _, value = fields[at]
            change = rng.randrange(8)
            if change == 0:
                fields.append(fields[at])
            elif change == 1 and len(fields) > 1:
                del fields[at]
            else:
                fields[at] = (rng.choice([key] * 9 + ["", "llama.expert_count", "x"]), *odd(rng, value))
        else:
            at = rng.randrange(len(tensors))
            name, shape, form, offset = tensors[at]
            change = rng.randrange(6)
            if change == 0:
                name = rng.choice([tensors[at - 1][0], "", "blk", "blk.7.attn_q.weight", "a.b.c.d.e", *mutate.WORDS])
            elif change == 1:
                shape = tuple(rng.choice([*COUNTS, *shape]) for _ in range(rng.choice([0, 1, 2, 3, 5, 200])))
            elif change == 2:
                form = rng.choice([1, 2, 3, 8, 12, 30, 255, 2**32 - 1])
            elif change == 3:
                offset = rng.choice([*COUNTS, 31, 64, 2**64 - 32])
            elif change == 4 and len(tensors) > 1:
                del tensors[at]
                continue
            tensors[at] = (name, shape, form, offset)
    return written(replace(file, fields=fields, tensors=tensors)), whole


def _many(rng: random.Random, file: File, what: str) -> bytes:
    """A file that holds, or says that it holds, more than anyone could want."""
    if what == "nested":
        value = nested(rng.choice([1, 10, 1000, 100_000]), rng.choice([1, 1, 2]))
        return written(replace(file, fields=[*file.fields, ("x", ARRAY, value)]))
    if what == "empty texts":
        count = rng.choice([1000, 300_000, 3_000_000])
        start = written(replace(file, fields=[("x", ARRAY, Array(STRING, [], count))], tensors=[]))
        return start + bytes(8 * count)
    if what == "bytes":
        count = rng.choice([10_000, 3_000_000])
        return written(replace(file, fields=[("x", ARRAY, Array(0, [], count))], tensors=[])) + bytes(count)
    if what == "fields":
        n = rng.choice([100, 100_000])
        return written(replace(file, fields=[], n_fields=n, tensors=[], body=b"")) + bytes(13 * n)
    return written(replace(file, n_fields=rng.choice(COUNTS), n_tensors=rng.choice([None, *COUNTS])))


def read(given: tuple[bytes, bool], folder: Path) -> None:
    """Build the model and its tokenizer, or load it as a user would, and ask it something."""
    import torch

    data, whole = given
    path = folder / "model.gguf"
    path.write_bytes(data)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        if whole:
            model = motes.language.load(path)
            model.prefixes(model.encode("a b"), 2)
            return
        header = gguf.read_header(path)
        if gguf.supported(header):
            model, tokenizer = gguf.build_model(header, torch.float32), gguf.build_tokenizer(header)
            ids = tokenizer("ab c")["input_ids"]
            tokenizer.decode(ids)
            model(input_ids=torch.tensor([[0, *ids]]), use_cache=False)


READER = Reader("gguf", make, read, count=100_000)
