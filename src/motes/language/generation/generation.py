"""Texts from a language model under rules, a constraint and a reward, as a Feynman-Kac model."""

from __future__ import annotations

from collections.abc import Sequence
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
from motes.errors import EmptyConstraint, MotesError, check_whole
from motes.language.constraint import Constraint
from motes.language.generation.annealing import Anneal, choose
from motes.language.generation.arguments import Rules, as_rules, check_arguments, check_step, encoded
from motes.language.generation.dead_ends import why
from motes.language.generation.equal_weights import no_spread, reward_remarks, seen_by_few
from motes.language.generation.frontier import Frontier, TextReader, open_reader
from motes.language.generation.potential import Reward, reward_name
from motes.language.generation.prefix import PrefixState, TokenSequences
from motes.language.generation.proposals.lookahead import Lookahead
from motes.language.generation.proposals.next_tokens import FromLaw, Propose
from motes.language.generation.proposals.preview import Preview
from motes.language.generation.restoring import restored
from motes.language.generation.reward_account import RewardAccount, guides
from motes.language.generation.sources import LEW, LOULA
from motes.language.generation.step_end import AfterToken, Boundary, StepEnd, choose_end
from motes.language.generation.token_step import write
from motes.language.models.model import LanguageModel, Message
from motes.rng import Rng


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
            `motes.core.resampling.tempered`: a name, or a function of (ESS/N, progress) that returns T >= 1; None is 1.
        lookahead: ask the twist (without one the reward) about this many random next tokens of every text, and choose
            among them with what it says, see `motes.language.generation.proposals.lookahead`; as many more texts to
            judge.
        max_refused: where tokens are tested one by one, a text is given up, with weight zero, after this many
            different next tokens were refused. The weights stay proper; None has no limit.

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
        check_step(step, steer)
        if preview is not None:
            check_whole(1, preview=preview)
        self.preview, self.anneal = preview, choose(anneal)
        self.prompt: Tensor = encoded(model, prompt, chat, max_tokens)
        self.references = (LEW, LOULA) if constraint or reward or self.rules else ()
        self.references += () if lookahead is None else (FEARNHEAD,)
        # an empty constraint is found here and not in the middle of a run
        recogniser = None if constraint is None else constraint.open(model, max_tokens)
        if constraint is not None and reward is None and not (self.rules and globalise):
            self.quantity = constraint.quantity  # pyright: ignore[reportAttributeAccessIssue]
        self.step_end: StepEnd = choose_end(step, model, recogniser, judged=self.twist is not None)

    # ---------------------------------------------------------------- its parts

    @property
    def proposal(self) -> Propose:
        """Draws next tokens."""
        if self.lookahead is not None:
            return Lookahead(self.lookahead, self.account)
        law = FromLaw(self.max_refused)
        return law if self.preview is None else Preview(self.preview, law)

    @property
    def account(self) -> RewardAccount:
        """Says what reward and twist add to the weights."""
        return RewardAccount(self.model, self.reward, self.twist, self.steer)

    def open(self, n: int, model: LanguageModel | None = None) -> TextReader:
        """N empty texts of this task, or of another model at the same task."""
        model = model or self.model
        return open_reader(model, self.prompt, self.max_tokens, self.rules, self.constraint, self.globalise, n)

    # ---------------------------------------------------------------- the three methods

    def init(self, rng: Rng, n: int) -> Particles:
        reader = self.open(n)
        weight = reader.law.log_mass.expand(n).clone()
        if torch.isneginf(weight[0]):
            raise EmptyConstraint(
                f"no first token is left after the rules {[r.settings() for r in self.rules]} and the constraint: what "
                "the rules keep and what the constraint allows have nothing in common. Weaken the rules"
            )
        x = PrefixState.start(reader, n, self.max_tokens).leaves()
        shared = {"rows": torch.zeros(self.max_tokens, dtype=torch.int64), "first": reader.law.log_prob[0].clone()}
        return Particles.start(x, weight, shared=shared, info={"evaluated": 1, "finished": 0.0})

    def step(self, rng: Rng, particles: Particles, propose: Propose | None = None) -> Particles:
        frontier = particles.x["frontier"]
        if not isinstance(frontier, Frontier) or frontier.stale:
            particles = self.restore(particles)
        before, t = PrefixState.of(particles.x), particles.t + 1
        zero = torch.zeros_like(particles.log_weight).masked_fill(torch.isneginf(particles.log_weight), -torch.inf)
        after, gained, evaluated = write(rng, before, zero, propose or self.proposal, self.step_end)
        alive, rows = ~torch.isneginf(gained), particles.shared["rows"].clone()
        paid, lent = self.account.pay(after.sequences, before.finished, after.finished, before.provisional, alive, t)
        if isinstance(self.step_end, AfterToken):
            rows[t - 1] = after.frontier.rows
        x = replace(after, provisional=lent, began=after.length.clone()).leaves()
        info = {"evaluated": evaluated, "finished": float(after.finished.double().mean())}
        return particles.step(x, gained + paid, shared={**particles.shared, "rows": rows}, info=info)

    def done(self, particles: Particles) -> bool:
        return bool(particles.x["finished"].all())

    # ---------------------------------------------------------------- around them

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        if self.anneal is None:
            return super().resampled(rng, scheme, particles)
        heat = self.anneal(particles.ess / particles.n, self.progress(particles))
        if not heat >= 1:
            raise MotesError(f"anneal must return a T of at least 1, not {heat!r} (t={particles.t})")
        order = self.order(particles) if scheme.needs_order else None
        index, left = tempered(rng, scheme, particles.log_weight, heat, order=order)
        return replace(particles.resampled(index), log_weight=left)

    def shows(self) -> str:
        return "texts"

    def view(self, particles: Particles) -> list[str]:
        """The texts, without their end token."""
        return TokenSequences.of(particles.x).strings(self.model)

    def advice(self, particles: Particles) -> str:
        if self.constraint is None:
            return super().advice(particles)
        said = why(particles, self.model, self.constraint, self.max_tokens, self.max_refused)
        return said or super().advice(particles)

    def standard_error(self, particles: Particles) -> StandardError | None:
        return no_spread(self, particles) or seen_by_few(self, particles)

    def remarks(self, particles: Particles) -> list[str]:
        return reward_remarks(self, particles)

    def progress(self, particles: Particles) -> float:
        return 1.0 if self.done(particles) else int(particles.x["length"].max()) / self.max_tokens

    def restore(self, particles: Particles) -> Particles:
        """Evaluate the unfinished texts again, see `motes.language.generation.restoring`."""
        return restored(particles, self.account, self.step_end, self.open)

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
            "step": self.step_end.name(),
            "anneal": reward_name(self.anneal),
            "lookahead": self.lookahead,
            "preview": self.preview,
            "max_refused": self.max_refused,
        }
