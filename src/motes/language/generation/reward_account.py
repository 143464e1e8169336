"""What texts are paid: the reward of finished ones, and what a twist lends unfinished ones and takes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError, check_whole
from motes.language.constraint import distinct
from motes.language.generation.frontier import TextReader
from motes.language.generation.potential import OnTokens, Potential, Reward, ask
from motes.language.generation.prefix import TokenSequences
from motes.language.models.model import LanguageModel


@dataclass(frozen=True)
class RewardAccount:
    """Who judges texts, when they are asked, and what that adds to the log-weights.

    Attributes:
        model: writes the texts as strings.
        reward: of finished texts; None: 0.
        twist: of unfinished texts; None: they are not asked about.
        steer: the number of steps between two times at which the twist is asked; None: it is not.
    """

    model: LanguageModel
    reward: Reward | None
    twist: Reward | None
    steer: int | None

    @property
    def pays_last(self) -> bool:
        """Whether rewards come once all texts have ended.

        Paid as texts end, they would count against those that have not ended and may earn them too; with a twist,
        unfinished texts are asked about as well.
        """
        return self.twist is None

    def pay(
        self, texts: TokenSequences, before: Tensor, now: Tensor, lent: Tensor, alive: Tensor, t: int
    ) -> tuple[Tensor, Tensor]:
        """What step `t` adds to the log-weights (N,), and the provisional reward (N,) that they then contain, nats.

        Args:
            texts: of the particles, after the step.
            before, now: (N,) bool, whether they were finished before it and are now.
            lent: (N,) float64, the provisional reward that the weights contain.
            alive: (N,) bool, of positive weight.
        """
        ended = alive & (now.all().expand_as(now) if self.pays_last else now & ~before)
        guided = ~now if self.steer is not None and t % self.steer == 0 else torch.zeros_like(now)
        worth = lent
        for judge, asked, what in ((self.reward, ended, "reward"), (self.twist, guided, "twist")):
            if what == "reward" and judge is None and self.twist is not None:
                worth = torch.where(asked, 0.0, worth)  # what a twist alone had lent is taken back
            if judge is None or not asked.any():
                continue
            value = torch.zeros_like(worth)
            value[asked] = self.ask(judge, texts, torch.nonzero(asked)[:, 0].tolist(), t, what)
            # an unfinished text that is worth nothing yet may end well, and a weight of zero could not be taken back
            worth = torch.where(asked & ~(torch.isneginf(value) & ~ended), value, worth)
        return worth - lent, torch.where(torch.isneginf(worth), 0.0, worth)

    def ask(self, judge: Reward, texts: TokenSequences, index: list[int], t: int, what: str = "reward") -> Tensor:
        """What a judge says of the texts `index`, (n,) float64, nats, checked."""
        return self._asked(judge, [texts.own(i, self.model.end) for i in index], t, what)

    def worth(
        self, reader: TextReader, texts: TokenSequences, row: Tensor, token: Tensor, before: Tensor, t: int
    ) -> Tensor:
        """What each of m texts is worth with its next token behind it, before the model is asked about it.

        The reward if the token ends the text or is its last one, else the twist; -inf where the constraint does not
        accept it. An unfinished text that the twist finds worth -inf may yet end well: it stays at `before`. Every
        distinct text is asked about once.

        Args:
            reader: the rows that the texts stand in.
            texts: without the token.
            row: (m,) where they stand.
            token: (m,) int64.
            before: (m,) what they were worth without it; without a twist unfinished ones still are.
            t: the step, for messages.
        """
        tokens, length = texts.tokens, texts.length
        ended = torch.isin(token, torch.tensor(reader.model.end))
        cut = ~ended & (length + 1 == tokens.shape[1])
        alive = torch.ones_like(ended)
        if reader.recogniser is not None:
            if not reader.recogniser.full:
                alive = reader.recogniser.test(row, token)
            last = alive & cut
            if last.any():
                alive[last] = reader.recogniser.accepts(row[last], token[last])
        over = ended | cut
        value = torch.where(over, 0.0, before)
        for judge, asked, what in ((self.reward, over & alive, "reward"), (self.twist, ~over & alive, "twist")):
            if judge is None or not asked.any():
                continue
            index = torch.nonzero(asked)[:, 0]
            pairs, which = distinct(row[index], token[index])
            first = torch.zeros(len(pairs), dtype=torch.int64)
            first[which] = index  # any of the equal ones
            after = torch.where(ended, 0, 1).tolist()  # an end token is not shown
            own = [torch.cat([tokens[i, : int(length[i])], token[i : i + after[i]]]) for i in first.tolist()]
            said = self._asked(judge, own, t, what)[which]
            value[index] = torch.where(torch.isneginf(said) & ~over[index], before[index], said)
        return value.masked_fill(~alive, -torch.inf)

    def _asked(self, judge: Reward, own: Sequence[Tensor], t: int, what: str) -> Tensor:
        texts = [self.model.decode(tokens.tolist()) for tokens in own]
        return ask(judge, texts, own if isinstance(judge, OnTokens) else (), t, what)


def guides(
    reward: Reward | Potential | None, twist: Reward | None, steer: int | None, lookahead: int | None = None
) -> tuple[Reward | None, Reward | None, int | None]:
    """Who judges finished texts, who unfinished ones, and after how many tokens.

    Raises:
        MotesError: the twist is no function, there is no reward or twist to ask on the way or about tokens ahead.
    """
    if steer is not None and reward is None and twist is None:
        raise MotesError("steer asks about unfinished texts, and there is nothing to ask: give a reward or a twist")
    if isinstance(reward, Potential):
        reward, twist = reward.complete, twist or reward.prefix
    if twist is not None and not callable(twist):
        raise MotesError(f"twist must be a function of a list of texts, not {type(twist).__name__}")
    if lookahead is not None:
        check_whole(1, lookahead=lookahead)
        if reward is None and twist is None:
            raise MotesError("lookahead needs a reward or a twist to ask")
        steer = steer or 1
    twist = twist or (reward if steer else None)
    return reward, twist, 1 if twist is not None and steer is None else steer
