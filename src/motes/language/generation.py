"""Texts from a language model under rules, a constraint and a reward, as a Feynman-Kac model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.core.errors import EmptyConstraint, FileError, MotesError, ShapeError, name_particles
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.language.constraint import Constraint
from motes.language.frontier import BadLogits, Closed, Front, Frontier
from motes.language.model import LanguageModel, Message
from motes.language.rule import Rule
from motes.rng import Rng

Reward = Callable[[list[str]], Tensor]

LEW = Reference(
    "lew2023",
    "Lew, Zhi-Xuan, Grand, Mansinghka",
    2023,
    "Sequential Monte Carlo steering of large language models using probabilistic programs",
    "arXiv 2306.03081",
    "weighted generation under a constraint",
)
LOULA = Reference(
    "loula2025",
    "Loula, LeBrun, Du, Lipkin, Pasti, Grand, Liu, Emara, Freedman, Eisner, Cotterell, Mansinghka, Lew, Vieira, "
    "O'Donnell",
    2025,
    "Syntactic and semantic control of large language models via sequential Monte Carlo",
    "ICLR 2025",
    "the mass kept by a constraint as the weight",
)


class Generation(FeynmanKac):
    """Texts of a language model, properly weighted for what they must satisfy.

    A text y is a sequence of tokens that stops after the first end token, or after `max_tokens` tokens without one. Let
    p(y) be its probability under the model given the prompt. The weighted particles target

        p*(y) proportional to  p(y)  1[constraint accepts y]  exp(reward(y)),

    over token sequences (a string that can be spelled in several ways counts with each spelling). A text that is cut at
    `max_tokens` has weight zero unless the constraint accepts it as it stands. The normaliser is
    Z = E_p[1[accepted] exp(reward)]: without a reward, the probability that the model's own reply is valid.

    Tokens are drawn from the law that the rules and the constraint leave, and the weight is the mass that they drop,
    so the result is not the law that masking alone gives (which multiplies p(y) by one over the mass kept on the way).
    With `globalise=True` rules change the law of whole texts: p(y) becomes p(y) 1[each token in its kept set] for
    truncations, and the product of p(token)^(1/T) for a temperature. With `globalise=False` the weights leave the
    rules' masses out: p(y) becomes the product of the rules' own renormalised next-token laws, which is what other
    libraries sample.

    The weight of a prefix contains the mass that its next token's law keeps, so that resampling acts on it before that
    token is drawn.

    Args:
        model: from `motes.language.load`, or a `TableModel`.
        prompt: a text, or chat messages `[{"role": "user", "content": ...}]`.
        rules: applied in order before the constraint, see `motes.language.temperature` and `nucleus`.
        constraint: from `motes.language.regex`, `json_schema` or `grammar`.
        reward: maps a list of texts to their log-potentials, a tensor (n,), nats; -inf forbids a text.
        max_tokens: the most tokens of a text.
        globalise: whether the rules' kept mass counts in the weights.
        chat: wrap the prompt in the model's chat template: True, False, or "auto" if there is one.
        steer: also ask the reward about unfinished texts every so many tokens, as a provisional weight that is taken
            back later: the target stays, the population is steered earlier. A text that is -inf as yet is left alone.

    Raises:
        EmptyConstraint: nothing can satisfy the constraint.
        MotesError: the prompt is too long, or an argument is of the wrong kind.

    Example:
        >>> import motes, torch
        >>> model = motes.language.TableModel(["a", "b", "."], torch.zeros(4, 3))
        >>> pairs = motes.Generation(model, "", constraint=motes.language.regex("(ab)+"), max_tokens=8)
        >>> run = motes.sample(pairs, 100, seed=0, progress=False)
        >>> set(run.texts) <= {"ab", "abab", "ababab", "abababab", ""}
        True

    References:
        Lew et al. (2023), arXiv 2306.03081, section 2; Loula et al. (2025), ICLR, section 2.
        Pitt & Shephard (1999), JASA 94(446), section 3, for weighting before the draw.
    """

    domain: ClassVar[str] = "language"
    quantity: ClassVar[str] = "log normaliser"

    def __init__(
        self,
        model: LanguageModel,
        prompt: str | Sequence[Message],
        *,
        rules: Sequence[Rule] = (),
        constraint: Constraint | None = None,
        reward: Reward | None = None,
        max_tokens: int = 128,
        globalise: bool = True,
        chat: bool | str = "auto",
        steer: int | None = None,
    ):
        self.rules = (rules,) if isinstance(rules, Rule) else tuple(rules)
        check_arguments(model, self.rules, constraint, reward, max_tokens, steer)
        self.model, self.constraint, self.reward = model, constraint, reward
        self.max_tokens, self.globalise, self.steer = max_tokens, globalise, steer
        self.prompt = model.encode(prompt, chat)
        self.references = (LEW, LOULA) if constraint or reward or self.rules else ()
        if constraint is not None and reward is None and not (self.rules and globalise):
            self.quantity = "log P(valid)"  # pyright: ignore[reportAttributeAccessIssue]
        if constraint is not None:
            constraint.open(model)  # an empty constraint is found here and not in the middle of a run

    # ---------------------------------------------------------------- the three methods

    def init(self, rng: Rng, n: int) -> Particles:
        front = self._open(n)
        weight = self._weight(front)[0].expand(n).clone()
        if torch.isneginf(weight[0]):
            raise EmptyConstraint(
                f"no first token is left after the rules {[r.settings() for r in self.rules]} and the constraint: what "
                "the rules keep and what the constraint allows have nothing in common. Weaken the rules"
            )
        x = {
            "tokens": torch.zeros(n, self.max_tokens, dtype=torch.int64),
            "length": torch.zeros(n, dtype=torch.int64),
            "finished": torch.zeros(n, dtype=torch.bool),
            "provisional": torch.zeros(n, dtype=torch.float64),
            "row": torch.full((n, self.max_tokens), -1, dtype=torch.int32),
            "frontier": Frontier(torch.zeros(n, dtype=torch.int64), front, front.version),
        }
        shared = {"rows": torch.zeros(self.max_tokens, dtype=torch.int64), "first": front.law.log_prob[0].clone()}
        return Particles.start(x, weight, shared=shared, info={"evaluated": 1, "finished": 0.0})

    def step(self, rng: Rng, particles: Particles) -> Particles:
        frontier = particles.x["frontier"]
        if not isinstance(frontier, Frontier) or frontier.stale:
            particles = self.restore(particles)
            frontier = particles.x["frontier"]
        x, t = particles.x, particles.t
        drawn = ~x["finished"]
        token = self._draw(rng.at("token"), frontier, drawn)
        tokens = x["tokens"].clone()
        tokens[drawn, t] = token[drawn]
        length = x["length"] + drawn
        ended = drawn & torch.isin(token, torch.tensor(self.model.end))
        cut = drawn & ~ended & (length == self.max_tokens)
        potential = self._cut_potential(frontier, token, cut)
        going = drawn & ~ended & ~cut
        frontier, evaluated = self._extend(frontier, token, going, t + 1)
        row, rows = x["row"].clone(), particles.shared["rows"].clone()
        if isinstance(frontier, Frontier):
            potential[going] = self._weight(frontier.front)[frontier.row[going]]
            row[going, t] = frontier.row[going].to(torch.int32)
            rows[t] = evaluated
        dead = torch.isneginf(potential) | torch.isneginf(particles.log_weight)
        reached = {"tokens": tokens, "length": length}
        paid, provisional = self._pay(reached, x["provisional"], (ended | cut) & ~dead, going & ~dead, t + 1)
        x = {
            **reached,
            "finished": ~going | dead,
            "provisional": provisional,
            "row": row,
            "frontier": frontier,
        }
        info = {"evaluated": evaluated, "finished": float(x["finished"].double().mean())}
        return particles.step(x, potential + paid, shared={**particles.shared, "rows": rows}, info=info)

    def done(self, particles: Particles) -> bool:
        return bool(particles.x["finished"].all())

    # ---------------------------------------------------------------- their parts

    def _open(self, n: int) -> Front:
        try:
            return Front(self.model, self.prompt, self.max_tokens, self.rules, self.constraint)
        except BadLogits as error:
            raise error.about(self.model.name, range(n), 0) from error

    def _weight(self, front: Front) -> Tensor:
        """(A,) the log of the mass that each row's law keeps, as far as it counts."""
        kept = front.law.kept_by_constraint
        return kept + front.law.kept_by_rules if self.globalise else kept

    def _draw(self, rng: Rng, frontier: Frontier, drawn: Tensor) -> Tensor:
        """(N,) the next token of each unfinished particle; -1 for the others."""
        token = torch.full((len(drawn),), -1, dtype=torch.int64)
        law = frontier.front.law.log_prob
        for ids in torch.nonzero(drawn)[:, 0].split(max(1, 2**24 // law.shape[1])):
            token[ids] = rng.shard(ids).categorical(law[frontier.row[ids]])
        return token

    def _cut_potential(self, frontier: Frontier, token: Tensor, cut: Tensor) -> Tensor:
        """(N,) zero, and -inf for texts cut at `max_tokens` that the constraint does not accept."""
        potential = torch.zeros(len(token), dtype=torch.float64)
        recogniser = frontier.front.recogniser
        if recogniser is not None and cut.any():
            accepted = recogniser.accepts(frontier.row[cut], token[cut])
            potential[cut] = torch.where(accepted, 0.0, -torch.inf).to(torch.float64)
        return potential

    def _extend(self, frontier: Frontier, token: Tensor, going: Tensor, t: int) -> tuple[Frontier | Closed, int]:
        if not going.any():
            return Closed(len(going)), 0
        return frontier.extend(token, going, t)

    def _pay(
        self, x: dict[str, Tensor], before: Tensor, finished: Tensor, going: Tensor, t: int
    ) -> tuple[Tensor, Tensor]:
        """What the reward adds to the log-weights (N,), and the provisional reward (N,) that they now contain."""
        asked = finished | (going if self.steer and t % self.steer == 0 else torch.zeros_like(going))
        if self.reward is None or not asked.any():
            return torch.zeros_like(before), before
        index = torch.nonzero(asked)[:, 0].tolist()
        texts = [self._text(x, i) for i in index]
        value = self.reward(texts)
        if not isinstance(value, Tensor) or value.shape != (len(texts),):
            what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(f"the reward of {len(texts)} texts must be a tensor ({len(texts)},), not {what} (t={t})")
        now = before.clone()
        now[asked] = value.detach().to("cpu", torch.float64)
        # an unfinished text that is worth nothing yet may still end well, and a weight of zero could not be taken back
        now = torch.where(torch.isneginf(now) & ~finished, before, now)
        return now - before, torch.where(torch.isneginf(now), 0.0, now)

    def _text(self, x: dict[str, Tensor], i: int) -> str:
        tokens = x["tokens"][i, : int(x["length"][i])].tolist()
        return self.model.decode(tokens[:-1] if tokens and tokens[-1] in self.model.end else tokens)

    # ---------------------------------------------------------------- around them

    def view(self, particles: Particles) -> list[str]:
        """The texts, without their end token."""
        return [self._text(particles.x, i) for i in range(particles.n)]

    def progress(self, particles: Particles) -> float:
        return 1.0 if self.done(particles) else particles.t / self.max_tokens

    def restore(self, particles: Particles) -> Particles:
        """Evaluate the unfinished texts again, token by token, each in the row and the batch that it had.

        The logits come out bit for bit as they were if the model's arithmetic for a row does not depend on what stands
        in the other rows of a batch of the same size (mixtures of experts with a capacity are the exception).

        Raises:
            FileError: the reward of a finished text, or the law of the first token, is not what it was.
        """
        x, n = particles.x, particles.n
        alive = ~x["finished"]
        self._check_reward(particles)
        if not alive.any():
            return with_frontier(particles, Closed(n))
        front = self._open(n)
        if not torch.allclose(front.law.log_prob[0], particles.shared["first"], rtol=1e-3, atol=1e-3):
            raise FileError(
                f"the law of the first token is not what it was when the run was saved: {self.model.name} has changed, "
                "or what its rules or its constraint mean. Resume with the model that began the run"
            )
        at = torch.zeros(n, dtype=torch.int64)
        for j in range(particles.t):
            rows = int(particles.shared["rows"][j])
            parent, token = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.int64)
            now = x["row"][:, j].to(torch.int64)
            parent[now[alive]], token[now[alive]] = at[alive], x["tokens"][alive, j]
            front.replay(parent, token)
            at = now
        at = torch.where(alive, at, -1)
        texts = {int(at[i]): x["tokens"][i, : particles.t].tolist() for i in torch.nonzero(alive)[:, 0].tolist()}
        front.reopen(texts)
        return with_frontier(particles, Frontier(at, front, front.version))

    def _check_reward(self, particles: Particles) -> None:
        """The reward says of the finished texts what it said before the run was saved."""
        x = particles.x
        ended = x["finished"] & ~torch.isneginf(particles.log_weight)
        index = torch.nonzero(ended)[:, 0].tolist()
        if self.reward is None or not index:
            return
        now = self.reward([self._text(x, i) for i in index]).detach().to("cpu", torch.float64)
        bad = ~torch.isclose(now, x["provisional"][ended], rtol=1e-3, atol=1e-3)
        if bad.any():
            which = name_particles([index[j] for j in torch.nonzero(bad)[:, 0].tolist()])
            raise FileError(
                f"the reward of {which} is not what it was when the run was saved: resume with the reward that began it"
            )

    def settings(self) -> dict[str, Any]:
        return {
            **self.model.settings(),
            "prompt": hashlib.sha256(self.prompt.numpy().tobytes()).hexdigest()[:16],
            "max_tokens": self.max_tokens,
            "rules": [rule.settings() for rule in self.rules],
            "constraint": None if self.constraint is None else self.constraint.settings(),
            "reward": None if self.reward is None else getattr(self.reward, "__name__", type(self.reward).__name__),
            "globalise": self.globalise,
            "steer": self.steer,
        }


def with_frontier(particles: Particles, frontier: Frontier | Closed) -> Particles:
    return replace(particles, x={**particles.x, "frontier": frontier})


def check_arguments(
    model: object, rules: Sequence[object], constraint: object, reward: object, max_tokens: object, steer: object
) -> None:
    """Every argument of `Generation` is of its kind, or an error says what belongs there."""
    if not isinstance(model, LanguageModel):
        raise MotesError(f"model must come from motes.language.load, or be a TableModel, not {type(model).__name__}")
    for rule in rules:
        if not isinstance(rule, Rule):
            raise MotesError(f"rules are made by motes.language.temperature, nucleus or top_k; {rule!r} is none")
    if constraint is not None and not isinstance(constraint, Constraint):
        raise MotesError(
            f"a constraint is made by motes.language.regex, json_schema or grammar; {constraint!r} is none"
        )
    if reward is not None and not callable(reward):
        raise MotesError(f"reward must be a function of a list of texts, not {type(reward).__name__}")
    for name, value in (("max_tokens", max_tokens), ("steer", 1 if steer is None else steer)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise MotesError(f"{name} must be a whole number of at least 1, not {value!r}")
