"""Blackout diffusion: Poisson data in closed form, other data against the enumerated chain."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

import motes
from motes import Rng
from motes.diffusion.discrete import Blackout, ReverseBlackout
from motes.errors import MotesWarning, NanLogPotential, ShapeError, UnknownName

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
F64 = torch.float64
LAM, N = 6.0, 40_000
TABLE = torch.tensor([0.3, 0, 0, 0.1, 0, 0.6], dtype=F64)
"""Counts 0, 3 and 5: nothing like a Poisson law."""


def poisson(x, t):
    return x + LAM * (1 - torch.exp(-t)).reshape(-1, *[1] * (x.ndim - 1))


def binomial(n, p):
    k = torch.arange(n + 1, dtype=F64)
    choose = torch.lgamma(torch.tensor(n + 1.0)) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return torch.exp(choose.double() + k * math.log(p) + (n - k) * math.log1p(-p))


def mean_given(x, t):
    """E[x_0 | x_t] for the table, by enumeration; what is impossible predicts its own count."""
    alive = torch.exp(-t[0])
    out = torch.arange(int(max(x.max(), 5)) + 1).double()
    for count in range(6):
        weight = [float(TABLE[n]) * float(binomial(n, float(alive))[count]) if n >= count else 0.0 for n in range(6)]
        if sum(weight) > 0:
            out[count] = sum(w * n for n, w in enumerate(weight)) / sum(weight)
    return out[x]


def through(model, n, seed=0):
    rng = Rng(seed)
    particles = model.init(rng.at("init", step=0), n)
    while not model.done(particles):
        particles = model.step(rng.at("step", step=particles.t + 1), particles)
    return particles


def chain(times, births, most=40):
    """The law of the count at the end, by recursion over 0..most."""
    law = torch.zeros(most + 1, dtype=F64)
    law[0] = 1
    process = Blackout()
    for t, s in itertools.pairwise(times.tolist()):
        count = torch.arange(most + 1)
        missing = (mean_given(count, torch.tensor([t], dtype=F64)) - count).clamp(min=0)
        p, after = process.born(t, s), torch.zeros(most + 1, dtype=F64)
        for here in range(most + 1):
            m = float(missing[here])
            k = torch.arange(most + 1 - here, dtype=F64)
            if m == 0:
                new = (k == 0).double()
            elif births == "poisson":
                new = torch.exp(k * math.log(m * p) - m * p - torch.lgamma(k + 1))
            else:
                new, low = torch.zeros(len(k), dtype=F64), math.floor(m)
                for units, share in ((low, 1 - (m - low)), (low + 1, m - low)):
                    b = binomial(units, p)[: len(k)] if p < 1 else (torch.arange(units + 1) == units).double()[: len(k)]
                    new[: len(b)] += share * b
            after[here:] += law[here] * new
        law = after
    return law


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_poisson_data_are_exact_at_any_number_of_steps(steps):
    """Mean and variance 6 (less the start's 6 e^-10), and each count's probability; 0.012 would be seen."""
    x = through(ReverseBlackout(poisson, Blackout(), steps, shape=(2,)), N).x["count"]
    k = torch.arange(25).double()
    p = torch.exp(k * math.log(LAM) - LAM - torch.lgamma(k + 1))
    for i in range(2):
        share = torch.bincount(x[:, i], minlength=25)[:25] / N
        assert bool(((share - p).abs() < 4.9 * (p * (1 - p) / N).sqrt() + 1e-3).all())
        assert abs(float(x[:, i].double().mean()) - LAM) < 4.9 * math.sqrt(LAM / N) + 3e-4
        assert abs(float(x[:, i].double().var()) - LAM) < 4.9 * math.sqrt((LAM + 2 * LAM**2) / N) + 3e-4


@pytest.mark.parametrize("births", ["poisson", "binomial"])
def test_other_data_come_nearer_with_the_steps(births):
    """The enumerated law, which nears the data in order 1 / K."""
    process = Blackout()
    found = [float((chain(process.times(k), births)[:6] - TABLE).abs().sum()) for k in (16, 32, 64)]
    assert found[0] > 1.6 * found[1] and found[1] > 1.7 * found[2] and found[2] < 0.15, found
    x = through(ReverseBlackout(mean_given, process, 8, shape=(1,), births=births), N).x["count"][:, 0]
    law = chain(process.times(8), births)
    share = torch.bincount(x, minlength=len(law))[: len(law)] / N
    assert bool(((share - law).abs() < 4.9 * (law * (1 - law) / N).sqrt() + 1e-4).all())


def test_the_forward_process_and_its_bridge():
    """Thinning twice is thinning once: alive at s given the count at t and x_0."""
    process = Blackout()
    x0 = torch.full((N, 1), 9)
    late = process.noise(Rng(1), x0, 0.8)
    early = late + Rng(2).binomial((x0 - late).double(), torch.tensor(process.born(0.8, 0.3))).long()
    p = math.exp(-0.3)
    assert abs(float(early.double().mean()) - 9 * p) < 4.9 * math.sqrt(9 * p * (1 - p) / N)
    t = torch.tensor([0.1, 2.0], dtype=F64).repeat(N // 2)
    both = process.noise(Rng(3), x0, t).double()
    for k, time in enumerate((0.1, 2.0)):
        p = math.exp(-time)
        assert abs(float(both[k::2].mean()) - 9 * p) < 4.9 * math.sqrt(18 * p * (1 - p) / N)


def test_an_exponential_tilt_of_poisson_data_has_even_weights_under_the_right_guidance():
    """exp(theta x) turns Poisson(lam) into Poisson(lam e^theta); every weight is exp(lam (e^theta - 1))."""
    theta, process = 0.3, Blackout()
    exact = 2 * LAM * (math.exp(-process.t_min) - math.exp(-process.t_max)) * math.expm1(theta)

    def reward(x):
        return theta * x.sum(1).double()

    right = ReverseBlackout(
        poisson,
        process,
        5,
        reward=reward,
        guidance=lambda x, t: torch.full_like(x, theta, dtype=F64),
        shape=(2,),
        schedule="end",
    )
    assert torch.allclose(through(right, 50).log_weight, torch.full((50,), exact, dtype=F64), atol=1e-10)
    for potential, guide in (("difference", None), ("max", lambda x, t: 0.1 * torch.ones(x.shape) * (x > 2))):
        model = ReverseBlackout(poisson, process, 5, reward=reward, guidance=guide, shape=(2,), potential=potential)
        weight = torch.exp(through(model, N).log_weight)
        assert abs(float(weight.mean()) - math.exp(exact)) < 4.9 * float(weight.std()) / math.sqrt(N)
        if guide:  # without the ratio
            raw = torch.exp(reward(through(model, N).x["count"]))
            assert abs(float(raw.mean()) - math.exp(exact)) > 4.9 * float(raw.std()) / math.sqrt(N)
    run = motes.sample(ReverseBlackout(poisson, process, 8, reward=reward, shape=(2,)), 4000, seed=0, progress=False)
    assert abs(run.log_evidence - exact) < 0.25
    assert bool(((run.mean().value - LAM * math.exp(theta)).abs() < 0.5).all())


def test_promises(tmp_path):
    def made(model=poisson, reward=lambda x: 0.1 * x.sum(1), **kwargs):
        return ReverseBlackout(model, Blackout(), 6, reward=reward, shape=(2,), **kwargs)

    whole = motes.sample(made(), 20, seed=1, progress=False)
    for size in (1, 7):
        assert torch.equal(motes.sample(made(micro_batch=size), 20, seed=1, progress=False).view, whole.view)
    path = tmp_path / "run.safetensors"
    motes.sample(made(), 20, seed=1, progress=False, checkpoint=path, callback=lambda state: state.particles.t == 3)
    with pytest.raises(motes.MotesError, match=r"mean of .* is not what it was"):
        motes.resume(path, made(model=lambda x, t: 1.1 * poisson(x, t)), progress=False)
    resumed = motes.resume(path, made(), progress=False)
    assert torch.equal(resumed.view, whole.view) and resumed.log_evidence == whole.log_evidence
    assert json.loads(json.dumps(made().settings())) == made().settings()
    with pytest.warns(MotesWarning, match="births"):
        motes.sample(made(births="binomial"), 4, seed=1, progress=False)
    with pytest.raises(UnknownName, match="births"):
        made(births="normal")
    with pytest.raises(ValueError, match="poisson"):
        made(births="binomial", guidance=lambda x, t: x)
    with pytest.raises(ShapeError, match="model must return"):
        motes.sample(made(model=lambda x, t: t), 4, seed=1, progress=False)
    with pytest.raises(NanLogPotential, match="predicted mean"):
        motes.sample(made(model=lambda x, t: x / 0.0), 4, seed=1, progress=False)
    with pytest.raises(ValueError, match="t_min"):
        Blackout(2.0, t_max=1.0)


def test_counts_of_the_shape_of_images_show_as_images():
    def shows(shape):
        model = ReverseBlackout(poisson, Blackout(), 3, shape=shape)
        return model.shows(), motes.sample(model, 4, seed=0, progress=False).view.shape

    assert shows((1, 4, 4)) == ("images", (4, 1, 4, 4))
    assert shows((3,)) == ("table", (4, 3))
