"""Arguments of what draws texts are of their kind, or an error says what belongs there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from motes.core.modules import refuse_training_mode
from motes.errors import MotesError
from motes.language.constraint import Constraint
from motes.language.generation.potential import Potential
from motes.language.models.model import LanguageModel, Message, check_prompt
from motes.language.rule import Rule

Rules = Rule | Sequence[Rule] | str
"""One rule, several in their order, or text as in "temperature(0.8), min_p(0.05)"."""


def as_rules(rules: object) -> tuple[Rule, ...]:
    """Rules from one or several of them, or from text as in "temperature(0.8), min_p(0.05)".

    Raises:
        MotesError: something among them is no rule.
    """
    from motes.core.registry import snake
    from motes.language.rules.reading import parse, signature

    if isinstance(rules, str):
        return parse(rules)
    several = [*rules] if isinstance(rules, Iterable) and not isinstance(rules, type) else [rules]
    out: list[Rule] = []
    for rule in several:
        if isinstance(rule, type) and issubclass(rule, Rule):
            name = snake(rule.__name__)
            raise MotesError(f"{name} is a kind of rule: give its knobs, as in {signature(name, rule)}")
        if isinstance(rule, str):
            out += parse(rule)
        elif isinstance(rule, Rule):
            out.append(rule)
        else:
            raise MotesError(f"rules are made by motes.language.temperature, nucleus or another; {rule!r} is none")
    return tuple(out)


def check_arguments(
    model: object, constraint: object, reward: object, max_tokens: object, steer: object, max_refused: object = None
) -> None:
    """Every argument of `Generation` is of its kind, or an error says what belongs there."""
    if not isinstance(model, LanguageModel):
        raise MotesError(f"model must come from motes.language.load, or be a TableModel, not {type(model).__name__}")
    if constraint is not None and not isinstance(constraint, Constraint):
        raise MotesError(
            f"a constraint is made by motes.language.regex, json_schema, choices or another; {constraint!r} is none"
        )
    if reward is not None and not callable(reward) and not isinstance(reward, Potential):
        raise MotesError(f"reward must be a function of a list of texts, not {type(reward).__name__}")
    refuse_training_mode(reward, "the reward")
    for name, value, may in (
        ("max_tokens", max_tokens, ""),
        ("steer", steer, "None or "),
        ("max_refused", max_refused, "None or "),
    ):
        if (value is not None or not may) and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise MotesError(f"{name} must be {may}a whole number of at least 1, not {value!r}")


def check_step(step: object, steer: int | None) -> None:
    """What ends a step is a string or a function, and `steer` is not asked for beside it."""
    if step == "auto":
        return
    if not (isinstance(step, str) and step) and not callable(step):
        raise MotesError(
            f"step must be 'auto', 'token', a string that ends a step, or a function of a text, not {step!r}"
        )
    if step != "token" and steer is not None:
        raise MotesError(
            "steer counts tokens, and with a step of text unfinished texts are judged where a step ends: leave steer "
            "out, and give the reward as twist too if it is to be asked on the way"
        )


def encoded(model: LanguageModel, prompt: str | Sequence[Message], chat: bool | str, max_tokens: int) -> Tensor:
    """The prompt as tokens (P,) int64, which leaves room for `max_tokens` more, or an error."""
    check_prompt(prompt)
    tokens = model.encode(prompt, chat)
    if model.longest is not None and len(tokens) + max_tokens > model.longest:
        raise MotesError(
            f"the prompt has {len(tokens)} tokens and max_tokens={max_tokens}, but {model.name} reads at most "
            f"{model.longest} together: shorten the prompt, or lower max_tokens"
        )
    return tokens
