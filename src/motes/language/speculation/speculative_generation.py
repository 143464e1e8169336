"""Generation by rounds: a smaller model drafts, the model verifies, and the weights are those of single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.resampling import Scheme
from motes.errors import MotesError, check_name, check_whole
from motes.language.generation.frontier import BadLogits, Closed, Frontier, TextReader
from motes.language.generation.generation import Generation
from motes.language.generation.prefix import TokenSequences
from motes.language.generation.restoring import again, check_first, check_reward
from motes.language.generation.step_end import AfterText
from motes.language.models.model import LanguageModel
from motes.language.speculation import block, single
from motes.language.speculation.drafts import LEVIATHAN, Drafter, ModelDraft
from motes.language.speculation.prefetch import PrefetchedPrefixes
from motes.rng import Rng

SUN = cited("sun2024", "drafts accepted or refused together")
SCHEMES = {"single": single.verify, "block": block.verify}


class SpeculativeGeneration(FeynmanKac):
    """The texts of a `Generation`, several tokens a step: drawn by a smaller model, verified by the model in one call.

    In a round every particle draws up to k tokens from the smaller model's laws q, which the generation's rules change
    and its constraint holds as they do with the model's own laws. One call of the model gives its laws p behind each of
    them. `single.verify` or `block.verify` keeps some of the drafts and draws one more token, so that what has been
    written and what will be written have together the law of tokens drawn from p one by one. A particle's weight is
    multiplied by what a `Generation` multiplies it by, the masses of the rules and of the constraint along the tokens
    that it wrote. With one particle texts and weights have the law that they have in a `Generation`. With more of them
    the population is resampled between rounds, where texts differ in length, and not between tokens: any number of
    particles estimates the same normaliser without bias, and the same weighted law.

    What the law behind a round's last token keeps is only known with the next call, and so counts in the next round.
    Worth it where a call for several tokens costs about as much as a call for one, and the smaller model costs little
    and is often right.

    Args:
        generation: a `motes.Generation`, its steps single tokens. Its `steer` counts rounds.
        draft: the smaller model, with the same tokens.
        tokens: the most drafts a round, at least 1.
        scheme: "block", which accepts no fewer, or "single", token by token.

    Raises:
        MotesError: the draft has other tokens, or the generation has steps of text, looks ahead, or has a constraint
            whose tokens can only be tested one by one.

    Example:
        >>> import motes
        >>> model, small = (motes.language.TableModel(["a", "b", "."], torch.tensor(logits).expand(4, 3))
        ...                 for logits in ([0.0, 1.0, -1.0], [0.0, 0.5, -1.0]))
        >>> pairs = motes.Generation(model, "", constraint=motes.language.regex("(ab)+"), max_tokens=8)
        >>> run = motes.sample(SpeculativeGeneration(pairs, small), 100, seed=0, progress=False)
        >>> set(run.texts) <= {"ab", "abab", "ababab", "abababab", ""}
        True

    References:
        Leviathan, Kalman & Matias (2023), Fast inference from transformers via speculative decoding, ICML, algorithm 1.
        Sun, Mendlovic, Leviathan, Aharoni, Ro, Beirami & Suresh (2024), arXiv 2403.10444, algorithm 2.
    """

    generation: Generation
    tokens: int
    scheme: str

    def __init__(self, generation: Generation, draft: LanguageModel, *, tokens: int = 4, scheme: str = "block"):
        if not isinstance(generation, Generation):
            raise MotesError(f"what is to be drafted is a motes.Generation, not a {type(generation).__name__}")
        check_whole(1, tokens=tokens)
        check_name("scheme of verification", scheme, SCHEMES)
        ModelDraft(draft).check(generation.model)
        if draft.longest is not None and len(generation.prompt) + generation.max_tokens > draft.longest:
            raise MotesError(
                f"the draft model {draft.name} reads at most {draft.longest} tokens, and prompt and text have up to "
                f"{len(generation.prompt)} + {generation.max_tokens}: shorten them, or take another draft"
            )
        if isinstance(generation.step_end, AfterText) or generation.lookahead is not None:
            raise MotesError("a step is a round here: the generation can have neither `step` nor `lookahead`")
        constraint = generation.constraint
        if constraint is not None and not constraint.open(generation.model).full:
            raise MotesError(
                f"the tokens of the {constraint.kind} can only be tested one by one, and verification needs the mass "
                "of all that are allowed: leave the draft out"
            )
        self.generation, self.tokens, self.scheme = generation, tokens, scheme
        self.draft = draft
        self.quantity = generation.quantity  # pyright: ignore[reportAttributeAccessIssue]
        self.references = (*generation.references, SUN if scheme == "block" else LEVIATHAN)

    # ---------------------------------------------------------------- the three methods

    def init(self, rng: Rng, n: int) -> Particles:
        start = self.generation.init(rng, n)
        counts = {name: torch.zeros(n, dtype=torch.int64) for name in ("drafted", "accepted")}
        kept = ("tokens", "length", "finished", "provisional", "log_prob", "kept")
        x = {**{name: start.x[name] for name in kept}, **counts, "unread": torch.full((n,), -1, dtype=torch.int64)}
        big, small = self._ahead(start.x["frontier"].reader), self._open(self.draft)
        at = torch.zeros(n, dtype=torch.int64)
        x |= {"frontier": Frontier(at, big, big.version), "small": Frontier(at, small, small.version)}
        shared = {"first": start.shared["first"]}
        return Particles.start(x, start.log_weight, shared=shared, info={"finished": 0.0, "accepted": 0.0})

    def step(self, rng: Rng, particles: Particles) -> Particles:
        frontier, small = particles.x["frontier"], particles.x["small"]
        if not isinstance(frontier, Frontier) or not isinstance(small, Frontier) or frontier.stale or small.stale:
            particles = self.restore(particles)
            frontier, small = particles.x["frontier"], particles.x["small"]
        t = particles.t + 1
        x = {key: value.clone() if isinstance(value, Tensor) else value for key, value in particles.x.items()}
        ids = torch.nonzero(~x["finished"])[:, 0]
        if not len(ids):  # none that goes on was resampled
            paid, x["provisional"] = self._paid(particles, x, ~torch.isneginf(particles.log_weight))
            same = {"finished": 1.0, "accepted": share(x)}
            return particles.step(x, paid, shared=particles.shared, info=same)
        turn = Turn(ids, x["unread"][ids], x["length"][ids], self.generation.max_tokens - x["length"][ids])
        drafts, count, log_q = self._draft(rng, small, turn, t)
        seen = self._read(frontier, turn, drafts, count, t)
        log_p = torch.stack([*seen.log_prob, *[torch.zeros_like(log_q[:, 0])] * (log_q.shape[1] + 1 - seen.depths)], 1)
        accepted, token = SCHEMES[self.scheme](rng.at("verify"), ids, log_p, log_q, drafts, count)
        whole = torch.zeros_like(ids, dtype=torch.bool)  # complete with an accepted draft: nothing follows
        for j in range(drafts.shape[1]):
            last = (accepted == j + 1) & (count == j + 1)
            whole |= last & (self._ends(drafts[:, j]) | (turn.room == j + 1))
        token[whole] = -1
        gained = self._write(x, frontier.reader, turn, seen, drafts, accepted, token, whole)
        x["drafted"][ids] += count
        x["accepted"][ids] += accepted
        self._commit(x, frontier, small, turn, seen, drafts, accepted)
        potential = torch.zeros(particles.n, dtype=torch.float64)
        potential[ids] = gained
        alive = ~(torch.isneginf(potential) | torch.isneginf(particles.log_weight))
        paid, x["provisional"] = self._paid(particles, x, alive)
        info = {"finished": float(x["finished"].double().mean()), "accepted": share(x)}
        return particles.step(x, potential + paid, shared=particles.shared, info=info)

    def done(self, particles: Particles) -> bool:
        return self.generation.done(particles)

    # ---------------------------------------------------------------- their parts

    def _paid(self, before: Particles, x: dict[str, Any], alive: Tensor) -> tuple[Tensor, Tensor]:
        """What the round adds to the weights of the texts that it left, and what they then contain of guesses."""
        texts, was, t = TokenSequences.of(x), before.x["finished"], before.t + 1
        return self.generation.account.pay(texts, was, x["finished"], x["provisional"], alive, t)

    def _open(self, model: LanguageModel) -> TextReader:
        return self._ahead(self.generation.open(1, model))

    def _ahead(self, reader: TextReader) -> TextReader:
        """The same reader, at the prompt, with rows that share what they have in common."""
        inner = reader.prefixes.inner if isinstance(reader.prefixes, PrefetchedPrefixes) else reader.prefixes
        counts = {"calls": 0, "guessed": 0, "right": 0}
        reader.prefixes = PrefetchedPrefixes(
            inner, GivenDrafts(), self.tokens, self.generation.max_tokens, reader.model.end, counts
        )
        return reader

    def _ends(self, token: Tensor) -> Tensor:
        return torch.isin(token, torch.tensor(self.generation.model.end))

    def _draft(self, rng: Rng, small: Frontier, turn: Turn, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Drafts (M, L), how many of them count (M,), and the laws that they come from (M, L, V)."""
        reader, ids = small.reader, turn.ids
        reader.extend(small.row[ids], turn.unread)
        drafts, laws, count = [], [], torch.zeros_like(ids)
        going = torch.ones_like(ids, dtype=torch.bool)
        for j in range(self.tokens):
            if j:
                deeper(reader, torch.where(going, drafts[-1], -1))
            law = found(reader, turn, t)
            going = going & (turn.room > j) & ~torch.isneginf(law).all(1)
            token = torch.zeros_like(ids)
            if going.any():
                token[going] = rng.at("draft", inner=j).shard(ids[going]).categorical(law[going])
            drafts.append(token)
            laws.append(law)
            count += going
            going = going & ~self._ends(token)
            if not going.any():
                break
        return torch.stack(drafts, 1), count, torch.stack(laws, 1)

    def _read(self, big: Frontier, turn: Turn, drafts: Tensor, count: Tensor, t: int) -> DraftedTokens:
        """The model's laws before each draft and behind the last, by one call."""
        reader, ids = big.reader, turn.ids
        plan = drafter(reader).plan
        paths = [path[:c] for path, c in zip(drafts.tolist(), count.tolist(), strict=True)]
        plan[:] = paths
        reader.extend(big.row[ids], turn.unread)
        seen = DraftedTokens([], [], [])
        for j in range(drafts.shape[1] + 1):
            seen.log_prob.append(found(reader, turn, t))
            seen.kept.append(reader.law.log_mass)
            seen.raw.append(reader.rules.raw)
            if j == drafts.shape[1]:
                break
            reads = (count > j) & (turn.room > j + 1) & ~self._ends(drafts[:, j])
            if not reads.any():
                break
            plan[:] = [path[j + 1 :] for path in paths]
            deeper(reader, torch.where(reads, drafts[:, j], -1))
        plan.clear()
        return seen

    def _write(
        self,
        x: dict[str, Any],
        reader: TextReader,
        turn: Turn,
        seen: DraftedTokens,
        drafts: Tensor,
        accepted: Tensor,
        token: Tensor,
        whole: Tensor,
    ) -> Tensor:
        """The new tokens, and what the weights gain by them (M,)."""
        ids, gained = turn.ids, torch.zeros(len(turn.ids), dtype=torch.float64)
        for j in range(seen.depths):
            drawn = (accepted > j) | ((accepted == j) & ~whole)
            new = torch.where(accepted > j, drafts[:, min(j, drafts.shape[1] - 1)], token)
            new_mass = drawn if j else drawn & (turn.unread >= 0)  # the prompt's is in the weight already
            gained += torch.where(new_mass, seen.kept[j], 0.0)
            on = torch.nonzero(drawn & (new >= 0))[:, 0]
            i, at = ids[on], turn.length[on] + j
            x["tokens"][i, at] = new[on]
            x["log_prob"][i, at] = seen.raw[j][on, new[on]]
            x["kept"][i, at] = seen.kept[j][on]
        written = accepted + (token >= 0)
        x["length"][ids] = turn.length + written
        x["unread"][ids] = token
        last = torch.where(token >= 0, token, drafts.gather(1, (accepted - 1).clamp(min=0)[:, None])[:, 0])
        cut = (written > 0) & (turn.room == written) & ~self._ends(last)
        if reader.recogniser is not None and cut.any():
            row = seen.row(written - 1, turn)
            gained[cut] += torch.where(reader.recogniser.accepts(row[cut], last[cut]), 0.0, -torch.inf).double()
        dead = torch.isneginf(gained) | ((token < 0) & ~whole)
        x["finished"][ids] = whole | cut | dead | self._ends(token)
        return gained

    def _commit(
        self,
        x: dict[str, Any],
        frontier: Frontier,
        small: Frontier,
        turn: Turn,
        seen: DraftedTokens,
        drafts: Tensor,
        accepted: Tensor,
    ) -> None:
        """The rows of both models are those of the texts that go on, without their last token."""
        on = torch.nonzero(~x["finished"][turn.ids])[:, 0]
        n = len(x["finished"])
        if not len(on):
            x["frontier"], x["small"] = Closed(n), Closed(n)
            return
        at = torch.full((n,), -1, dtype=torch.int64)
        at[turn.ids[on]] = torch.arange(len(on))
        reader, lesser = frontier.reader, small.reader
        reader.extend(seen.row(accepted, turn)[on], torch.full_like(on, -1))
        # the last draft was not read by the smaller model
        depths = drafts.shape[1]
        unread = torch.where(accepted == depths, drafts[:, -1], -1)
        row = (depths - 1 - accepted).clamp(min=0) * len(turn.ids) + torch.arange(len(turn.ids))
        lesser.extend(row[on], unread[on])
        for each in (reader, lesser):
            if any(each.rules.remembers):  # it remembers what it was given where a token is drawn
                each.rules(each.log_prob())
        x["frontier"], x["small"] = Frontier(at, reader, reader.version), Frontier(at, lesser, lesser.version)

    # ---------------------------------------------------------------- around them

    def shows(self) -> str:
        return self.generation.shows()

    def view(self, particles: Particles) -> list[str]:
        return self.generation.view(particles)

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        return self.generation.resampled(rng, scheme, particles)

    def advice(self, particles: Particles) -> str:
        return self.generation.advice(particles)

    def progress(self, particles: Particles) -> float:
        return self.generation.progress(particles)

    def restore(self, particles: Particles) -> Particles:
        """Evaluate the unfinished texts again, without their unread tokens.

        Raises:
            FileError: the reward of a finished text, or the law of the first token, is not what it was.
        """
        x, n = particles.x, particles.n
        alive = ~x["finished"]
        check_reward(self.generation.account, particles)
        if not alive.any():
            return replace(particles, x={**x, "frontier": Closed(n), "small": Closed(n)})
        readers = self._open(self.generation.model), self._open(self.draft)
        check_first(readers[0], particles)
        read = {**x, "length": x["length"] - (x["unread"] >= 0).long()}
        frontier, small = (again(reader, read, alive) for reader in readers)
        return replace(particles, x={**x, "frontier": frontier, "small": small})

    def settings(self) -> dict[str, Any]:
        own = {"draft": self.draft.settings(), "tokens": self.tokens, "scheme": self.scheme}
        return {**self.generation.settings(), "drafted": own}


