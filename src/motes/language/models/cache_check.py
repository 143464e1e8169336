"""How a model may be asked for many texts at once: with which cache, if any, found by trying it against whole texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.models import attention
from motes.language.models.cache import CachedPrefixes
from motes.language.models.model import Prefixes
from motes.language.models.states import StatePrefixes
from motes.language.models.whole import WholePrefixes, whole_logits

Open = Callable[[Any, Tensor, int | None], Prefixes]
"""Maps a model, a prompt (P,) and the rows a call to the prefixes."""

KINDS: dict[str, Open] = {
    "shared": lambda model, prompt, size: CachedPrefixes(model, prompt, shares=True, micro_batch=size),
    "rows": lambda model, prompt, size: CachedPrefixes(model, prompt, shares=False, micro_batch=size),
    "states": lambda model, prompt, size: StatePrefixes(model, prompt, micro_batch=size),
    "states at positions": lambda model, prompt, size: StatePrefixes(model, prompt, micro_batch=size, positions=True),
    "states one by one": lambda model, prompt, size: StatePrefixes(model, prompt, micro_batch=1),
    "none": lambda model, prompt, size: WholePrefixes(model, prompt, micro_batch=size),
}
"""Keys and values with one copy of the prompt; with a copy a row; states that are copied, for models that know where
they are, that must be told, and that go wrong with several rows; whole texts each time. The first that is right."""
PROMPTS = {"shared": (3,), "rows": (3,)}
"""Tokens of the prompts that are tried; for states 6 and 1, on both sides of the width of a short convolution."""
TEXTS = ((0, 1, 2, 3), (0, 4, 5, 6), (7, 8, 9, 10))
"""The continuations that are tried: two with one beginning, and another."""


def find_cache(model: Any, name: str) -> tuple[str, int, str]:
    """The fastest way of `KINDS` whose logits are those of whole texts, the number of logits, and what else failed.

    A few tokens are read at once and step by step: rows branch, change places, differ in length, look ahead and keep.
    A model that may share its prompt is left with the attention that does.

    Raises:
        MotesError: the model is no causal language model that computes the same twice; the message says what it is.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise MotesError(
            f"{name} reads a text with an encoder and writes with a decoder: it has no next-token law of a text alone. "
            "Use a causal model"
        )
    if model.get_output_embeddings() is None:
        raise MotesError(
            f"{name} is a {type(model).__name__} without a language-model head: load it with AutoModelForCausalLM"
        )
    right = {3: _whole(model, name, 3)}
    vocabulary, failed = right[3].shape[-1], ""
    shares = attention.can_share(model.config)
    before = getattr(model.config, "_attn_implementation", None)
    for kind in KINDS:
        if kind == "none" or (kind == "shared" and not shares):
            continue
        if kind == "shared":
            attention.register()
            model.set_attn_implementation(attention.NAME)
        problem = None
        for length in PROMPTS.get(kind, (6, 1)):
            if length not in right:
                right[length] = _whole(model, name, length)
            problem = problem or _differs(kind, model, right[length], length)
        if problem is None:
            return kind, vocabulary, failed
        failed = problem
        if kind == "shared":
            model.set_attn_implementation("sdpa" if before in (None, attention.NAME) else before)
    _must_be_causal(model, name, right[3])
    return "none", vocabulary, failed


def _prompt(model: Any, length: int) -> Tensor:
    """(P,) tokens spread over the vocabulary."""
    return _token(model, 100 + torch.arange(length))


def _texts(model: Any, length: int) -> Tensor:
    """(3, P + 4) tokens: `TEXTS` behind a prompt."""
    return torch.cat([_prompt(model, length).expand(len(TEXTS), -1), _token(model, torch.tensor(TEXTS))], 1)


def _token(model: Any, number: Tensor) -> Tensor:
    return (number * 7919 + 11) % model.get_input_embeddings().weight.shape[0]


