"""Rules inside `transformers`: a logits processor for `model.generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError
from motes.language.generation.arguments import Rules, as_rules
from motes.language.models.model import LanguageModel
from motes.language.rule import Chain, Rule

if TYPE_CHECKING:
    from transformers import LogitsProcessor

Text = tuple[int, ...]


def processor(rules: Rules, model: LanguageModel, *, max_tokens: int = 256, pad: int | None = None) -> LogitsProcessor:
    """Rules as a logits processor, for `net.generate(..., logits_processor=LogitsProcessorList([...]))`.

    A row's scores become the changed log-probabilities, so that sampling draws from the rules' own law (that of
    `globalise=False`). What a rule remembers of a text is found again by the text itself, so beams may be reordered,
    copied and dropped; equal texts are worked out once. Rows that have written an end token are left alone. Make a new
    processor for each call of `generate`. Decoding with an assistant, which jumps several tokens, is refused.

    Args:
        rules: applied in order.
        model: the language model that the rules see, and that reads their other contexts.
        max_tokens: the most new tokens, for rules that have companions.
        pad: the token with which prompts are filled up on the left; it is taken away from what the rules see.

    Raises:
        MotesError: later, if it is used for another call or with an assistant, or prompts are filled up and `pad` is
            not given.
    """
    from transformers import LogitsProcessor

    chain_of = _Rows(as_rules(rules), model, max_tokens, pad)

    class Processor(LogitsProcessor):
        """See `processor`."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            return chain_of(input_ids, scores)

    return Processor()


class _Rows:
    """The rows of all prompts of one call of `generate`: a chain of rules a prompt. Mutable, as a cache."""

    def __init__(self, rules: Sequence[Rule], model: LanguageModel, max_tokens: int, pad: int | None):
        self.rules, self.model, self.max_tokens, self.pad = tuple(rules), model, max_tokens, pad
        self.start = self.reached = -1
        self.chains: dict[Text, Chain] = {}
        self.place: dict[Text, dict[Text, int]] = {}

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        if scores.shape != (len(tokens), self.model.vocabulary):
            raise ShapeError(
                f"{self.model.name} has {self.model.vocabulary} tokens, so scores must have the shape "
                f"{(len(tokens), self.model.vocabulary)}, not {tuple(scores.shape)}: pass the model that generates"
            )
        if self.start < 0:
            self._check_padding(tokens)
            self.start = tokens.shape[1]
        elif tokens.shape[1] != self.reached + 1:
            raise MotesError(
                f"a text of {tokens.shape[1]} tokens follows one of {self.reached}: make a new processor for each call "
                "of generate, and use no assistant model"
            )
        first = self.reached < 0
        self.reached = tokens.shape[1]
        groups: dict[Text, dict[Text, list[int]]] = {}
        for i, row in enumerate(tokens.tolist()):
            prompt, text = tuple(row[: self.start]), tuple(row[self.start :])
            if not any(token in self.model.end for token in text):
                groups.setdefault(prompt, {}).setdefault(text, []).append(i)
        out = scores.clone()
        for prompt, texts in groups.items():
            law = self._law(prompt, texts, scores, first).to(scores)
            for row, index in zip(law, texts.values(), strict=True):
                out[index] = row
        return out

    def _law(self, prompt: Text, texts: dict[Text, list[int]], scores: Tensor, first: bool) -> Tensor:
        """The changed law of each distinct text behind a prompt."""
        if first:
            self.chains[prompt] = Chain(self.rules, self.model, self._prompt(prompt), self.max_tokens)
        elif prompt not in self.chains:
            raise MotesError("a row has a prompt that was not there before: make a new processor for each call")
        else:
            parents = [self.place[prompt].get(text[:-1], -1) for text in texts]
            if min(parents) < 0:
                raise MotesError("a row goes on from a text that was not there before: make a new processor")
            self.chains[prompt].extend(torch.tensor(parents), torch.tensor([text[-1] for text in texts]))
        self.place[prompt] = {text: i for i, text in enumerate(texts)}
        given = scores[[index[0] for index in texts.values()]].detach().cpu().double()
        return self.chains[prompt](torch.log_softmax(given, -1))[0]

    def _check_padding(self, tokens: Tensor) -> None:
        """Prompts are not filled up with a token that was not named."""
        from motes.language.models.hugging_face import TransformersModel

        if self.pad is None and isinstance(self.model, TransformersModel):
            pad = self.model.tokenizer.pad_token_id
            runs = (tokens == (-1 if pad is None else pad)).int().cumprod(1).sum(1)
            if int(runs.min()) < int(runs.max()):  # one that begins every prompt may be a true beginning
                raise MotesError(
                    f"some prompts are filled up on the left with the token {pad}, which the rules would take for "
                    f"text: pass pad={pad} to processor"
                )

    def _prompt(self, prompt: Text) -> Tensor:
        at = 0
        while at < len(prompt) - 1 and prompt[at] == self.pad:
            at += 1
        return torch.tensor(prompt[at:], dtype=torch.int64)
