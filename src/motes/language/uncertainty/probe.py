"""Semantic entropy from a hidden state, without sampling: a logistic regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.modules import refuse_training_mode
from motes.errors import MotesError, ShapeError
from motes.language.models.hugging_face import TransformersModel
from motes.language.models.model import LanguageModel, Message
from motes.rng import Rng


def hidden_states(
    model: LanguageModel, prompts: Sequence[str | Sequence[Message]], *, layer: int = -1, chat: bool | str = "auto"
) -> Tensor:
    """(N, D) float64, the hidden state at the last token of each prompt, before anything is generated.

    Args:
        model: of transformers.
        prompts: as for `Generation`.
        layer: 0 is the embedding, 1.. the layers, -1 the last.
        chat: as for `Generation`.
    """
    if not isinstance(model, TransformersModel):
        raise MotesError(f"hidden states need a model of transformers, and {model.name} is none")
    refuse_training_mode(model.model, model.name)
    out = []
    with torch.inference_mode():
        for prompt in prompts:
            ids = model.encode(prompt, chat)[None].to(model.model.device)
            found = model.model(input_ids=ids, output_hidden_states=True, use_cache=False, logits_to_keep=1)
            out.append(found.hidden_states[layer][0, -1].cpu().double())
    return torch.stack(out).clone()


def best_split(value: Tensor) -> float:
    """The threshold that splits numbers (N,) into two groups with the least squares within, in the middle of a gap.

    Raises:
        MotesError: all are the same.
    """
    ordered = value.double().sort()[0]
    n = len(ordered)
    if n < 2 or float(ordered[0]) == float(ordered[-1]):
        raise MotesError("numbers that are all the same cannot be split in two groups")
    k = torch.arange(1, n, dtype=torch.float64)
    below, square = ordered.cumsum(0)[:-1], ordered.square().sum()
    within = square - below.square() / k - (ordered.sum() - below).square() / (n - k)
    within[ordered[1:] == ordered[:-1]] = math.inf
    at = int(within.argmin())
    return float(ordered[at] + ordered[at + 1]) / 2


@dataclass(frozen=True)
class Probe:
    """A logistic regression on standardised features, fitted by Newton's method.

    Minimises sum_i log(1 + exp(-s_i (w x_i + b))) + ridge |w|^2 / 2 (the intercept b is free), s_i = +-1, as
    scikit-learn's LogisticRegression with C = 1 / ridge does.

    References:
        Kossen, Han, Razzak, Schut, Malik & Gal (2024), Semantic entropy probes, arXiv 2406.15927.

    Attributes:
        weight: (D,) for standardised features.
        intercept: b.
        centre: (D,) means of the features.
        scale: (D,) their standard deviations.
    """

    weight: Tensor
    intercept: float
    centre: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, features: Tensor, label: Tensor, *, ridge: float = 1.0) -> Probe:
        """From features (N, D) and labels (N,) of 0 and 1, high semantic entropy (`entropy >= best_split(entropy)`).

        Raises:
            ShapeError: the shapes do not fit.
            MotesError: there is one label only, or the ridge is not positive.
        """
        x, y = features.double(), label.double()
        if x.ndim != 2 or y.shape != x.shape[:1]:
            raise ShapeError(f"features (N, D) and labels (N,), not {tuple(features.shape)} and {tuple(label.shape)}")
        if ridge <= 0 or set(y.tolist()) != {0.0, 1.0}:
            raise MotesError("a probe needs a positive ridge, and labels of which some are 0 and some 1")
        centre, scale = x.mean(0), x.std(0, correction=0)
        scale = torch.where(scale > 0, scale, 1.0)
        z = torch.cat([(x - centre) / scale, torch.ones(len(x), 1, dtype=torch.float64)], 1)
        penalty = torch.full((z.shape[1],), ridge, dtype=torch.float64)
        penalty[-1] = 0.0
        w = torch.zeros(z.shape[1], dtype=torch.float64)
        loss = _loss(w, z, y, penalty)
        for _ in range(100):
            p = torch.sigmoid(z @ w)
            gradient = z.T @ (p - y) + penalty * w
            if float(gradient.abs().max()) < 1e-9 * len(x):
                break
            hessian = z.T @ (z * (p * (1 - p))[:, None]) + torch.diag(penalty)
            step, rate = torch.linalg.solve(hessian, gradient), 1.0
            while rate > 1e-10 and _loss(w - rate * step, z, y, penalty) > loss:
                rate /= 2
            w = w - rate * step
            loss = _loss(w, z, y, penalty)
        return cls(w[:-1], float(w[-1]), centre, scale)

    def log_odds(self, features: Tensor) -> Tensor:
        """(N,) the log-odds of high semantic entropy."""
        return ((features.double() - self.centre) / self.scale) @ self.weight + self.intercept


def _loss(w: Tensor, z: Tensor, y: Tensor, penalty: Tensor) -> float:
    u = z @ w
    return float((torch.nn.functional.softplus(u) - y * u).sum() + (penalty * w.square()).sum() / 2)


def out_of_fold(rng: Rng, features: Tensor, label: Tensor, *, ridge: float = 1.0, folds: int = 5) -> Tensor:
    """(N,) the log-odds of each case from a probe that has not seen it; folds hold both labels evenly.

    Args:
        rng: for the folds.
        features: (N, D).
        label: (N,) of 0 and 1.
        ridge: as for `Probe.fit`.
        folds: how many parts.
    """
    order = rng.at("folds").permutation(len(label))
    fold = torch.zeros(len(label), dtype=torch.int64)
    for kind in (0, 1):
        members = order[label[order] == kind]
        if len(members) < folds:
            raise MotesError(f"{len(members)} cases of label {kind} are too few for {folds} folds")
        fold[members] = torch.arange(len(members)) % folds
    out = torch.zeros(len(label), dtype=torch.float64)
    for k in range(folds):
        probe = Probe.fit(features[fold != k], label[fold != k], ridge=ridge)
        out[fold == k] = probe.log_odds(features[fold == k])
    return out
