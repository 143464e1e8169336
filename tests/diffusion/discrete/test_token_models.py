"""Token processes and exact models: Bayes' rule, rates and marginals against enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from motes import Rng
from motes.diffusion.discrete import MarkovLaw, Masked, Rates, TokenModel, Uniform, joint
from motes.errors import NanLogPotential, ShapeError, UnknownName

F64 = torch.float64
V, L = 3, 3
TABLE = torch.exp(1.3 * Rng(5).at("table").normal((V, V, V)))
TABLE = TABLE / TABLE.sum()
RING = torch.tensor([[0, 1.0, 0.2], [0.3, 0, 1.0], [1.0, 0.5, 0]])
LEAKY = torch.tensor([[0, 0.5, 0.1, 1], [0.3, 0, 0.2, 0.4], [0.1, 0.5, 0, 0.8], [0, 0, 0, 0]])
PROCESSES = [
    Masked(V),
    Masked(V, schedule="cosine"),
    Masked(V, schedule="loglinear"),
    Uniform(V),
    Uniform(V, schedule="cosine"),
    Rates(RING, stretch=0.7),
    Rates(LEAKY, mask=True),
]
NAMES = ["masked", "masked-cosine", "masked-loglinear", "uniform", "uniform-cosine", "rates", "rates-mask"]


def everything(process, t):
    """(V^L, S^L): q(x_t = y, x_0 = a) for all sequences, by products of one place's kernel."""
    kernel = process.kernel(0.0, t)[:V]
    out = TABLE.flatten()[:, None]
    full = torch.ones(1, 1, dtype=F64)
    for _ in range(L):
        full = torch.kron(full, kernel)
    return out * full


def noised(process):
    states = torch.cartesian_prod(*[torch.arange(process.states)] * L)
    return process.tokens(states)


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_kernels_compose_and_have_the_rates_as_derivative(process):
    one, two, all_ = process.kernel(0.1, 0.4), process.kernel(0.4, 0.9), process.kernel(0.1, 0.9)
    assert torch.allclose(one @ two, all_, atol=1e-12)
    assert torch.allclose(all_.sum(-1), torch.ones(process.states, dtype=F64))
    h = 1e-6
    slope = (process.kernel(0.4, 0.4 + h) - torch.eye(process.states, dtype=F64)) / h
    assert torch.allclose(slope, float(process.speed(0.4)) * process.matrix, atol=1e-5)
    t = torch.tensor([0.2, 0.7], dtype=F64)
    assert torch.allclose(process.kernel(torch.zeros(2), t)[1], process.kernel(0.0, 0.7))
    numerical = (float(process.alpha(0.4 + h)) - float(process.alpha(0.4 - h))) / (2 * h)
    assert float(process.slope(0.4)) == pytest.approx(numerical, abs=1e-7)
    assert torch.allclose(process.stationary @ process.matrix, torch.zeros(process.states, dtype=F64), atol=1e-10)


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_predictions_posteriors_and_ratios_are_those_of_the_joint_law(process):
    """Every noised sequence, every place: against the sum over all data. The smallest error seen is about 1e-9."""
    t, s = 0.6, 0.35
    both = everything(process, t)  # (V^L, S^L)
    tokens = noised(process)
    mass = both.sum(0)
    model = joint(process, TABLE)
    log_p0 = model(tokens, t)
    data = torch.cartesian_prod(*[torch.arange(V)] * L)
    for i in range(L):
        for a in range(V):
            exact = both[data[:, i] == a].sum(0) / mass
            assert torch.allclose(log_p0[:, i, a].exp(), exact, atol=1e-9)
    # the law of x_s given x_t at one place, from the joint law of (x_s, x_t)
    full = torch.ones(1, 1, dtype=F64)
    for _ in range(L):
        full = torch.kron(full, process.kernel(s, t))
    early = everything(process, s).sum(0)[:, None] * full  # (S^L at s, S^L at t)
    got = process.posterior(tokens, log_p0, t, s).exp()
    where = process.index(tokens)
    for i in range(L):
        for j in range(process.states):
            exact = early[where[:, i] == j].sum(0) / mass
            assert torch.allclose(got[:, i, j], exact, atol=1e-9)
    # concrete scores, and so the reverse rates: q_t(y) R(y, x) / q_t(x)
    rates = process.reverse_rates(tokens, log_p0, t)
    number = {tuple(y.tolist()): k for k, y in enumerate(where)}
    matrix = float(process.speed(t)) * process.matrix
    for k, i, j in itertools.product(range(len(where)), range(L), range(process.states)):
        y = where[k].clone()
        y[i] = j
        exact = 0.0 if j == where[k, i] else float(matrix[j, where[k, i]] * mass[number[tuple(y.tolist())]] / mass[k])
        assert float(rates[k, i, j]) == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_forward_noise_has_its_law(process):
    """20,000 draws a token at two times: a deviation of 4.9 standard errors is at most 0.017."""
    n = 20_000
    x0 = torch.tensor([0, 1, 2]).expand(n, 3)
    t = torch.tensor([0.3, 0.8], dtype=F64).repeat(n // 2)
    for time in (torch.tensor(0.5, dtype=F64), t):
        x = process.index(process.noise(Rng(3), x0, time))
        for k in (0, 1):
            part = x[k::2]
            law = process.kernel(0.0, float(time if time.ndim == 0 else time[k]))[:V]
            for i in range(3):
                count = torch.bincount(part[:, i], minlength=process.states) / len(part)
                error = torch.sqrt(law[i] * (1 - law[i]) / len(part))
                assert bool(((count - law[i]).abs() <= 4.9 * error + 1e-12).all())


def test_markov_laws_predict_what_their_table_does():
    """Orders 1 and 2, one law for all places and one a place, under masks and under noise."""
    rng = Rng(7)
    for order, length, by_place in ((1, 4, False), (2, 5, True), (1, 3, True), (3, 5, False)):
        shape = (*[length - order] * by_place, *(V,) * (order + 1))
        transition = torch.softmax(rng.at(f"{order}{length}").normal(shape), -1)
        initial = torch.softmax(rng.at("initial").normal((V**order,)), 0).reshape((V,) * order)
        law = MarkovLaw(initial, transition, length)
        data = torch.cartesian_prod(*[torch.arange(V)] * length)
        table = law.log_prob(data).exp()
        assert float(table.sum()) == pytest.approx(1, abs=1e-12)
        for process in (Masked(V), Uniform(V), Rates(LEAKY, mask=True)):
            tokens = process.noise(rng.at("noise"), data, 0.5)
            exact = joint(process, table.reshape((V,) * length))(tokens, 0.5)
            got = law.model(process)(tokens, 0.5)
            assert torch.allclose(got.exp(), exact.exp(), atol=1e-10)


def test_log_likelihood_of_noised_tokens():
    law = MarkovLaw(torch.tensor([0.2, 0.5, 0.3]), torch.softmax(Rng(1).at("t").normal((V, V)), -1), L)
    data = torch.cartesian_prod(*[torch.arange(V)] * L)
    table = law.log_prob(data).exp()
    process = Uniform(V)
    full = torch.ones(1, 1, dtype=F64)
    for _ in range(L):
        full = torch.kron(full, process.kernel(0.0, 0.4))
    assert torch.allclose(law.log_likelihood(process, data, 0.4), torch.log(table @ full), atol=1e-12)
    left = torch.tensor([[1, -1, 2]])
    exact = table[(data[:, 0] == 1) & (data[:, 2] == 2)].sum()
    assert float(law.log_likelihood(Masked(V), left, 0.4)) == pytest.approx(math.log(exact), abs=1e-12)


def test_fit_counts():
    tokens = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 2]])
    law = MarkovLaw.fit(tokens, V, 1, pseudo=0.0 + 1e-9)
    assert torch.allclose(law.initial, torch.tensor([0.5, 0.5, 0], dtype=F64), atol=1e-6)
    assert torch.allclose(law.transition[0, 1], torch.tensor([0.2, 0.6, 0.2], dtype=F64), atol=1e-6)
    law = MarkovLaw.fit(tokens, V, 2, pseudo=1e-9, by_place=True)
    assert float(law.transition[1, 1, 1, 2]) == pytest.approx(0.5) and float(law.initial[0, 1]) == pytest.approx(0.5)


