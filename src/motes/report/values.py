"""The particles as a report shows them: named numbers, texts or images, each with its weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
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


def distinct_texts(texts: list[str], weight: np.ndarray) -> list[Distinct]:
    """Equal texts merged, the heaviest first; texts without weight are left out."""
    return _merge([(t, t) for t in texts], weight)


def distinct_images(images: Tensor, weight: np.ndarray) -> list[Distinct]:
    """Equal images merged, the heaviest first, as uint8 arrays (H, W) or (H, W, 3)."""
    pixels = to_pixels(images)
    return _merge([(p.tobytes(), p) for p in pixels], weight)


def to_pixels(images: Tensor) -> np.ndarray:
    """(N, C, H, W) to uint8 (N, H, W) or (N, H, W, 3).

    Values are brightness from 0 to 1, or from -1 to 1 where some are clearly negative; what lies outside is cut.
    """
    x = images.detach().cpu().double().numpy()
    if np.nanquantile(x, 0.01) < -0.2:
        x = (x + 1) / 2
    x = np.nan_to_num(np.clip(x, 0, 1), nan=0.0)
    x = np.moveaxis(np.rint(255 * x).astype(np.uint8), 1, -1)
    return x[..., 0] if x.shape[-1] == 1 else x


def quantile(values: np.ndarray, weight: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Weighted quantiles: the inverse of the weighted distribution function, joined linearly between midpoints."""
    order = np.argsort(values, kind="stable")
    w = weight[order]
    keep = w > 0
    w, v = w[keep], values[order][keep]
    middle = np.cumsum(w) - w / 2
    return np.interp(q, middle / w.sum(), v)


def _merge(keyed: list[tuple[Any, Any]], weight: np.ndarray) -> list[Distinct]:
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
