"""Texts from a language model under rules, a constraint and a reward, as a Feynman-Kac model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.estimate.variance import StandardError
from motes.core.files.settings import digest
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.resampling import Scheme, tempered
from motes.core.resampling.designs.optimal import FEARNHEAD
from motes.core.resampling.designs.tempered import Anneal, choose
from motes.errors import EmptyConstraint, MotesError
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules, as_rules, check_arguments, check_step, encoded
from motes.language.generation.dead_ends import why
from motes.language.generation.equal_weights import no_spread, seen_by_few, unearned
from motes.language.generation.frontier import BadLogits, Closed, Front, Frontier
from motes.language.generation.lookahead import ahead, check_size, guides
from motes.language.generation.next_tokens import next_tokens
from motes.language.generation.potential import OnTokens, Reward, ask, due, reward_name
from motes.language.generation.preview import previewed
from motes.language.generation.restoring import restored
from motes.language.generation.sources import LEW, LOULA
from motes.language.models.model import LanguageModel, Message
from motes.rng import Rng

Boundary = str | Callable[[str], bool]
STRUCTURE = "structure"
BINDS = math.log(0.5)
"""Where a constraint leaves less of the mass than this, nats, its next tokens are looked at."""
LOST = 20.0
"""A text that has paid more than this within a part of the structure, nats, is not waited for until that ends."""
Draw = Callable[[Rng, Frontier, Tensor], tuple[Tensor, Tensor]]
"""How the next tokens of the particles (N,) bool come about: tokens (N,) and what the weights gain by it (N,)."""


class Generation(FeynmanKac):
    """Texts of a language model, properly weighted for what they must satisfy.

    A text y is a sequence of tokens that stops after the first end token, or after `max_tokens` tokens without one. Let
    p(y) be its probability under the model given the prompt. The weighted particles target

        p*(y) proportional to  p(y)  1[constraint accepts y]  exp(reward(y)),

    over token sequences (a string that can be spelled in several ways counts with each spelling). A text that is cut at
    `max_tokens` has weight zero unless the constraint accepts it as it is. The normaliser is
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
        rules: applied in order before the constraint, see `motes.language.rules`; or as text, "top_k(50), min_p(0.1)".
        constraint: what texts must satisfy, see `motes.language.constraints`; `a & b` is both. Where tokens can only be
            tested one by one, they are drawn by adaptive weighted rejection.
        reward: maps a list of texts to their log-potentials, a tensor (n,), nats; -inf forbids a text. `on_tokens`
            wraps a function of tokens, `reward_model` a model of transformers; a `Potential` also judges prefixes.
        max_tokens: the most tokens of a text.
        globalise: whether the rules' kept mass counts in the weights.
        chat: wrap the prompt in the model's chat template: True, False, or "auto" if there is one.
        steer: also ask the reward about unfinished texts every `steer` tokens, as a provisional weight that is taken
            back later: the target stays, the population is steered earlier. A text that is -inf as yet is left alone.
            With a twist, how often that one is asked; not with `step`, which says when by itself.
        twist: who is asked about unfinished texts in the reward's place (a twist: multiplied in, and taken back before
            the next); without `steer` after every token, or at the end of every step of text.
        step: what one step of the engine is: "token"; a string, such as a blank line, after which a step of text ends;
            or a function that says whether the text written since the last end is a whole step. The population is
            weighed and resampled only between steps. Steps of text differ in length. "auto" ends a step where the
            constraint says that a part of its structure ends (a member of an object, say), so that a text that lingers
            in a free string is not compared with one that has left it and paid for that; and after every token where
            the constraint knows no such places, or unfinished texts are judged.
        preview: where a constraint leaves less than half of the mass, this many next tokens are evaluated and
            chosen among by what the constraint leaves behind each; a few more texts to evaluate at such places. It
            finds that one token spells a way out and another the same characters in a way that the model never goes
            on from. None: never; not where tokens are tested one by one.
        anneal: resample by the weights to the power 1/T and leave the rest of them on the particles, see
            `motes.core.resampling.tempered`: a name, or a function of (ESS/N, progress) that returns T >=
        1. None is T = 1. lookahead: ask the twist (without one the reward) about this many random next tokens of every
            text, and choose among them with what it says, see `motes.language.generation.lookahead`; as many more
        texts to judge. max_refused: where tokens are tested one by one, a text is given up, with weight zero, after
            this many different next tokens were refused. The weights stay proper; None has no limit.

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
        Lew et al. (2023), arXiv 2306.03081, section 2; Loula et al. (2025), ICLR, section 2, twists and products.
        Pitt & Shephard (1999), JASA 94(446), section 3, for weighting before the draw.
    """

    quantity: ClassVar[str] = "log normaliser"

    def __init__(
        self,
        model: LanguageModel,
        prompt: str | Sequence[Message],
        *,
        rules: Rules = (),
        constraint: Constraint | None = None,
        reward: Reward | None = None,
        max_tokens: int = 128,
        globalise: bool = True,
        chat: bool | str = "auto",
        steer: int | None = None,
        twist: Reward | None = None,
        step: Boundary = "auto",
        anneal: str | Anneal | None = None,
        lookahead: int | None = None,
        preview: int | None = 4,
        max_refused: int | None = 512,
    ):
        self.rules = as_rules(rules)
        check_arguments(model, constraint, reward, max_tokens, steer, max_refused)
        self.model, self.constraint, self.lookahead = model, constraint, lookahead
        self.max_tokens, self.globalise, self.max_refused = max_tokens, globalise, max_refused
        self.reward, self.twist, self.steer = guides(reward, twist, steer, lookahead)
        self.pays_last: bool = self.twist is None and self.steer is None
        check_step(step, steer)
        if preview is not None:
            check_size(preview, "preview")
        self.preview, self.anneal = preview, choose(anneal)
        self.prompt: Tensor = encoded(model, prompt, chat, max_tokens)
        self.references = (LEW, LOULA) if constraint or reward or self.rules else ()
        self.references += () if lookahead is None else (FEARNHEAD,)
        # an empty constraint is found here and not in the middle of a run
        recogniser = None if constraint is None else constraint.open(model, max_tokens)
        if constraint is not None and reward is None and not (self.rules and globalise):
            self.quantity = constraint.quantity  # pyright: ignore[reportAttributeAccessIssue]
        self.boundary: Boundary | None = None if step in ("token", "auto") else step
        judged = self.twist is not None or self.steer is not None
        if step == "auto" and not judged and recogniser is not None and recogniser.marks() is not None:
            self.boundary = STRUCTURE

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
            "log_prob": torch.zeros(n, self.max_tokens, dtype=torch.float64),
            "kept": torch.zeros(n, self.max_tokens, dtype=torch.float64),
            "began": torch.zeros(n, dtype=torch.int64),
            "frontier": Frontier(torch.zeros(n, dtype=torch.int64), front, front.version),
        }
        shared = {"rows": torch.zeros(self.max_tokens, dtype=torch.int64), "first": front.law.log_prob[0].clone()}
        return Particles.start(x, weight, shared=shared, info={"evaluated": 1, "finished": 0.0})

    def step(self, rng: Rng, particles: Particles, draw: Draw | None = None) -> Particles:
        frontier = particles.x["frontier"]
        if not isinstance(frontier, Frontier) or frontier.stale:
            particles = self.restore(particles)
            frontier = particles.x["frontier"]
        x = {**particles.x, "frontier": frontier}
        potential, evaluated, rows = torch.zeros(particles.n, dtype=torch.float64), 0, particles.shared["rows"].clone()
        inside, inner, alive = ~x["finished"], 0, ~torch.isneginf(particles.log_weight)
        passed = self._marks(frontier)
        while inside.any():  # a token, or a step of text
            x, gained, count = self._token(rng.at("token", inner=inner), x, inside, draw)
            potential, evaluated, inner = potential + gained, evaluated + count, inner + 1
            alive = ~(torch.isneginf(potential) | torch.isneginf(particles.log_weight))
            x["finished"] = x["finished"] | ~alive
            inside = self._inside(x, inside, passed)
            if self.boundary is STRUCTURE:
                inside = inside & (potential > -LOST)
        if self.boundary is None:
            rows[particles.t] = len(x["frontier"].front.law.log_prob) if isinstance(x["frontier"], Frontier) else 0
        x["began"] = x["length"].clone()
        ended = alive & due(self.pays_last, particles.x["finished"], x["finished"])
        paid, x["provisional"] = self._pay(x, ended, ~x["finished"], particles.t + 1)
        info = {"evaluated": evaluated, "finished": float(x["finished"].double().mean())}
        return particles.step(x, potential + paid, shared={**particles.shared, "rows": rows}, info=info)

    def _token(
        self, rng: Rng, x: dict[str, Any], drawn: Tensor, draw: Draw | None
    ) -> tuple[dict[str, Any], Tensor, int]:
        """One more token for the particles `drawn` (N,): the new state, what their weights gain, the rows evaluated."""
        frontier: Frontier = x["frontier"]
        look, seen = self.lookahead if draw is None else None, 0
        if look is not None:
            token, potential = ahead(rng, look, self.reward, self.twist, x, drawn)
        elif draw is None and (bound := self._bound(x, drawn)).any():
            assert self.preview is not None
            token, potential, seen = previewed(rng, self.preview, frontier, bound, self.globalise)
            frontier = x["frontier"] = Frontier(frontier.row, frontier.front, frontier.front.version)
            if (free := drawn & ~bound).any():
                others, gained = self._draw(rng, frontier, free)
                token, potential = torch.where(free, others, token), torch.where(free, gained, potential)
        else:
            token, potential = (draw or self._draw)(rng, frontier, drawn)
        ids = torch.nonzero(drawn)[:, 0]
        at, row = x["length"][ids], frontier.row[ids]
        tokens, log_prob, kept = x["tokens"].clone(), x["log_prob"].clone(), x["kept"].clone()
        tokens[ids, at] = token[ids].clamp(min=0)
        log_prob[ids, at] = frontier.front.rules.raw[row, token[ids].clamp(min=0)]
        # what a look ahead gains is not the token's own, but that none was found is kept
        own = potential[ids] if look is None and not seen else torch.where(token[ids] < 0, -torch.inf, 0.0)
        kept[ids, at] = self._weight(frontier.front)[row] + own
        length = x["length"] + drawn
        dead = torch.isneginf(potential)
        ended = drawn & torch.isin(token, torch.tensor(self.model.end))
        cut = drawn & ~ended & ~dead & (length == self.max_tokens)
        potential = potential + self._cut_potential(frontier, token, cut)
        going = drawn & ~ended & ~cut & ~dead
        stays = ~drawn & ~x["finished"]
        after, evaluated = Closed(len(going)), seen
        if (going | stays).any():
            after, new = frontier.extend(token, going, int(length.max()), stays)
            evaluated += new
        cell = x["row"].clone()
        if isinstance(after, Frontier):
            potential[going] += self._weight(after.front)[after.row[going]]
            cell[going, length[going] - 1] = after.row[going].to(torch.int32)
        x = {**x, "tokens": tokens, "length": length, "row": cell, "log_prob": log_prob, "kept": kept}
        return {**x, "finished": ~going & ~stays, "frontier": after}, potential, evaluated

    def _marks(self, frontier: Frontier | Closed) -> Tensor | None:
        """(N,) the structural boundaries that each text has passed, where steps end with them."""
        if self.boundary is not STRUCTURE or isinstance(frontier, Closed) or frontier.front.recogniser is None:
            return None
        marks = frontier.front.recogniser.marks()
        return None if marks is None else marks[frontier.row.clamp(min=0)]

    def _inside(self, x: dict[str, Any], inside: Tensor, passed: Tensor | None) -> Tensor:
        """(N,) the particles that have not come to the end of their step; `passed` (N,) were their marks before it."""
        inside = inside & ~x["finished"]
        if self.boundary is None:
            return torch.zeros_like(inside)
        if self.boundary is STRUCTURE:
            marks = self._marks(x["frontier"])
            return torch.zeros_like(inside) if marks is None or passed is None else inside & (marks == passed)
        inside = inside.clone()
        for i in torch.nonzero(inside)[:, 0].tolist():
            text = self.model.decode(x["tokens"][i, int(x["began"][i]) : int(x["length"][i])].tolist())
            inside[i] = not (self.boundary in text if isinstance(self.boundary, str) else self.boundary(text))
        return inside

    def _bound(self, x: dict[str, Any], drawn: Tensor) -> Tensor:
        """(N,) the particles among `drawn` whose next token is chosen by what stands behind it."""
        front = x["frontier"].front
        if self.preview is None or front.recogniser is None or not front.recogniser.full:
            return torch.zeros_like(drawn)
        kept = front.law.kept_by_constraint[x["frontier"].row.clamp(min=0)]
        return drawn & (kept < BINDS) & ~torch.isneginf(kept) & (x["length"] + 1 < self.max_tokens)

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

    def _draw(self, rng: Rng, frontier: Frontier, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) the next token of the particles `drawn`, -1 for others and in a dead end; the weights gained (N,)."""
        return next_tokens(rng, frontier, drawn, self.max_refused)

    def _cut_potential(self, frontier: Frontier, token: Tensor, cut: Tensor) -> Tensor:
        """(N,) zero, and -inf for texts cut at `max_tokens` that the constraint does not accept."""
        potential = torch.zeros(len(token), dtype=torch.float64)
        recogniser = frontier.front.recogniser
        if recogniser is not None and cut.any():
            accepted = recogniser.accepts(frontier.row[cut], token[cut])
            potential[cut] = torch.where(accepted, 0.0, -torch.inf).to(torch.float64)
        return potential

    def _pay(self, x: dict[str, Any], ended: Tensor, going: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """What the reward adds to the log-weights (N,), and the provisional reward (N,) that they now contain."""
        before = now = x["provisional"]
        guided = going & (self.boundary is not None or (self.steer is not None and t % self.steer == 0))
        for judge, asked, what in ((self.reward, ended, "reward"), (self.twist, guided, "twist")):
            if what == "reward" and judge is None and self.twist is not None:
                now = torch.where(asked, 0.0, now)  # what a twist alone had lent is taken back
            if judge is None or not asked.any():
                continue
            index = torch.nonzero(asked)[:, 0].tolist()
            value = torch.zeros_like(now)
            value[asked] = self._ask(judge, x, index, t, what)
            # an unfinished text that is worth nothing yet may end well, and a weight of zero could not be taken back
            asked = asked & ~(torch.isneginf(value) & ~ended)
            now = torch.where(asked, value, now)
        return now - before, torch.where(torch.isneginf(now), 0.0, now)

    def _ask(self, judge: Reward, x: dict[str, Any], index: list[int], t: int, what: str = "reward") -> Tensor:
        texts = [self._text(x, i) for i in index]
        return ask(judge, texts, [self._own(x, i) for i in index] if isinstance(judge, OnTokens) else (), t, what)

    def _own(self, x: dict[str, Any], i: int) -> Tensor:
        """The tokens of a text without its end token."""
        tokens = x["tokens"][i, : int(x["length"][i])]
        return tokens[:-1] if len(tokens) and int(tokens[-1]) in self.model.end else tokens

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        if self.anneal is None:
            return super().resampled(rng, scheme, particles)
        heat = self.anneal(particles.ess / particles.n, self.progress(particles))
        if not heat >= 1:
            raise MotesError(f"anneal must return a T of at least 1, not {heat!r} (t={particles.t})")
        order = self.order(particles) if scheme.needs_order else None
        index, left = tempered(rng, scheme, particles.log_weight, heat, order=order)
        return replace(particles.resampled(index), log_weight=left)

    def _text(self, x: dict[str, Any], i: int) -> str:
        return self.model.decode(self._own(x, i).tolist())

    # ---------------------------------------------------------------- around them

    def shows(self) -> str:
        return "texts"

    def view(self, particles: Particles) -> list[str]:
        """The texts, without their end token."""
        return [self._text(particles.x, i) for i in range(particles.n)]

    def advice(self, particles: Particles) -> str:
        if self.constraint is None:
            return super().advice(particles)
        said = why(particles, self.model, self.constraint, self.max_tokens, self.max_refused)
        return said or super().advice(particles)

    def standard_error(self, particles: Particles) -> StandardError | None:
        return no_spread(self, particles) or seen_by_few(self, particles)

    def remarks(self, particles: Particles) -> list[str]:
        return unearned(self, particles)

    def progress(self, particles: Particles) -> float:
        return 1.0 if self.done(particles) else int(particles.x["length"].max()) / self.max_tokens

    def restore(self, particles: Particles) -> Particles:
        """Evaluate the unfinished texts again, see `motes.language.generation.restoring`."""
        return restored(self, particles)

    def settings(self) -> dict[str, Any]:
        return {
            **self.model.settings(),
            "prompt": digest(self.prompt),
            "max_tokens": self.max_tokens,
            "rules": [rule.settings() for rule in self.rules],
            "constraint": None if self.constraint is None else self.constraint.settings(),
            "reward": reward_name(self.reward),
            "globalise": self.globalise,
            "steer": self.steer,
            "twist": reward_name(self.twist),
            "step": reward_name(self.boundary) if callable(self.boundary) else self.boundary or "token",
            "anneal": reward_name(self.anneal),
            "lookahead": self.lookahead,
            "preview": self.preview,
            "max_refused": self.max_refused,
        }
