"""Products of token models: the weighted master equation, and weighted samples, against the enumerated product."""

import math

import pytest
import torch

import motes
from motes.diffusion.discrete import Masked, TokenModel, Uniform, joint
from motes.diffusion.discrete.composition import TokenComposition

F64 = torch.float64
A = torch.tensor([[0.30, 0.05, 0.10], [0.05, 0.20, 0.02], [0.08, 0.12, 0.08]], dtype=F64)
B = torch.tensor([[0.10, 0.15, 0.05], [0.20, 0.10, 0.05], [0.05, 0.05, 0.25]], dtype=F64)
CASES = {
    "annealed": ([A], [2.0]),
    "flattened": ([A], [0.4]),
    "guided": ([A, B], [-1.0, 2.0]),
    "product": ([A, B], [1.0, 1.0]),
}


def made(case, process, **kwargs):
    tables, exponents = CASES[case]
    return TokenComposition([joint(process, t) for t in tables], exponents, **kwargs)


def target(case):
    """The log normaliser and the law (9,) of the product."""
    tables, exponents = CASES[case]
    product = torch.stack([w * t.log() for t, w in zip(tables, exponents, strict=True)]).sum(0).exp().flatten()
    return float(product.sum().log()), product / product.sum()


def histogram(run):
    code = run.view @ torch.tensor([3, 1])
    return torch.zeros(9, dtype=F64).index_add(0, code, run.weight)


def distance(a, b):
    return float((a - b).abs().sum()) / 2


@pytest.mark.parametrize(
    "case, process, weigh",
    [(c, p, True) for c in CASES for p in (Masked(3), Uniform(3))] + [("annealed", Uniform(3), False)],
    ids=lambda v: v if isinstance(v, str) else str(v) if isinstance(v, bool) else type(v).__name__,
)
def test_the_weighted_master_equation_ends_at_the_product(case, process, weigh):
    """Integrated over all states with matrix exponentials; without the weights it ends elsewhere."""
    model = made(case, process, weights="rate", steps=500)
    side = torch.arange(process.states)
    states = process.tokens(torch.cartesian_prod(side, side))
    code = process.index(states) @ torch.tensor([process.states, 1])
    mass = process.stationary.log()[process.index(states)].sum(1).exp()
    mass = mass ** sum(model.exponents) if weigh else mass
    for t, s in zip(model.times[:-1].tolist(), model.times[1:].tolist(), strict=True):
        rates, h = model.rates(states, math.sqrt(t * s))
        generator = torch.diag(h - rates.sum((1, 2)) if weigh else -rates.sum((1, 2)))
        for place in range(2):
            for state in range(process.states):
                new = process.index(states).clone()
                new[:, place] = state
                to = new @ torch.tensor([process.states, 1])
                generator[torch.arange(len(states)), to] += rates[:, place, state]
        mass = mass @ torch.matrix_exp((t - s) * generator)
    assert bool((code == torch.arange(len(states))).all())
    data = mass.reshape(process.states, process.states)[:3, :3].flatten()
    log_z, law = target(case)
    found = distance(data / data.sum(), law)
    if weigh:
        assert found < 4e-3 and abs(math.log(float(data.sum())) - log_z) < 1e-2
    else:
        assert found > 0.02


@pytest.mark.parametrize("case", CASES)
def test_filling_one_place_at_a_time_is_exact(case):
    """20,000 particles, no resampling: the normaliser and every sequence within 4.9 standard errors of its own."""
    run = motes.sample(made(case, Masked(3)), 20_000, seed=1, progress=False, ess_threshold=0)
    log_z, law = target(case)
    w = (run.log_weight - log_z).exp()
    assert abs(float(w.mean()) - 1) < 4.9 * float(w.std()) / 20_000**0.5 + 1e-12
    hits = (run.view @ torch.tensor([3, 1]))[:, None] == torch.arange(9)
    values = w[:, None] * hits
    assert bool(((values.mean(0) - law).abs() < 4.9 * values.std(0) / 20_000**0.5).all())
    if case != "product":
        assert distance(hits.to(F64).mean(0), law) > 0.01  # without the weights


def test_rate_weights_come_close():
    case = "guided"
    with pytest.warns(UserWarning, match="error of the steps"):
        run = motes.sample(made(case, Uniform(3), steps=200), 4000, seed=2, progress=False)
    log_z, law = target(case)
    assert abs(run.log_evidence - log_z) < 0.06 and distance(histogram(run), law) < 0.04


def test_what_does_not_fit_is_refused():
    masked, uniform = joint(Masked(3), A), joint(Uniform(3), A)
    for models, exponents, kwargs, what in (
        ([], [], {}, "one exponent a model"),
        ([masked], [1.0, 1.0], {}, "one exponent a model"),
        ([masked], [math.inf], {}, "finite"),
        ([masked, uniform], [1.0, 1.0], {}, "one process"),
        ([uniform], [2.0], {"weights": "exact"}, "needs the process Masked"),
        ([uniform], [2.0], {"steps": torch.tensor([0.1, 0.5])}, "falling"),
        ([uniform], [2.0], {"steps": 0}, "at least 1 step"),
        ([uniform], [2.0], {"steps": torch.tensor([2.0, 0.5])}, "must lie in"),
        ([uniform], [2.0], {"steps": torch.tensor([0.5, 0.1])}, "start where nothing is"),
    ):
        with pytest.raises(ValueError, match=what):
            TokenComposition(models, exponents, **kwargs)
    with pytest.raises(motes.MotesError, match="weights"):
        TokenComposition([masked], [1.0], weights="energy")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:the weights are rates")
def test_a_run_resumes(tmp_path):
    for process, steps in ((Masked(3), 6), (Uniform(3), 6)):
        model, other = (
            made("guided", process, steps=steps),
            TokenComposition([joint(process, A)] * 2, [-1.0, 2.0], steps=6),
        )
        path = tmp_path / f"{model.exact}.safetensors"
        whole = motes.sample(model, 20, seed=3, progress=False)
        motes.sample(model, 20, seed=3, progress=False, checkpoint=path, callback=lambda s: s.particles.t == 1)
        with pytest.raises(motes.MotesError, match=r"models\[1\] is not what it was"):
            motes.resume(path, other, progress=False)
        assert torch.equal(motes.resume(path, model, progress=False).view, whole.view)


def test_a_model_without_weight_counts_for_nothing_though_it_forbids_tokens():
    """By rates: 0 log 0 is 0. The twin is the run without that model, to the last bit."""
    process = Uniform(3)
    one = TokenModel(lambda x, t: torch.log(torch.tensor([0.2, 0.3, 0.5])).expand(len(x), 2, 3), process, 2)
    two = TokenModel(lambda x, t: torch.log(torch.tensor([1.0, 0.0, 0.0])).expand(len(x), 2, 3), process, 2)
    tokens = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    late = TokenComposition([one, two], [1.0, 0.0], steps=torch.tensor([1.0, 0.5, 0.0]))
    plain = TokenComposition([one], [1.0], steps=torch.tensor([1.0, 0.5, 0.0]))
    for t in (0.5, 0.0):
        for found, exact in zip(late.rates(tokens, t), plain.rates(tokens, t), strict=True):
            assert torch.equal(found.nan_to_num(-1), exact.nan_to_num(-1))