# -------------------------------------------------------------------- one round


@dataclass(frozen=True)
class Turn:
    """The M particles that go on: which they are, their last tokens that no model has read (-1: none), how many tokens
    they have, and how many more they may have, (M,) each."""

    ids: Tensor
    unread: Tensor
    length: Tensor
    room: Tensor


@dataclass(frozen=True)
class DraftedTokens:
    """What the model said at each depth of a round, 0 before the first draft: laws (M, V), masses (M,), own laws."""

    log_prob: list[Tensor]
    kept: list[Tensor]
    raw: list[Tensor]

    @property
    def depths(self) -> int:
        return len(self.log_prob)

    def row(self, depth: Tensor, turn: Turn) -> Tensor:
        """(M,) where each particle's text with `depth` drafts stands among the rows."""
        m = len(turn.ids)
        return (self.depths - 1 - depth).clamp(min=0) * m + torch.arange(m)


class GivenDrafts(Drafter):
    """Guesses that are drafts: those of the first rows, as they are set."""

    def __init__(self) -> None:
        self.plan: list[list[int]] = []

    def extend(self, parent: Tensor, token: Tensor) -> None:
        return

    def guess(self, rows: Sequence[int], most: Sequence[int]) -> list[list[int]]:
        if not self.plan:
            return [[] for _ in rows]
        return [self.plan[i][:k] for i, k in zip(rows, most, strict=True)]


def drafter(reader: TextReader) -> GivenDrafts:
    """Where the drafts of a reader are set."""
    assert isinstance(reader.prefixes, PrefetchedPrefixes) and isinstance(reader.prefixes.drafter, GivenDrafts)
    return reader.prefixes.drafter


def deeper(reader: TextReader, token: Tensor) -> None:
    """The first M rows with `token` (M,) behind them, -1 for none, and then all rows as they were."""
    m, rows = len(token), len(reader.prefixes.length)
    reader.extend(torch.cat([torch.arange(m), torch.arange(rows)]), torch.cat([token, torch.full((rows,), -1)]))


def found(reader: TextReader, turn: Turn, t: int) -> Tensor:
    """(M, V) the laws of the first M rows."""
    try:
        reader.law = reader.find_law(len(turn.ids))
    except BadLogits as error:
        raise error.about(reader.model.name, turn.ids[error.rows].tolist(), t) from error
    return reader.law.log_prob


def share(x: dict[str, Any]) -> float:
    """How many of the drafts so far were accepted."""
    return float(x["accepted"].sum() / x["drafted"].sum().clamp(min=1))
