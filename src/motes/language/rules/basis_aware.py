"""A threshold that also keeps the improbable tokens which the model's own geometry says are possible."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from motes.errors import MotesError, needing
from motes.language.models.model import LanguageModel
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import best, keep_where

if TYPE_CHECKING:
    from motes.language.models.hugging_face import TransformersModel


@rules.register
@dataclass(frozen=True, eq=False)
class BasisAware(Rule):
    """Keep tokens with p >= delta, and those below it which the model's law cannot be without.

    The model's law is the true one up to an error of its narrow output layer, E^T r = E^T p for the columns of a basis
    E. A token i below delta is dropped exactly if there is an r with r_i = 0, r >= 0, sum r = 1, E^T r = E^T p and
    r <= p / (1 - delta), a linear programme. Without columns this is `epsilon` with the threshold delta (strictly
    below); the more columns, the more is kept. A programme that the solver cannot decide keeps its token. Needs scipy.

    Only the `candidates` most probable tokens below delta are asked about; all others are dropped. The published
    procedure draws tokens until one is accepted, which gives this same law.

    kept is the log of the mass p(S) of the set S; the law of whole texts is p(y) where each token lies in its set.

    Args:
        basis: (V, c) the columns, see `basis_of`; c = 0 for none.
        delta: in (0, 1).
        candidates: how many tokens below delta are asked about, each a programme in V unknowns.

    References:
        Finlayson, Hewitt, Koller, Swayamdipta & Sabharwal (2024), Closing the curious case of neural text degeneration,
            ICLR, section 4.
    """

    basis: Tensor
    _: KW_ONLY
    delta: float = 1e-3
    candidates: int = 20

    def __post_init__(self) -> None:
        check.number("basis_aware", "delta", self.delta, 0, 1, open_low=True, open_high=True)
        check.whole("basis_aware", "candidates", self.candidates, 0)
        if not isinstance(self.basis, Tensor) or self.basis.ndim != 2:
            raise MotesError("the basis of basis_aware must be a tensor (V, c), as motes.language.rules.basis_of makes")
        if not torch.isfinite(self.basis).all():
            raise MotesError("the basis of basis_aware holds NaN or infinite numbers")

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        if self.basis.shape[0] != log_prob.shape[1]:
            raise MotesError(f"the basis has {self.basis.shape[0]} rows, but the model has {log_prob.shape[1]} tokens")
        p = log_prob.exp()
        keep = p >= self.delta
        keep[torch.arange(len(p)), p.argmax(-1)] = True
        asked = min(self.candidates, p.shape[1])
        if asked:
            value, token = best(log_prob.masked_fill(keep, -torch.inf), asked)
            for row, j in torch.nonzero(torch.isfinite(value[:, :asked])).tolist():
                keep[row, token[row, j]] = not self.dispensable(p[row], int(token[row, j]))
        return keep_where(log_prob, keep)

    def dispensable(self, p: Tensor, token: int) -> bool:
        """Whether some law without the token explains what the model says."""
        with needing("basis_aware solves linear programmes with scipy: pip install scipy"):
            from scipy.optimize import linprog
        basis = self.basis.to(torch.float64)
        upper = p / (1 - self.delta)
        upper[token] = 0.0
        equal = torch.cat([torch.ones(1, len(p), dtype=torch.float64), basis.T])
        value = torch.cat([torch.ones(1, dtype=torch.float64), basis.T @ p])
        bounds = torch.stack([torch.zeros_like(upper), upper], 1).numpy()
        found = linprog(
            torch.zeros(len(p)).numpy(), A_eq=equal.numpy(), b_eq=value.numpy(), bounds=bounds, method="highs"
        )
        return found.status == 0


def basis_of(model: TransformersModel | LanguageModel, columns: int = 20) -> Tensor:
    """(V, columns) float64: the leading left singular vectors of a model's output layer, for `basis_aware`."""
    from motes.language.models.hugging_face import TransformersModel

    if not isinstance(model, TransformersModel):
        raise MotesError(f"{model.name} has no output layer to take a basis from: give basis_aware a tensor (V, c)")
    check.whole("basis_of", "columns", columns, 1)
    weight = model.model.get_output_embeddings().weight.detach().cpu().to(torch.float64)
    _, vectors = torch.linalg.eigh(weight.T @ weight)
    left = weight @ vectors.flip(1)[:, :columns]
    return left / left.norm(dim=0)
