"""What texts are worth: rewards of whole texts, and of unfinished ones on the way."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from motes.core.modules import refuse_training_mode
from motes.errors import MotesError, NanLogPotential, ShapeError

Reward = Callable[[Any], Tensor]
"""Maps n texts (or, wrapped by `on_tokens`, n tensors of tokens) to their log-potentials (n,), nats."""


class Potential(ABC):
    """A reward that also has an opinion about unfinished texts.

    `prefix` guides the population on the way and is taken back before the end; only `complete` is in the target.
    """

    @abstractmethod
    def complete(self, texts: list[str]) -> Tensor:
        """The log-potential of each finished text (n,), nats; -inf forbids it."""

    @abstractmethod
    def prefix(self, texts: list[str]) -> Tensor:
        """A guess of it for each unfinished text (n,), nats; any finite numbers keep the target what it is."""


class OnTokens:
    """A reward that is asked about tokens; made by `on_tokens`."""

    def __init__(self, function: Callable[[list[Tensor]], Tensor]):
        self.function = function
        self.__name__: str = getattr(function, "__name__", type(function).__name__)

    def __call__(self, tokens: list[Tensor]) -> Tensor:
        return self.function(tokens)


def on_tokens(function: Callable[[list[Tensor]], Tensor]) -> OnTokens:
    """A reward from a function of tokens: it gets a list of n tensors (length,) int64, without the end token."""
    if not callable(function):
        raise MotesError(f"on_tokens takes a function of a list of token tensors, not a {type(function).__name__}")
    return OnTokens(function)


def reward_name(reward: object) -> str | None:
    """What settings call a reward."""
    return None if reward is None else getattr(reward, "__name__", type(reward).__name__)


def ask(reward: Any, texts: list[str], tokens: Sequence[Tensor], t: int, what: str = "reward") -> Tensor:
    """The reward's log-potentials (n,) float64 on the CPU, checked.

    Raises:
        MotesError: the reward raised; the message holds its error and one of the texts. Or it holds a network in
            training mode.
        ShapeError: it returned something else than a tensor (n,).
        NanLogPotential: it returned NaN or +inf; the message shows which text.
    """
    refuse_training_mode(reward, f"the {what}")
    given: Any = list(tokens) if isinstance(reward, OnTokens) else texts
    try:
        value = reward(given)
    except Exception as error:
        raise MotesError(
            f"the {what} raised {type(error).__name__}: {error} (t={t}, asked about {len(texts)} texts, the first is "
            f"{texts[0]!r}); mend it, or let it return -inf for texts that it cannot judge"
        ) from error
    if not isinstance(value, Tensor) or value.shape != (len(texts),):
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ShapeError(f"the {what} of {len(texts)} texts must be a tensor ({len(texts)},), not {found} (t={t})")
    value = value.detach().to("cpu", torch.float64)
    bad = torch.nonzero(torch.isnan(value) | (value == torch.inf))[:, 0]
    if len(bad):
        at = int(bad[0])
        raise NanLogPotential(
            f"the {what} of the text {texts[at]!r} is {float(value[at])} (t={t}): it must be below +inf"
        )
    return value


class SequenceReward:
    """The score of a transformers model for sequences as a reward, see `reward_model`."""

    model: Any
    tokenizer: Any
    scale: float
    label: int
    before: str
    batch: int

    def __init__(self, model: Any, tokenizer: Any, *, scale: float, label: int, before: str, batch: int):
        self.model, self.tokenizer, self.scale, self.label = model.eval(), tokenizer, scale, label
        self.before, self.batch = before, batch
        known = (tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None))
        self.longest: float = min((most for most in known if most is not None), default=math.inf)
        self.__name__: str = f"reward_model({type(model).__name__}, scale={scale}, label={label}, before={before!r})"

    def __call__(self, texts: list[str]) -> Tensor:
        refuse_training_mode(self.model, "the reward")
        out = []
        for first in range(0, len(texts), self.batch):
            part = [self.before + text for text in texts[first : first + self.batch]]
            given = self.tokenizer(part, return_tensors="pt", padding=True).to(self.model.device)
            if given["input_ids"].shape[1] > self.longest:
                raise MotesError(
                    f"{type(self.model).__name__} reads at most {self.longest} tokens, and a text has "
                    f"{given['input_ids'].shape[1]} with what is put before it: lower max_tokens, or shorten `before`"
                )
            with torch.inference_mode():
                out.append(self.model(**given).logits[:, self.label].double().cpu())
        return self.scale * torch.cat(out)


def reward_model(
    model: Any,
    *,
    tokenizer: Any = None,
    scale: float = 1.0,
    label: int = 0,
    before: str = "",
    batch: int = 32,
    trust_remote_code: bool = False,
) -> SequenceReward:
    """A reward model of transformers (a sequence classifier) as a reward: scale times the logit of one label.

    Args:
        model: a model with logits (n, labels), or the folder or hub id of one (safetensors only).
        tokenizer: its tokenizer; None loads it from the same place.
        scale: what the logit is multiplied with, one over a temperature.
        label: which logit; reward models have one.
        before: put before every text, as the question that it answers.
        batch: texts a call.
        trust_remote_code: run the Python code that comes with the model; else it is not run, nor asked for.

    Raises:
        FileError: the model has pickled weights only, or needs code of its own that is not run.
        MotesError: the label does not exist, or there is no tokenizer, or it has no padding token; later, if a text is
            longer than the model reads, since the score of its beginning is not that of the text.
    """
    if isinstance(model, str):
        from motes.language.models.pretrained import read

        place, trust = model, {"trust_remote_code": trust_remote_code}
        tokenizer = read("AutoTokenizer", place, **trust) if tokenizer is None else tokenizer
        model = read("AutoModelForSequenceClassification", place, **trust)
    if tokenizer is None:
        raise MotesError("a reward model that is already loaded needs its tokenizer: reward_model(model, tokenizer)")
    if tokenizer.pad_token_id is None:
        raise MotesError("the reward model's tokenizer has no padding token: set tokenizer.pad_token")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if model.config.pad_token_id != tokenizer.pad_token_id:
        raise MotesError(
            f"the reward model looks for the padding token {model.config.pad_token_id} and its tokenizer writes "
            f"{tokenizer.pad_token_id}, so that scores would be read in the wrong place: make them the same"
        )
    if not 0 <= label < model.config.num_labels:
        raise MotesError(f"label must be one of the model's {model.config.num_labels} labels, from 0, not {label}")
    return SequenceReward(model, tokenizer, scale=scale, label=label, before=before, batch=batch)
