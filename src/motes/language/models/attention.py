"""Attention of a row's new tokens over a prompt that all rows share and a text that is each row's own.

The prompt's keys and values stand in memory once: all rows' queries meet them in one matrix product, and one softmax
runs over both parts. With SmolLM2-135M, 32 rows and a prompt of 145 tokens a step takes 0.17 s against 0.19 s for
joined keys on one core, and the prompt's 6.5 MB of cache are not there 32 times. transformers calls `attend` where a
model asks for the attention named `NAME`.

References:
    Juravsky, Brown, Ehrlich, Fu, Re & Mirhoseini (2024), Hydragen: high-throughput LLM inference with shared prefixes,
    arXiv 2402.05099, section 3.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

NAME = "motes_shared_prompt"
PROMPT: ContextVar[list[tuple[Tensor, Tensor]] | None] = ContextVar("motes_prompt", default=None)
"""The prompt's keys and values (1, H, P, D) by layer, while rows are evaluated."""
MASK: ContextVar[Tensor | None] = ContextVar("motes_mask", default=None)
"""What is added to the scores of what follows the prompt, (B, L, T); None where every token sees all of it."""


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention in transformers' calling convention; `key` and `value` hold only what follows the prompt.

    Shapes: B rows, L new tokens, Q query heads, H key heads, G = Q / H, P prompt tokens, T tokens behind it (the new
    ones included), D a head's width.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    prompt = PROMPT.get()
    if prompt is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    keys_1HPD, values_1HPD = prompt[module.layer_idx]
    B, Q, L, D = query.shape
    H = key.shape[1]
    M = Q // H * L
    scale = options.get("scaling") or D**-0.5
    query_BHMD = (query * scale).reshape(B, H, M, D)
    together_HD = query_BHMD.transpose(0, 1).reshape(H, B * M, D)
    shared_HP = together_HD @ keys_1HPD[0].transpose(1, 2)
    P = shared_HP.shape[-1]
    shared_BHMP = shared_HP.view(H, B, M, P).transpose(0, 1)
    own_BHMT = query_BHMD @ key.transpose(2, 3)
    mask_BLT = MASK.get()
    if mask_BLT is not None:
        own_BHMT.view(B, H, M // L, L, -1).add_(mask_BLT[:, None, None])
    weight = torch.softmax(torch.cat([shared_BHMP, own_BHMT], -1), -1, dtype=torch.float32).to(value.dtype)
    shared_HP = weight[..., :P].transpose(0, 1).reshape(H, B * M, P)
    out_BHMD = (shared_HP @ values_1HPD[0]).view(H, B, M, -1).transpose(0, 1) + weight[..., P:] @ value
    return out_BHMD.reshape(B, Q, L, -1).transpose(1, 2), None


def register() -> None:
    """Make `attend` known to transformers; models use it after `model.set_attn_implementation(NAME)`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def can_share(config: Any) -> bool:
    """Whether plain attention over everything before is all that a model of this configuration does."""
    plain = {"llama", "mistral", "qwen2", "qwen3", "phi3", "smollm3", "olmo", "olmo2", "granite", "starcoder2"}
    fields = config.to_dict()
    windows = any(kind != "full_attention" for kind in fields.get("layer_types") or [])
    window = fields.get("sliding_window") is not None and fields.get("use_sliding_window", True)
    capped = fields.get("attn_logit_softcapping") is not None
    return fields.get("model_type") in plain and not (windows or window or capped)
