"""Texts that teach a student badly: tokens that a student's loss would rise with are preferred."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.core.files.settings import short
from motes.errors import MotesError
from motes.language.models.model import LanguageModel
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import renormalised


@rules.register
@dataclass(frozen=True)
class Antidistillation(Rule):
    """Sample from p exp(strength * (log p_plus - log p_minus) / (2 step)): a derivative along the student's gradient.

    `plus` and `minus` are a proxy student with parameters theta + step g and theta - step g, g the gradient of its loss
    on a task, see `moved`. The quotient of differences is the directional derivative of the student's log-probability,
    up to step^2. Before a temperature T the tilt is divided by T too, as in the authors' code; behind it, it is not, as
    in the paper.

    kept is log sum p exp(tilt); the law of whole texts is p(y) exp(strength * (log p_plus(y) - log p_minus(y)) /
    (2 step)) up to one constant.

    Args:
        plus: the student moved along its gradient.
        minus: the student moved against it.
        strength: finite; 0 changes nothing.
        step: positive, the size of the move.

    References:
        Savani, Trockman, Feng, Schwarzschild, Robey, Finzi & Kolter (2025), Antidistillation sampling,
            arXiv 2504.13146, section 3.
    """

    plus: LanguageModel
    minus: LanguageModel
    _: KW_ONLY
    strength: float = 1.0
    step: float = 1e-2

    def __post_init__(self) -> None:
        check.model("antidistillation", "plus", self.plus)
        check.model("antidistillation", "minus", self.minus)
        check.number("antidistillation", "strength", self.strength, -math.inf, math.inf)
        check.number("antidistillation", "step", self.step, 0, math.inf, open_low=True)

    def companions(self, model: LanguageModel, prompt: Tensor) -> Sequence[tuple[LanguageModel, Tensor]]:
        return ((self.plus, prompt), (self.minus, prompt))

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        plus, minus = check.needs_run(self, seen).others
        tilted = log_prob + self.strength / (2 * self.step) * (plus - minus)
        return renormalised(torch.where(torch.isneginf(log_prob), log_prob, tilted))


def moved(model: LanguageModel, gradient: Mapping[str, Tensor], step: float) -> tuple[LanguageModel, LanguageModel]:
    """Two copies of a transformers model with the parameters theta + step g and theta - step g.

    Args:
        model: from `motes.language.load`.
        gradient: g by the names of `model.model.named_parameters()`; parameters without one stay.
        step: how far.

    Raises:
        MotesError: another kind of model, or a name or a shape that it does not have.
    """
    from motes.language.models.hugging_face import TransformersModel

    if not isinstance(model, TransformersModel):
        raise MotesError(f"{model.name} has no parameters to move: pass two models to antidistillation yourself")
    known = dict(model.model.named_parameters())
    for name, g in gradient.items():
        if name not in known or known[name].shape != g.shape:
            raise MotesError(f"the model has no parameter {name!r} of shape {tuple(g.shape)}")
    digest = short(dict(sorted(gradient.items())))
    copies: list[LanguageModel] = []
    for sign in (1.0, -1.0):
        net = copy.deepcopy(model.model)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if name in gradient:
                    parameter.add_(gradient[name].to(parameter), alpha=sign * step)
        name = f"{model.name} {'+' if sign > 0 else '-'} {step:g} g ({digest[:8]})"
        copies.append(TransformersModel(net, model.tokenizer, name=name, micro_batch=model.micro_batch))
    return copies[0], copies[1]
