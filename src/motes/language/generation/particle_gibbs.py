"""A chain of texts: each is drawn by a particle filter in which the last one takes part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.core.estimate.autocorrelation import effective_size
from motes.core.estimate.batch_means import chain_mean
from motes.core.estimate.estimate import Estimate
from motes.core.particles import Particles
from motes.core.resampling import conditional_multinomial, find_scheme
from motes.core.resampling.designs.conditional import CONDITIONAL
from motes.core.smc import alive, checked
from motes.errors import MotesError, ShapeError, check_share, check_whole
from motes.language.generation.generation import Generation
from motes.language.generation.proposals.conditional_draw import ConditionalDraw
from motes.language.generation.proposals.next_tokens import FromLaw
from motes.rng import Rng
from motes.rng.seed import seeded


@dataclass(frozen=True)
class Text:
    """A text with what a filter must know to write it again.

    Attributes:
        tokens: (L,) int64, its end token included.
        kept: (L,) float64, what a generation's x holds as `kept`.
        log_prob: its log-probability under the model, nats.
        text: as a string.
    """

    tokens: Tensor
    kept: Tensor
    log_prob: float
    text: str


@dataclass(frozen=True)
class TextChains:
    """Chains of texts, equally weighted draws of one law once the beginning is forgotten.

    Attributes:
        chains: the texts of each chain, in order.
        changed: (chains, sweeps) float64, 1 where a sweep ended with another text than it began with.
        reference: for `motes.cite`.
    """

    chains: list[list[Text]]
    changed: Tensor
    reference: Reference = CONDITIONAL

    @property
    def texts(self) -> list[str]:
        """All draws, chain by chain."""
        return [text.text for chain in self.chains for text in chain]

    def values(self, f: Callable[[list[str]], Tensor]) -> Tensor:
        """(chains, sweeps) float64 of a function of a list of n texts that returns (n,)."""
        value = f(self.texts)
        if not isinstance(value, Tensor) or value.shape != (len(self.texts),):
            what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(f"f must return one number for each of the {len(self.texts)} texts, not {what}")
        return value.to(torch.float64).reshape(len(self.chains), -1)

    def mean(self, f: Callable[[list[str]], Tensor]) -> Estimate[Tensor]:
        """The mean of `f` over all draws, with its standard error from the spread of means of chains or batches."""
        return chain_mean(self.values(f))

    def ess(self, f: Callable[[list[str]], Tensor]) -> float:
        """How many independent texts are as good for the mean of `f`, see `effective_size`."""
        return effective_size(self.values(f))


def particle_gibbs(
    generation: Generation,
    n: int,
    *,
    sweeps: int,
    seed: int | Rng,
    chains: int = 4,
    burn: int = 0,
    ess_threshold: float = 0.5,
) -> TextChains:
    """Texts of a `Generation`, as chains that leave its law of texts invariant however few particles there are.

    Each chain starts with a text of an ordinary run of `n` particles. A sweep is a run in which particle 0 writes the
    chain's last text again, token by token, and always survives: at every resampling its parent is itself, and the
    parents of the others are drawn independently in proportion to the weights, its weight included (conditional
    multinomial resampling). At the end one of the n texts is drawn in proportion to the weights: the chain's next. The
    law of texts that the weights of the generation are proper for, p* (rules, constraint and reward; twist, steps of
    text and annealing do not matter to it), is invariant for every n >= 2 and any rule of when to resample that looks
    at the weights.

    A run of the generation itself has an error of order 1/n in the mean of its texts; a chain has none once its start
    is forgotten, but its draws depend on each other. Beginnings of texts change rarely where the filter resamples
    often and n is small: `changed` and `ess` tell. A generation with `lookahead` is refused: the sets that its tokens
    were chosen from would have to be kept with the text.

    References:
        Andrieu, Doucet & Holenstein (2010), Particle Markov chain Monte Carlo methods, JRSS B 72(3), sections 2.4.3 and
        4.5, theorem 5.

    Args:
        generation: where texts come from, and what they must satisfy.
        n: particles of a sweep, the retained one included.
        sweeps: draws of each chain.
        seed: the chains are a function of it; or an `Rng`.
        chains: how many, one after the other.
        burn: sweeps before the first draw that is kept.
        ess_threshold: resample once the effective sample size is at most this part of n; 0 is never, 1 at every step.

    Returns:
        The chains.

    Raises:
        MotesError: an argument outside its range, or a generation with `lookahead`.
        AllWeightsZero: the run that starts a chain found no text; more particles, or a `reward` without -inf, help.

    Example:
        >>> import motes, torch
        >>> model = motes.language.TableModel(["a", "b", "."], torch.zeros(4, 3))
        >>> text = motes.Generation(model, "", constraint=motes.language.regex("(ab)+"), max_tokens=8)
        >>> found = particle_gibbs(text, 4, sweeps=50, seed=0)
        >>> set(found.texts) <= {"ab", "abab", "ababab", "abababab"}
        True
    """
    if not isinstance(generation, Generation):
        raise MotesError(f"particle_gibbs takes a Generation, not a {type(generation).__name__}")
    if generation.lookahead is not None:
        raise MotesError("particle_gibbs draws tokens from the rules' law, without a look ahead: leave lookahead out")
    check_whole(2, n=n)
    check_whole(1, sweeps=sweeps, chains=chains)
    check_whole(0, burn=burn)
    check_share("[0, 1]", ess_threshold=ess_threshold)
    rng, out, changed = seeded(seed), [], []
    for c in range(chains):
        mine = rng.at(f"chain-{c}")
        text, draws, moves = sweep(generation, mine.at("start"), None, n, ess_threshold), [], []
        for s in range(burn + sweeps):
            after = sweep(generation, mine.at(f"sweep-{s}"), text, n, ess_threshold)
            moves.append(float(not torch.equal(after.tokens, text.tokens)))
            draws.append(after)
            text = after
        out.append(draws[burn:])
        changed.append(moves[burn:])
    return TextChains(out, torch.tensor(changed, dtype=torch.float64))


def sweep(generation: Generation, rng: Rng, text: Text | None, n: int, ess_threshold: float) -> Text:
    """The text after `text` in a chain, by a filter of `n` particles; None: a text of an ordinary run."""
    length = 0 if text is None else len(text.tokens)
    tokens = torch.zeros(n, generation.max_tokens, dtype=torch.int64)
    kept = torch.zeros(n, generation.max_tokens, dtype=torch.float64)
    count = torch.zeros(n, dtype=torch.int64)
    count[0] = length
    if text is not None:
        tokens[0, :length], kept[0, :length] = text.tokens, text.kept
    draw = ConditionalDraw(FromLaw(generation.max_refused), tokens, kept, count)
    scheme = find_scheme("multinomial") if text is None else conditional_multinomial
    particles = generation.init(rng.at("init", step=0), n)
    while not generation.done(particles):
        t, name = particles.t + 1, type(generation).__name__
        if particles.ess <= ess_threshold * n or ess_threshold >= 1:
            particles = generation.resampled(rng.at("resample", step=t), scheme, particles)
        particles = generation.step(rng.at("step", step=t), particles, draw)
        checked(particles, t, name)
        alive(particles, generation)
    return _taken(generation, particles, int(rng.at("choice").categorical(particles.log_weight)))


def _taken(generation: Generation, particles: Particles, i: int) -> Text:
    x, length = particles.x, int(particles.x["length"][i])
    tokens = x["tokens"][i, :length].clone()
    text = generation.model.decode(tokens.tolist())
    return Text(tokens, x["kept"][i, :length].clone(), float(x["log_prob"][i, :length].sum()), text)