def _whole(model: Any, name: str, length: int) -> Tensor:
    """(3, 5, V): the logits after the prompt of `length` tokens and after each token of `TEXTS`, from whole texts."""
    ids = _texts(model, length)
    try:
        return whole_logits(model, ids, 5)
    except Exception as error:
        raise MotesError(
            f"{name} cannot be asked for the logits of a text: {type(error).__name__}: {error}. A causal model of "
            "transformers must take input_ids alone"
        ) from error


def _must_be_causal(model: Any, name: str, right: Tensor) -> None:
    """Raise MotesError unless the logits are the same when asked again, and without the last tokens."""
    length, allowed = 3, _allowed(right)
    if not _same(_whole(model, name, length), right, allowed):
        raise MotesError(
            f"{name} gives other logits when it is asked again about the same texts: something in it is random, "
            "such as dropout that is on outside of training"
        )
    if not _same(whole_logits(model, _texts(model, length)[:, :-2], 3), right[:, :3], allowed):
        raise MotesError(
            f"{name} is no causal model: its logits after a token depend on what follows. If it is an encoder, load "
            "it with is_decoder=True, or use a causal model"
        )


def _differs(kind: str, model: Any, right: Tensor, length: int) -> str | None:
    """Why the prefixes of this kind are not those of whole texts, or None."""
    allowed = _allowed(right)
    try:
        prefixes = KINDS[kind](model, _prompt(model, length), None)
        config, cached = model.config.get_text_config(), getattr(prefixes, "layers", None)
        layers = getattr(config, "num_hidden_layers", 0) - getattr(config, "num_kv_shared_layers", 0)
        if cached is not None and len(cached) < layers:
            return f"it has {layers} layers and caches keys and values of {len(cached)}"
        for found, rows, columns in _steps(prefixes, model):
            if not _same(found, right[list(rows), list(columns)], allowed):
                return "its logits step by step are not those of whole texts"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, this way is not open)
        return f"{type(error).__name__}: {error}"
    return None


def _steps(prefixes: Prefixes, model: Any) -> Iterator[tuple[Tensor, tuple[int, ...], tuple[int, ...]]]:
    """Logits (B, V) as rows grow, and where they stand among those of `TEXTS`: which text, behind how many tokens."""
    texts = _token(model, torch.tensor(TEXTS))

    def behind(*where: tuple[int, int]) -> Tensor:
        return torch.tensor([-1 if j < 0 else int(texts[i, j]) for i, j in where])

    yield prefixes.logits, (0,), (0,)
    prefixes.extend(torch.tensor([0, 0]), behind((2, 0), (0, 0)))
    yield prefixes.logits, (2, 0), (1, 1)
    prefixes.extend(torch.tensor([1, 0, 1]), behind((0, 1), (2, -1), (1, 1)))
    yield prefixes.logits, (0, 2, 1), (2, 1, 2)
    ahead = torch.stack([texts[0, 2:4], texts[2, 1:3], texts[1, 2:4]])
    found = prefixes.look(ahead, torch.tensor([2, 1, 0]))
    yield torch.stack([found[0, 0], found[0, 1], found[1, 0]]), (0, 0, 2), (3, 4, 2)
    prefixes.keep(torch.tensor([1, 1, 0]))
    prefixes.extend(torch.tensor([2, 0, 1]), behind((1, 2), (0, 3), (2, 2)))
    yield prefixes.logits, (1, 0, 2), (3, 4, 3)


def _allowed(right: Tensor) -> float:
    """How far logits may be from these (3, 5, V) by rounding: of what texts change in them, and of their size."""
    values = torch.where(torch.isfinite(right), right, 0.0).double().flatten(0, 1)
    changed, size = (v.square().mean().sqrt() for v in (values - values.mean(0), values - values.mean()))
    return 1e-3 * float(changed) + max(8 * torch.finfo(right.dtype).eps, 2e-5) * float(size)


def _same(found: Tensor, right: Tensor, allowed: float) -> bool:
    """Whether logits (B, V) agree, row by row; what is not finite in the right ones is for a run to report."""
    if found.shape != right.shape:
        return False
    finite = torch.isfinite(right)
    if not finite.any():
        return True
    gap = torch.where(finite, found - right, 0.0).double()
    return bool((gap.square().mean(-1).sqrt() <= allowed).all())
