"""What predicts the data behind noised tokens: any callable, and exact predictions for laws that can be computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.core.micro_batches import in_parts
from motes.diffusion.discrete.process import Masked, TokenProcess
from motes.errors import MotesError, NanLogPotential, ShapeError, name_particles


@dataclass(frozen=True, eq=False)
class TokenModel:
    """A model of sequences of tokens, and the process that it undoes.

    Args:
        model: maps tokens (N, L) int64, masked = -1, and times (N,) float64 to the logits (N, L, V) of each place's
            data; they are normalised here. Where the process only masks, a place that is not masked keeps its token,
            whatever the model says of it.
        process: the noising process; it knows the vocabulary.
        length: the number of places L.
        name: what files call the model.
        micro_batch: rows a call; fixing it makes results independent of how a population is cut.

    Raises:
        ShapeError: the model's output has another shape.
        NanLogPotential: it is NaN or +inf; names the particles.
    """

    model: Callable[[Tensor, Tensor], Tensor]
    process: TokenProcess
    length: int
    _: KW_ONLY
    name: str = "model"
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        if self.length < 1:
            raise MotesError(f"a sequence has at least 1 place, not {self.length}")

    @property
    def vocabulary(self) -> int:
        """The number of tokens V."""
        return self.process.vocabulary

    def __call__(self, tokens: Tensor, t: Tensor | float) -> Tensor:
        """(N, L, V) log-probabilities of the data at each place given x_t = tokens (N, L), in the model's own dtype.

        `t` is one time or (N,). Gradients are kept where the caller has them enabled.
        """
        times = torch.as_tensor(t, dtype=torch.float64, device=tokens.device).expand(len(tokens))
        return in_parts(self._predict, self.micro_batch, tokens, times)

    def _predict(self, tokens: Tensor, t: Tensor) -> Tensor:
        logits = self.model(tokens, t)
        shape = (*tokens.shape, self.vocabulary)
        if not isinstance(logits, Tensor) or logits.shape != shape or not logits.is_floating_point():
            what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ShapeError(
                f"the model must return floats of shape {shape} for tokens {tuple(tokens.shape)}, not {what}"
            )
        log_p0 = torch.log_softmax(logits, -1)
        if self.process.keeps:
            known, at = (tokens >= 0)[..., None], tokens.clamp(min=0)[..., None]
            value = torch.where(known, 0.0, log_p0.gather(-1, at))
            fresh = log_p0.clone() if log_p0.requires_grad else log_p0  # gradients need it as it was
            log_p0 = fresh.masked_fill_(known, -math.inf).scatter_(-1, at, value)
        bad = torch.isnan(log_p0.amax((1, 2)))
        if bool(bad.any()):
            who = name_particles(bad.nonzero().flatten().tolist())
            raise NanLogPotential(f"the prediction is NaN for {who}: logits are NaN or +inf, or all -inf at a place")
        return log_p0


def joint(process: TokenProcess, table: Tensor, *, most: int = 1 << 20) -> TokenModel:
    """The exact model of a law given by its table.

    Where noised tokens have probability zero there is no prediction; the law of the table is given in its place.

    Args:
        process: any process.
        table: (V,) * L probabilities or other weights, not negative.
        most: the largest number of sequences V^L.

    Example:
        >>> import torch
        >>> from motes.diffusion.discrete import Masked, joint
        >>> model = joint(Masked(2), torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
        >>> model(torch.tensor([[0, -1]]), 0.5)[0, 1].exp()  # the second token, where the first is 0
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """
    length, v = table.ndim, process.vocabulary
    if table.shape != (v,) * length or length == 0 or table.numel() > most:
        raise ShapeError(f"the table must have shape (V,) * L with V={v} and at most {most} entries, not {table.shape}")
    weight = table.to(torch.float64)
    if not bool(torch.isfinite(weight).all()) or bool((weight < 0).any()) or float(weight.sum()) == 0:
        raise MotesError("the table must hold finite weights, not negative, not all zero")
    weight = weight.flatten() / weight.sum()
    sequences = torch.cartesian_prod(*[torch.arange(v)] * length).reshape(-1, length)
    indicator = torch.nn.functional.one_hot(sequences, v).to(torch.float64).flatten(1)  # (V^L, L V)

    def model(tokens: Tensor, t: Tensor) -> Tensor:
        reach = _likelihood(process, tokens, t)  # (N, L, V)
        path = torch.ones(len(tokens), len(sequences), dtype=torch.float64)
        for i in range(length):
            path *= reach[:, i, sequences[:, i]]
        posterior = path * weight
        total = posterior.sum(1, keepdim=True)
        posterior = torch.where(total > 0, posterior / total.clamp(min=torch.finfo(torch.float64).tiny), weight)
        return torch.log((posterior @ indicator).reshape(len(tokens), length, v))

    return TokenModel(model, process, length, name=f"joint {v}^{length}")


@dataclass(frozen=True, eq=False)
class MarkovLaw:
    """A Markov chain of any order along the sequence: k-mers, with exact predictions under any noise and any masks.

    Args:
        initial: (V,) * k, the law of the first k tokens.
        transition: (V,) * (k + 1), the law of a token given the k before it; or (L - k, *(V,) * (k + 1)), one for each
            place from the k-th on.
        length: the number of places L, more than k.

    References:
        Rabiner (1989), A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition, Proceedings
        of the IEEE 77(2), section III (forward and backward sums; here a place is seen through its noise).

    Example:
        >>> import torch
        >>> from motes.diffusion.discrete import MarkovLaw, Masked
        >>> law = MarkovLaw(torch.tensor([0.5, 0.5]), torch.tensor([[0.9, 0.1], [0.1, 0.9]]), 3)
        >>> law.model(Masked(2))(torch.tensor([[0, -1, 0]]), 0.5)[0, 1].exp()  # 0.81 : 0.01
        tensor([0.9878, 0.0122], dtype=torch.float64)
    """

    initial: Tensor
    transition: Tensor
    length: int

    def __post_init__(self) -> None:
        k, v = self.initial.ndim, len(self.initial)
        transition = self.transition
        if transition.ndim == k + 1:
            transition = transition.expand(self.length - k, *transition.shape)
        if k < 1 or self.length <= k or self.initial.shape != (v,) * k:
            raise ShapeError("initial must have shape (V,) * k with 1 <= k < length")
        if transition.shape != (self.length - k, *(v,) * (k + 1)):
            raise ShapeError(
                f"transition must have shape (V,) * {k + 1} or ({self.length - k}, *(V,) * {k + 1}), V={v}"
            )
        initial, transition = self.initial.to(torch.float64), transition.to(torch.float64)
        for name, law, total in (("initial", initial, initial.sum()), ("transition", transition, transition.sum(-1))):
            if bool((law < 0).any()) or not torch.allclose(total, torch.ones_like(total), atol=1e-6):
                raise MotesError(f"{name} must hold probabilities; each law of `transition` lies along its last axis")
        object.__setattr__(self, "initial", initial)
        object.__setattr__(self, "transition", transition)

    @classmethod
    def fit(
        cls, tokens: Tensor, vocabulary: int, order: int, *, pseudo: float = 1.0, by_place: bool = False
    ) -> MarkovLaw:
        """The chain of the counts of tokens (N, L), each raised by `pseudo`; one law for all places, or `by_place`."""
        length, size = tokens.shape[1], vocabulary ** (order + 1)
        code = torch.stack(
            [tokens[:, i : length - order + i] * vocabulary ** (order - i) for i in range(order + 1)]
        ).sum(0)
        place = torch.arange(length - order) * size if by_place else 0
        count = torch.bincount((code + place).flatten(), minlength=size * (length - order if by_place else 1))
        count = count.to(torch.float64).reshape(*[-1] * by_place, *(vocabulary,) * (order + 1)) + pseudo
        first = torch.stack([tokens[:, i] * vocabulary ** (order - 1 - i) for i in range(order)]).sum(0)
        initial = torch.bincount(first, minlength=vocabulary**order).to(torch.float64) + pseudo
        return cls(
            (initial / initial.sum()).reshape((vocabulary,) * order), count / count.sum(-1, keepdim=True), length
        )

    @property
    def order(self) -> int:
        """The number of tokens k that the next one depends on."""
        return self.initial.ndim

    @property
    def vocabulary(self) -> int:
        """The number of tokens V."""
        return len(self.initial)

    def log_prob(self, tokens: Tensor) -> Tensor:
        """(N,) float64 nats, of tokens (N, L) without masks."""
        k = self.order
        log_p = torch.log(self.initial[tuple(tokens[:, i] for i in range(k))])
        place = torch.arange(self.length - k)
        window = tuple(tokens[:, i : self.length - k + i] for i in range(k + 1))
        return log_p + torch.log(self.transition[(place, *window)]).sum(1)

    def log_likelihood(self, process: TokenProcess, tokens: Tensor, t: Tensor | float) -> Tensor:
        """(N,) float64: log q_t(x_t) of noised tokens; under `Masked`, that of the tokens that are left."""
        times = torch.as_tensor(t, dtype=torch.float64).expand(len(tokens))
        return self._forward(_likelihood(process, tokens, times))[1]

    def model(self, process: TokenProcess) -> TokenModel:
        """The exact predictions under a process; a noised sequence of probability zero gives the equal law."""
        if process.vocabulary != self.vocabulary:
            raise MotesError(f"the process has {process.vocabulary} tokens, the law {self.vocabulary}")

        def predict(tokens: Tensor, t: Tensor) -> Tensor:
            return torch.log(self._smooth(_likelihood(process, tokens, t)))

        return TokenModel(predict, process, self.length, name=f"markov of order {self.order}")

    def _forward(self, seen: Tensor) -> tuple[list[Tensor], Tensor]:
        """The laws (N, V^k) of each window of k tokens given what is seen up to its end, and the log of the total."""
        n, k, v = len(seen), self.order, self.vocabulary
        message = self.initial.flatten().expand(n, -1)
        for i in range(k):
            message = (message.reshape(n, v**i, v, -1) * seen[:, i].reshape(n, 1, v, 1)).flatten(1)
        total = message.sum(1, keepdim=True)
        messages, log_total = [message / _safe(total)], torch.log(total[:, 0])
        for i in range(k, self.length):
            step = self.transition[i - k].reshape(1, v, v ** (k - 1), v)
            ahead = (messages[-1].reshape(n, v, v ** (k - 1), 1) * step).sum(1)
            message = (ahead * seen[:, i, None, :]).flatten(1)
            total = message.sum(1, keepdim=True)
            messages.append(message / _safe(total))
            log_total = log_total + torch.log(total[:, 0])
        return messages, log_total

    def _smooth(self, seen: Tensor) -> Tensor:
        """(N, L, V): the law of each token given all that is seen."""
        n, k, v = len(seen), self.order, self.vocabulary
        messages, _ = self._forward(seen)
        out = torch.empty(n, self.length, v, dtype=torch.float64)
        after = torch.ones(n, v**k, dtype=torch.float64)
        for i in range(self.length - 1, k - 2, -1):
            window = messages[i - k + 1] * after  # of tokens i - k + 1 .. i
            out[:, i] = window.reshape(n, -1, v).sum(1)
            if i == k - 1:
                for j in range(k - 1):
                    out[:, j] = window.reshape(n, v**j, v, -1).sum((1, 3))
                break
            step = self.transition[i - k].reshape(1, v, v ** (k - 1), v)
            behind = (step * (seen[:, i, None, :] * after.reshape(n, -1, v))[:, None]).sum(-1).flatten(1)
            after = behind / _safe(behind.amax(1, keepdim=True))
        total = out.sum(-1, keepdim=True)
        return torch.where(total > 0, out / _safe(total), 1 / v)


def _likelihood(process: TokenProcess, tokens: Tensor, t: Tensor) -> Tensor:
    """(N, L, V) float64: the probability that each token of the data turned into what is there at times (N,).

    Up to a factor of the time where all tokens are masked alike, so that it has no time left in it.
    """
    v, index = process.vocabulary, process.index(tokens)
    if isinstance(process, Masked):
        return torch.eye(v + 1, v, dtype=torch.float64).index_fill_(0, torch.tensor(v), 1.0)[index]
    if not len(tokens) or bool((t == t[0]).all()):
        return process.kernel(0.0, t[0] if len(t) else 0.0)[:v].T[index]
    return process.kernel(torch.zeros_like(t), t)[:, :v].transpose(1, 2)[torch.arange(len(tokens))[:, None], index]


def _safe(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, 1.0)
