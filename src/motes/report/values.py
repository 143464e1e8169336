"""The particles as a report shows them: named numbers, texts or images, each with its weight."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motes.core import tree


@dataclass(frozen=True)
class Column:
    """One number of every particle: `values` (N,) float64; `whole` where they are whole numbers."""

    name: str
    values: np.ndarray
    whole: bool


@dataclass(frozen=True)
class Distinct:
    """One text or one image, the weight of all particles that equal it, and how many they are."""

    what: Any
    weight: float
    count: int


def kind(view: Any) -> str:
    """What the particles are: "texts", "images", "numbers" or "nothing" (that could be shown)."""
    if isinstance(view, list) and view and all(isinstance(v, str) for v in view):
        return "texts"
    if isinstance(view, Tensor) and view.ndim == 4 and view.shape[1] in (1, 3) and min(view.shape[2:]) > 1:
        return "images"
    if any(isinstance(leaf, Tensor) and leaf.numel() for _, leaf in tree.leaves(view)):
        return "numbers"
    return "nothing"


def leaves(view: Any) -> list[tuple[str, Tensor]]:
    """The tensors of a view by name: a parameter's own name, or `x` where the view is one tensor."""
    return [(_short(where), leaf) for where, leaf in tree.leaves(view, "") if isinstance(leaf, Tensor)]


def columns(view: Any, most: int = 10_000) -> list[Column]:
    """Every scalar component, `name[i, j]`, the first `most` of them."""
    out: list[Column] = []
    for name, leaf in leaves(view):
        flat = leaf.detach().cpu().reshape(len(leaf), -1)
        shape = tuple(leaf.shape[1:])
        for k in range(min(flat.shape[1], most - len(out))):
            place = "" if not shape else f"[{', '.join(str(i) for i in np.unravel_index(k, shape))}]"
            whole = not (leaf.is_floating_point() or leaf.is_complex())
            out.append(Column(name + place, flat[:, k].double().numpy(), whole))
    return out


def size(view: Any) -> int:
    """How many numbers each particle has."""
    return sum(leaf[0].numel() for _, leaf in leaves(view) if len(leaf))


def distinct(view: Any, weight: np.ndarray) -> list[Distinct]:
    """Equal texts or images merged, the heaviest first, those without weight left out; images as `to_pixels`."""
    what = kind(view)
    if what == "texts":
        return _merge(((t, t) for t in view), weight)
    if what == "images":
        signed = is_signed(view)
        pixels = (to_pixels(view[i : i + 1], signed)[0] for i in range(len(view)))
        return _merge(((hashlib.sha256(p.tobytes()).digest(), p) for p in pixels), weight)
    return []


def is_signed(images: Tensor) -> bool:
    """Whether brightness runs from -1 to 1 and not from 0 to 1: more than a hundredth is clearly negative."""
    return bool((images < -0.2).double().mean() > 0.01)


def to_pixels(images: Tensor, signed: bool | None = None) -> np.ndarray:
    """(N, C, H, W), brightness from 0 to 1 or, `signed`, from -1 to 1, to uint8 (N, H, W) or (N, H, W, 3).

    What lies outside is cut, and NaN is black.
    """
    x = images.detach().cpu().float()
    if is_signed(images) if signed is None else signed:
        x = (x + 1) / 2
    pixels = (255 * x.nan_to_num(0.0).clamp(0, 1)).round().to(torch.uint8).movedim(1, -1).numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def quantile(values: np.ndarray, weight: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Weighted quantiles: the inverse of the weighted distribution function, joined linearly between midpoints."""
    order = np.argsort(values, kind="stable")
    w = weight[order]
    keep = w > 0
    w, v = w[keep], values[order][keep]
    middle = np.cumsum(w) - w / 2
    return np.interp(q, middle / w.sum(), v)


def _merge(keyed: Iterable[tuple[Any, Any]], weight: np.ndarray) -> list[Distinct]:
    total: dict[Any, list] = {}
    for (key, what), w in zip(keyed, weight.tolist(), strict=True):
        entry = total.setdefault(key, [what, 0.0, 0])
        entry[1] += w
        entry[2] += 1
    out = [Distinct(*entry) for entry in total.values() if entry[1] > 0]
    return sorted(out, key=lambda d: -d.weight)


def _short(where: str) -> str:
    """`['theta']` is theta, the unnamed whole is x, deeper places keep their brackets."""
    if not where:
        return "x"
    if where.startswith("['") and where.endswith("']") and where.count("[") == 1:
        return where[2:-2]
    if where.startswith("['"):
        head, rest = where[2:].split("']", 1)
        return head + rest
    return "x" + where
