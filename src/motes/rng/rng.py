"""Random numbers by address: a function of (seed, purpose, step, inner, particle, draw), of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.distributions import Distribution

from motes.errors import MotesError

from . import discrete, distributions, gamma, routes
from .generators import Generator, address_hash
from .philox import Philox4x32
from .squares import Squares32, Squares64
from .threefry import Threefry2x32
from .uniform import uniform64

GENERATORS: dict[str, Generator] = {g.name: g for g in (Philox4x32(), Threefry2x32(), Squares32(), Squares64())}
ATTEMPTS = 64  # blocks of four words that one element may use before its rejection sampler must have accepted
LIMIT = 1 << 32

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Rng:
    """Random numbers at one address; it has no state, so drawing twice gives the same numbers.

    The first axis of a shape counts particles (ids 0..n-1, or those bound by `shard`), the other axes, flattened,
    count draws; shape `()` is one number shared by all particles. Different kinds of draw (normal, uniform, ...) at
    one address are independent. Everything is float64 unless `dtype` says otherwise; a float32 number is the float64
    number on a coarser grid.

    >>> rng = Rng(0).at("momentum", step=3)
    >>> bool((rng.normal((8, 2))[4:] == rng.shard(torch.arange(4, 8)).normal((4, 2))).all())
    True
    """

    seed: int
    generator: str = field(default="philox4x32-10", kw_only=True)
    route: str = field(default="auto", kw_only=True)
    device: torch.device | str = field(default="cpu", kw_only=True)
    purpose: str = field(default="", kw_only=True)
    step: int = field(default=0, kw_only=True)
    inner: int = field(default=0, kw_only=True)
    ids: Tensor | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 64:
            raise MotesError(f"seed must be an int in 0..2^64-1, got {self.seed!r}")
        if self.generator not in GENERATORS:
            raise MotesError(f"unknown generator {self.generator!r}; there are {', '.join(GENERATORS)}")
        if self.route not in routes.ROUTES:
            raise MotesError(f"unknown route {self.route!r}; there are {', '.join(routes.ROUTES)}")
        if not isinstance(self.device, torch.device):
            object.__setattr__(self, "device", _here(self.device))
        if torch.device(self.device).type not in ("cpu", "cuda"):  # float64 is needed
            raise MotesError(f"device must be cpu or cuda, got {self.device}; draw on the CPU and move the numbers")
        for name, value in (("step", self.step), ("inner", self.inner)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LIMIT:
                raise MotesError(f"{name} must be an int in 0..2^32-1, got {value!r}")

    # ---------------------------------------------------------------- addresses

    def at(self, purpose: str, *, step: int | None = None, inner: int | None = None) -> Rng:
        """The address below this one: purposes nest with "/", `step` and `inner` replace when given.

        An `inner` below another that is not 0, of the same step, leaves that one in the purpose, so that a loop in a
        loop never meets the same address twice.

        >>> Rng(5).at("round", inner=2).at("sweep", inner=7).purpose
        'round[2]/sweep'
        """
        if not isinstance(purpose, str) or not purpose:
            raise MotesError(f"purpose must be a string that is not empty, got {purpose!r}")
        outer = f"{self.purpose}[{self.inner}]" if inner is not None and step is None and self.inner else self.purpose
        return replace(
            self,
            purpose=f"{outer}/{purpose}" if outer else purpose,
            step=self.step if step is None else step,
            inner=self.inner if inner is None else inner,
        )

    def shard(self, ids: Tensor) -> Rng:
        """The same numbers for a part of the population: `ids` (n,) int64 name the particles of the first axis."""
        if not isinstance(ids, Tensor) or ids.dtype != torch.int64 or ids.ndim != 1:
            raise MotesError("ids must be an int64 tensor with one axis: the global numbers of the particles")
        if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < LIMIT):
            raise MotesError(f"ids must lie in 0..2^32-1, got {int(ids.min())}..{int(ids.max())}")
        return replace(self, ids=ids.to(self.device).contiguous())

    def replica(self, j: int) -> Rng:
        """The source of population j of a run with replicas: its own for 0, else one with a seed derived from this one.

        >>> Rng(5).replica(0).seed, Rng(5).replica(1).seed
        (5, 8746443018868306026)
        """
        if isinstance(j, bool) or not isinstance(j, int) or j < 0:
            raise MotesError(f"replicas count from 0, and there is no {j!r}")
        return self if j == 0 else replace(self, seed=address_hash(self.seed, "replica", j))

    # ---------------------------------------------------------------- numbers

    def bits(self, shape: Shape) -> Tensor:
        """Random 32-bit words, as int64 in 0..2^32-1."""
        return self._draw("bits", "bits", shape, torch.int64)

    def uniform(self, shape: Shape, dtype: torch.dtype = torch.float64) -> Tensor:
        """Uniform in the open interval (0, 1)."""
        return self._draw("uniform", "uniform", shape, dtype)

    def normal(self, shape: Shape, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standard normal, by inversion."""
        return self._draw("normal", "normal", shape, dtype)

    def exponential(self, shape: Shape, dtype: torch.dtype = torch.float64) -> Tensor:
        """Exponential with rate 1; never 0."""
        return self._draw("exponential", "exponential", shape, dtype)

    def gumbel(self, shape: Shape, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standard Gumbel (for maxima); always finite."""
        return self._draw("gumbel", "gumbel", shape, dtype)

    def gamma(self, shape: Shape, concentration: Tensor | float, dtype: torch.dtype = torch.float64) -> Tensor:
        """Gamma with unit rate; `concentration` expands to `shape`. Never 0."""
        return gamma.gamma(self, tuple(shape), concentration, dtype)

    def log_gamma(self, shape: Shape, concentration: Tensor | float) -> Tensor:
        """Logarithms of gamma numbers with unit rate, float64: exact where the numbers themselves would underflow.

        Where they do not they are those of `gamma`, as long as the address is the same.
        """
        return gamma.log_gamma(self, "gamma", tuple(shape), gamma.as_tensor(self, concentration))

    def beta(self, shape: Shape, a: Tensor | float, b: Tensor | float, dtype: torch.dtype = torch.float64) -> Tensor:
        """Beta(a, b) in the open interval (0, 1); `a` and `b` expand to `shape`."""
        return gamma.beta(self, tuple(shape), a, b, dtype)

    def dirichlet(self, shape: Shape, concentration: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Dirichlet points (*shape, K) for concentrations (..., K) that expand to it."""
        return gamma.dirichlet(self, tuple(shape), concentration, dtype)

    def bernoulli(self, p: Tensor | float) -> Tensor:
        """True with probability p; the shape of `p`, bool."""
        return discrete.bernoulli(self, p)

    def poisson(self, rate: Tensor | float) -> Tensor:
        """Poisson counts as float64; the shape of `rate`."""
        return discrete.poisson(self, rate)

    def integers(self, shape: Shape, high: int) -> Tensor:
        """Whole numbers 0..high-1 as int64, high <= 2^32; equally likely up to high / 2^64."""
        return discrete.integers(self, tuple(shape), high)

    def categorical(self, log_weight: Tensor, n: int | None = None, *, row: Tensor | None = None) -> Tensor:
        """Categories drawn with probability proportional to exp(log_weight), by inversion in float64.

        (n, K) gives (n,), one category for each row, addressed by its particle; (K,) with `n` gives (n,), without it
        one shared (). (R, K) and `row` (n,) int64 give what `log_weight[row]` would, bit for bit, at the cost of the
        rows. A zero weight is never drawn. Raises ValueError for NaN, +inf, or a row of -inf only.
        """
        return discrete.categorical(self, log_weight, n, row)

    def permutation(self, n: int) -> Tensor:
        """A uniformly random order of 0..n-1, int64; shared: a bound shard does not change it."""
        return discrete.permutation(self, n)

    def binomial(self, total_count: Tensor | float, p: Tensor | float) -> Tensor:
        """Binomial counts as float64; the common shape of `total_count` and `p`."""
        return discrete.binomial(self, *torch.broadcast_tensors(torch.as_tensor(total_count), torch.as_tensor(p)))

    def sample(self, distribution: Distribution, n: int | None) -> Tensor:
        """n draws (n, *batch_shape, *event_shape) from a `torch.distributions` object, without a gradient.

        The first axis counts particles. With `n` None each element of the batch is drawn once, (*batch_shape,
        *event_shape), and its first batch axis counts the particles; without a batch it is one draw that all
        particles share. `motes.rng.register` teaches further families.
        """
        return distributions.sample(self, distribution, n)

    # ---------------------------------------------------------------- how they are made

    def _whole(self) -> Rng:
        return self if self.ids is None else replace(self, ids=None)

    def _particles(self, shape: Shape) -> tuple[Tensor, int]:
        """The particle ids (n,) of a shape's first axis and the number of draws of each."""
        n, count = shape[0], 1
        for size in shape[1:]:
            count *= size
        if n > LIMIT or count * 4 > LIMIT:
            raise MotesError(f"shape {shape} asks for more than 2^32 particles or 2^30 draws of one particle")
        if self.ids is None:
            return torch.arange(n, device=self.device), count
        if n != self.ids.shape[0]:
            raise MotesError(f"shape {shape} has {n} particles, but this shard has {self.ids.shape[0]}")
        return self.ids, count

    def _key(self, kind: str) -> tuple[int, int]:
        return GENERATORS[self.generator].key(self.seed, self.purpose, kind, self.step, self.inner)

    def _draw(self, what: str, kind: str, shape: Shape, dtype: torch.dtype) -> Tensor:
        """Numbers of a simple kind; `kind` goes into the key."""
        if what != "bits" and dtype not in (torch.float32, torch.float64):
            raise MotesError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        shape = tuple(shape)
        if not shape:
            return self._whole()._draw(what, kind + " shared", (1,), dtype).reshape(())
        particle, count = self._particles(shape)
        generator = GENERATORS[self.generator]
        if 0 in shape:
            return torch.empty(shape, dtype=dtype, device=self.device)
        out = routes.draw(self.route, generator, what, self._key(kind), particle, count, self.step, self.inner, dtype)
        return out.reshape(shape)

    def _words(self, kind: str, count: int) -> Tensor:
        """Some words (count,) that all particles share."""
        return self._whole()._draw("bits", kind + " shared", (1, count), torch.int64)[0]

    def _attempts(
        self, kind: str, shape: Shape, attempt: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Rejection sampling in which every element has its own words, so that no element sees another.

        `attempt(at, u, v)` gets the flat positions that are still open and two uniforms for each, and returns their
        values and which are accepted.
        """
        if not shape:
            return self._whole()._attempts(kind + " shared", (1,), attempt).reshape(())
        particle, count = self._particles(shape)
        if count * 4 * ATTEMPTS > LIMIT:
            raise MotesError(f"shape {shape} asks for more than 2^24 draws of one particle")
        generator, key = GENERATORS[self.generator], self._key(kind)
        draw = torch.arange(count, device=self.device)
        particle, draw = particle.repeat_interleave(count), draw.repeat(particle.shape[0])
        out = torch.empty(particle.shape, dtype=torch.float64, device=self.device)
        at = torch.arange(out.shape[0], device=self.device)
        for i in range(ATTEMPTS):
            if not at.numel():
                return out.reshape(shape)
            first = (draw[at] * ATTEMPTS + i) * 4
            w = routes.words(self.route, generator, key, particle[at], first, 4, self.step, self.inner)
            value, accepted = attempt(at, uniform64(w[:, 0], w[:, 1]), uniform64(w[:, 2], w[:, 3]))
            out[at[accepted]] = value[accepted]
            at = at[~accepted]
        raise MotesError(f"{kind}: {at.numel()} elements rejected {ATTEMPTS} times; their parameters are at fault")


def _here(device: str) -> torch.device:
    """The device of that name; a ValueError if there is none here."""
    there = f"there is cpu{''.join(f', cuda:{k}' for k in range(torch.cuda.device_count()))}"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise MotesError(f"device must be cpu or cuda, got {device!r}; {there}") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise MotesError(f"device {device!r} is not here, as torch sees it; {there}")
    return found
