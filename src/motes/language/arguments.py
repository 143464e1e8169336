"""Arguments of what draws texts are of their kind, or an error says what belongs there."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from motes.core.errors import MotesError
from motes.language.constraint import Constraint
from motes.language.model import LanguageModel, Message
from motes.language.potential import Potential
from motes.language.rule import Rule


def check_arguments(
    model: object, rules: Sequence[object], constraint: object, reward: object, max_tokens: object, steer: object
) -> None:
    """Every argument of `Generation` is of its kind, or an error says what belongs there."""
    if not isinstance(model, LanguageModel):
        raise MotesError(f"model must come from motes.language.load, or be a TableModel, not {type(model).__name__}")
    for rule in rules:
        if not isinstance(rule, Rule):
            raise MotesError(f"rules are made by motes.language.temperature, nucleus or another; {rule!r} is none")
    if constraint is not None and not isinstance(constraint, Constraint):
        raise MotesError(
            f"a constraint is made by motes.language.regex, json_schema, choices or another; {constraint!r} is none"
        )
    if reward is not None and not callable(reward) and not isinstance(reward, Potential):
        raise MotesError(f"reward must be a function of a list of texts, not {type(reward).__name__}")
    for name, value in (("max_tokens", max_tokens), ("steer", 1 if steer is None else steer)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise MotesError(f"{name} must be a whole number of at least 1, not {value!r}")


def encoded(model: LanguageModel, prompt: str | Sequence[Message], chat: bool | str, max_tokens: int) -> Tensor:
    """The prompt as tokens (P,) int64, which leaves room for `max_tokens` more, or an error."""
    tokens = model.encode(prompt, chat)
    if model.longest is not None and len(tokens) + max_tokens > model.longest:
        raise MotesError(
            f"the prompt has {len(tokens)} tokens and max_tokens={max_tokens}, but {model.name} reads at most "
            f"{model.longest} together: shorten the prompt, or lower max_tokens"
        )
    return tokens