def test_what_is_refused():
    with pytest.raises(UnknownName, match="schedule"):
        Masked(3, schedule="quadratic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="vocabulary"):
        Uniform(1)
    with pytest.raises(ValueError, match="stationary"):
        Rates(torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0.0]]))
    with pytest.raises(ValueError, match="not negative"):
        Rates(torch.tensor([[0, -1], [1.0, 0]]))
    with pytest.raises(ShapeError, match=r"-1\.\.2"):
        Masked(3).check(torch.tensor([[3]]))
    with pytest.raises(ShapeError, match="table"):
        joint(Masked(3), torch.ones(2, 2))
    model = TokenModel(lambda x, t: torch.zeros(len(x), 2, 5), Masked(3), 2)
    with pytest.raises(ShapeError, match="floats of shape"):
        model(torch.zeros(4, 2, dtype=torch.int64), 0.5)
    model = TokenModel(lambda x, t: torch.full((len(x), 2, 3), math.nan), Masked(3), 2)
    with pytest.raises(NanLogPotential, match=r"particles \[0, 2\]"):
        model(torch.tensor([[-1, 0], [0, 1], [2, -1]]), 0.5)
    with pytest.raises(ValueError, match="last axis"):
        MarkovLaw(torch.ones(2) / 2, torch.ones(2, 2), 3)


def test_a_micro_batch_changes_nothing():
    model = joint(Uniform(V), TABLE)
    cut = TokenModel(model.model, model.process, L, micro_batch=4)
    tokens = Rng(0).at("x").integers((10, L), V)
    t = Rng(0).at("t").uniform((10,))
    assert torch.allclose(cut(tokens, t), model(tokens, t), atol=1e-12)
