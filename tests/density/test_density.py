"""Densities: supports and Jacobians against quadrature, how the likelihood is called, what is refused."""

import math
import warnings

import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Beta,
    Dirichlet,
    Distribution,
    Gamma,
    HalfNormal,
    Independent,
    LogNormal,
    MultivariateNormal,
    Normal,
    Poisson,
    Uniform,
)

import motes
from motes.errors import MotesError, MotesWarning, NanLogPotential, ShapeError, UnknownName
from motes.laws import Density
from motes.laws.parameters import Parameters
from motes.rng import Rng

ONE = torch.ones((), dtype=torch.float64)
SUPPORTS = [
    Normal(ONE, 2 * ONE),
    Gamma(4 * ONE, 2 * ONE),
    Beta(2 * ONE, 3 * ONE),
    Uniform(-ONE, 4 * ONE),
    HalfNormal(2 * ONE),
    LogNormal(0 * ONE, ONE),
]


def mass(parameters: Parameters, points: int, jacobian: bool = True) -> float:
    """The integral of the prior's density of z by the trapezoidal rule, exact to rounding for smooth densities."""
    axis = torch.linspace(-60, 60, points, dtype=torch.float64)
    z = torch.cartesian_prod(*[axis] * parameters.dim).reshape(-1, parameters.dim)
    values, volume, inside = parameters.constrain(z)
    log_density = parameters.log_prior(values)
    if volume is not None and jacobian:
        log_density = log_density + volume
    if inside is not None:
        log_density = torch.where(inside, log_density, -math.inf)
    return float(log_density.exp().sum()) * (120 / (points - 1)) ** parameters.dim


@pytest.mark.parametrize("prior", SUPPORTS, ids=lambda p: type(p).__name__)
def test_the_prior_of_z_integrates_to_one(prior):
    parameters = Parameters({"x": prior})
    assert mass(parameters, 20_001) == pytest.approx(1, abs=1e-7)
    if not parameters.real:
        assert abs(mass(parameters, 20_001, jacobian=False) - 1) > 0.01


def test_a_simplex_integrates_to_one():
    prior = Dirichlet(torch.tensor([2.0, 3.0, 1.5], dtype=torch.float64))
    assert Parameters({"p": prior}).dim == 2
    assert mass(Parameters({"p": prior}), 601) == pytest.approx(1, abs=1e-5)
    assert abs(mass(Parameters({"p": prior}), 601, jacobian=False) - 1) > 0.1


def named() -> dict:
    return {
        "m": Normal(torch.zeros(3, dtype=torch.float64), 1.0),
        "s": Gamma(2 * ONE, ONE),
        "p": Dirichlet(torch.ones(4, 2, dtype=torch.float64)),
        "c": MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)),
    }


def test_names_shapes_and_round_trip():
    density = Density(lambda v: -v["s"] - v["m"].square().sum(-1), named())
    assert density.dim == 3 + 1 + 4 + 2
    z = density.sample(Rng(0), 50)
    values = density.constrain(z)
    shapes = {k: tuple(v.shape) for k, v in values.items()}
    assert shapes == {"m": (50, 3), "s": (50,), "p": (50, 4, 2), "c": (50, 2)}
    assert torch.allclose(density.unconstrain(values), z, atol=1e-9)
    assert torch.allclose(values["p"].sum(-1), torch.ones(50, 4, dtype=torch.float64))
    with pytest.raises(MotesError, match="parameters are"):
        density.unconstrain({"m": values["m"]})
    with pytest.raises(ShapeError, match="m must have shape"):
        density.unconstrain({**values, "m": values["m"][:, :2]})


def test_gradients_are_those_of_finite_differences():
    density = Density(
        lambda v: -v["s"] * v["m"].cos().sum(-1) + v["p"][:, :, 0].log().sum(-1) + v["c"].sin()[:, 0], named()
    )
    z = density.sample(Rng(1), 5)
    at, h = density.evaluate(z, True), 1e-5
    for k in range(density.dim):
        step = h * torch.eye(density.dim, dtype=torch.float64)[k]
        up, down = density.evaluate(z + step), density.evaluate(z - step)
        for value, gradient in (("log_likelihood", "likelihood_gradient"), ("log_prior", "prior_gradient")):
            numeric = (up[value] - down[value]) / (2 * h)
            assert torch.allclose(numeric, at[gradient][:, k], rtol=1e-5, atol=1e-7)


def test_the_closed_form_of_normal_priors_is_what_autograd_gives():
    scale = torch.tensor([1.0, 2.0, 0.1], dtype=torch.float64)
    quick = Density(lambda x: x.sum(-1), Independent(Normal(scale, scale), 1))
    slow = Density(lambda x: x.sum(-1), MultivariateNormal(scale, scale.square().diag()))
    z = quick.sample(Rng(0), 20)
    a, b = quick.evaluate(z, True), slow.evaluate(z, True)
    assert quick.parameters.normal(z) is not None and slow.parameters.normal(z) is None
    assert all(torch.allclose(a[k], b[k], rtol=1e-10) for k in a)


X = Rng(5).normal((40, 7))


def flat(x):
    return torch.nn.functional.logsigmoid(x @ X.T).sum(-1)


@pytest.mark.parametrize("size", [1, 16, 64])
def test_a_fixed_micro_batch_gives_the_same_bits_however_the_population_is_cut(size):
    density = Density(flat, Normal(torch.zeros(7, dtype=torch.float64), 1.0), micro_batch=size)
    z = density.sample(Rng(0), 151)
    whole = density.evaluate(z, True)
    for start, stop in ((0, 151), (0, 2 * size), (2 * size, 151), (size, size + 1), (128, 151)):
        part = density.evaluate(z[start:stop].clone(), True)
        assert all(torch.equal(part[k], whole[k][start:stop]) for k in whole)


def test_automatic_parts_change_only_the_last_bits():
    prior = Normal(torch.zeros(7, dtype=torch.float64), 1.0)
    auto, whole = Density(flat, prior), Density(flat, prior, micro_batch=None)
    auto._part = 16
    z = whole.sample(Rng(0), 101)
    a, b = auto.evaluate(z, True), whole.evaluate(z, True)
    assert all(torch.allclose(a[k], b[k], rtol=1e-12, atol=1e-12) and a[k].shape == b[k].shape for k in b)


def single(v):
    return -((torch.arange(9.0) - v["m"][0]) ** 2).sum() / v["s"]


def test_a_function_of_one_point_is_found_out_and_batched():
    density = Density(single, named())
    z = density.sample(Rng(0), 6)
    values = density.constrain(z)
    each = [single({k: v[i] for k, v in values.items()}) for i in range(6)]
    assert torch.allclose(density.evaluate(z)["log_likelihood"], torch.stack(each))
    one = Density(lambda x: (x[0] - x[1]) ** 2, Normal(torch.zeros(2, dtype=torch.float64), 1.0))
    z = one.sample(Rng(0), 6)
    assert torch.allclose(one.evaluate(z)["log_likelihood"], (z[:, 0] - z[:, 1]) ** 2)


def test_a_vectorised_function_is_left_alone():
    calls = []

    def counted(x):
        calls.append(tuple(x.shape))
        return flat(x)

    density = Density(counted, Normal(torch.zeros(7, dtype=torch.float64), 1.0), micro_batch=None)
    calls.clear()
    density.evaluate(density.sample(Rng(0), 33), True)
    assert calls == [(33, 7)]


def either(x):
    """Takes both, and means different things: a batch is compared with its own first column, a point with its sum."""
    return x[..., 0] if x.ndim > 1 else x.sum()


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (either, "vectorised=True"),
        (lambda x: x, r"one point.*\.sum\(-1\)"),
        (lambda x: x[:, 0] - x[:, 0].mean(), "change with the other"),
        (lambda x: float(x[0]) if x.ndim == 1 else None, "float"),
        (lambda x: x.float() @ torch.ones(3, dtype=torch.float64), "RuntimeError"),
        (lambda x: x.sum() if float(x[0]) > 0 else -x.sum(), "vmap cannot batch"),
    ],
)
def test_functions_that_fit_neither_way_are_refused(f, message):
    with pytest.raises(ShapeError, match=message):
        Density(f, Normal(torch.zeros(3, dtype=torch.float64), 1.0))


def poisson(p, rate="slope"):
    return Poisson((p["shift"] + p[rate] * torch.linspace(-1, 1, 9).double()).exp()).log_prob(torch.ones(9))


def test_a_likelihood_that_forgets_the_sum_is_told():
    prior = {"slope": Normal(0 * ONE, 1.0), "shift": Normal(0 * ONE, 1.0)}
    with pytest.raises(ShapeError, match=r"lacks \.sum\(\) at the end"):
        Density(poisson, prior)
    with pytest.raises(ShapeError, match=r"\.sum\(-1\) at the end"):
        Density(poisson, prior, vectorised=False)
    with pytest.raises(ShapeError) as caught:
        Density(lambda p: float(p["slope"].sum()), prior)
    assert ".sum" not in str(caught.value)


@pytest.mark.parametrize("vectorised", [None, True, False])
def test_a_misspelt_parameter_is_named(vectorised):
    prior = {"slope": Normal(0 * ONE, 1.0), "shift": Normal(0 * ONE, 1.0)}
    with pytest.raises(UnknownName, match="'slop', perhaps you meant 'slope'; there are: shift, slope") as caught:
        Density(lambda p: poisson(p, "slop").sum(-1), prior, vectorised=vectorised)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises((ShapeError, KeyError), match="shift"):  # a dict of the user's own
        Density(lambda p: {}["shift"], prior, vectorised=vectorised)


def test_single_precision_is_told():
    x = torch.linspace(-1, 1, 9)
    prior = {"slope": Normal(0 * ONE, 1.0)}

    def likelihood(p, x):
        return -(p["slope"] * x - 0.1).square().sum()

    with pytest.warns(MotesWarning, match=r"float32 while.*data\.double\(\)") as caught:
        Density(lambda p: likelihood(p, x), prior)
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Density(lambda p: likelihood(p, x.double()), prior)
        Density(lambda p: likelihood(p, x), prior, dtype=torch.float32)
        Density(lambda p: torch.zeros(len(p["slope"])), prior, vectorised=True)  # a constant has lost nothing


def test_vectorised_settles_it():
    prior = Normal(torch.zeros(3, dtype=torch.float64), 1.0)
    z = Rng(0).normal((5, 3))
    assert torch.equal(Density(either, prior, vectorised=True).evaluate(z)["log_likelihood"], z[:, 0])
    assert torch.allclose(Density(either, prior, vectorised=False).evaluate(z)["log_likelihood"], z.sum(1))


def test_nan_names_the_particles_and_where_they_are():
    density = Density(lambda x: torch.where(x[:, 0] > 5, math.nan, -x[:, 0]), Normal(torch.zeros(2), 1.0))
    z = torch.zeros(10, 2, dtype=torch.float64)
    z[3, 0] = z[7, 0] = 6.0
    with pytest.raises(NanLogPotential, match=r"particles \[3, 7\].*x=\[6, 0\].*-inf"):
        density.evaluate(z)


def test_minus_infinity_is_allowed_and_has_no_gradient():
    density = Density(lambda x: torch.where(x[:, 0] > 0, x[:, 0].log(), -math.inf), Normal(torch.zeros(2), 1.0))
    state = density.evaluate(torch.tensor([[-1.0, 0.0], [2.0, 0.0]], dtype=torch.float64), True)
    assert state["log_likelihood"].tolist() == [-math.inf, math.log(2.0)]
    assert state["likelihood_gradient"].tolist() == [[0.0, 0.0], [0.5, 0.0]]


def test_an_infinite_gradient_is_an_error():
    density = Density(lambda x: -x[:, 0].abs().sqrt(), Normal(torch.zeros(1, dtype=torch.float64), ONE))
    with pytest.raises(NanLogPotential, match=r"gradient is not finite for particle \[1\]"):
        density.evaluate(torch.tensor([[1.0], [0.0]], dtype=torch.float64), True)


def test_parameters_that_overflow_are_outside():
    density = Density(lambda v: 3 * v["r"].log() - v["r"], {"r": Gamma(2 * ONE, ONE)})
    state = density.evaluate(torch.tensor([[800.0], [-800.0], [0.0]], dtype=torch.float64), True)
    assert state["log_prior"].tolist()[:2] == [-math.inf] * 2 and math.isfinite(state["log_prior"][2])
    assert torch.isfinite(state["likelihood_gradient"]).all()


def test_priors_that_cannot_be_are_refused():
    with pytest.raises(MotesError, match="discrete"):
        Density(lambda v: v["k"], {"k": Bernoulli(0.5 * ONE)})
    with pytest.raises(MotesError, match="not a torch"):
        Density(lambda v: v["k"], {"k": 3.0})
    with pytest.raises(MotesError, match="not empty"):
        Density(lambda v: 0.0, {})
    with pytest.raises(ValueError, match="micro_batch"):
        Density(lambda x: x.sum(-1), Normal(torch.zeros(2), 1.0), micro_batch=0)
    with pytest.raises(ValueError, match="compile"):
        Density(lambda x: x.sum(-1), Normal(torch.zeros(2), 1.0), compile="yes")


def test_the_users_prior_is_not_changed():
    prior = Normal(torch.zeros(2), 1.0, validate_args=True)
    Density(lambda x: x.sum(-1), prior)
    assert prior.loc.dtype == torch.float32 and prior._validate_args


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [False, True])
def test_compiled_values_are_those_of_eager_ones(gradient):
    f, prior = (lambda v: -v["s"] * v["m"].cos().sum(-1) + v["p"][:, :, 0].log().sum(-1)), named()
    eager, compiled = Density(f, prior, compile=False), Density(f, prior, compile=True)
    z = eager.sample(Rng(0), 64)
    a, b = eager.evaluate(z, gradient), compiled.evaluate(z, gradient)
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=1e-10, atol=1e-12) for k in a)


def test_a_compiler_leaves_the_checks_of_a_users_distributions_on(monkeypatch):
    """PyTorch's turns them off for the whole process, when it is first used."""
    seen = []

    def compiler(f, **_):
        def fast(z):
            seen.append(Distribution._validate_args)
            Distribution.set_default_validate_args(False)
            return f(z)

        return fast

    monkeypatch.setattr(torch, "compile", compiler)
    density = Density(lambda v: v["m"].sum(-1), {"m": Normal(torch.zeros(2), 1.0)}, compile=True)
    density.evaluate(density.sample(Rng(0), 8))
    assert seen == [False]
    with pytest.raises(ValueError, match="Expected parameter scale"):
        Normal(0.0, -1.0)


def test_rounding_onto_the_end_of_an_interval_is_outside():
    """The map to (-1, 1) gives exactly -1 far out, where a closed support would still count it as legal."""
    density = Density(lambda v: (1 - v["phi"] ** 2).log(), {"phi": Uniform(-1 * ONE, 1 * ONE)}, vectorised=True)
    state = density.evaluate(torch.tensor([[0.0], [-45.0]], dtype=torch.float64), True)
    assert state["log_likelihood"].tolist() == [0.0, -math.inf]
    assert state["likelihood_gradient"].tolist()[1:] == [[0.0]]


def test_the_likelihood_never_sees_parameters_outside_of_their_support():
    """A scale that underflows to 0 would raise an error inside of the user's Normal."""
    y = torch.tensor([0.5, 1.5], dtype=torch.float64)
    density = Density(
        lambda p: Normal(p["m"], p["s"]).log_prob(y).sum(), {"m": Normal(0 * ONE, 1.0), "s": Gamma(ONE, ONE)}
    )
    z = torch.tensor([[0.0, 0.0], [0.0, -800.0], [0.3, 800.0]], dtype=torch.float64)
    state = density.evaluate(z, True)
    assert state["log_likelihood"][1:].tolist() == [-math.inf] * 2
    assert torch.equal(state["likelihood_gradient"][1:], torch.zeros(2, 2, dtype=torch.float64))
    assert torch.equal(state["log_likelihood"][:1], density.evaluate(z[:1])["log_likelihood"])


def test_a_textbook_poisson_regression_survives_trajectories_that_run_off():
    """exp overflows far out, and Poisson makes NaN of it: a divergence there, an error anywhere else."""
    x = torch.linspace(-1, 1, 15)
    y = torch.tensor([0, 1, 0, 2, 1, 0, 3, 2, 1, 4, 3, 5, 4, 8, 6]).float()
    prior = {"mu": Normal(0.0, 2.0), "tau": HalfNormal(1.0), "z": Normal(torch.zeros(3), 1.0), "beta": Normal(0.0, 1.0)}
    group = torch.arange(15) % 3

    def log_likelihood(p):
        return Poisson(torch.exp((p["mu"] + p["tau"] * p["z"])[group] + p["beta"] * x)).log_prob(y).sum()

    density = Density(log_likelihood, prior)
    run = motes.sample(motes.Tempering(density), 256, seed=0, progress=False)
    assert math.isfinite(run.log_evidence)
    far = torch.zeros(1, density.dim, dtype=torch.float64)
    far[0, 1], far[0, 2:5] = 8.0, 1.0  # tau = 2981
    assert density.evaluate(far, True)["log_likelihood"].tolist() == [-math.inf]
    near = Density(lambda p: torch.where(p["m"] > 3, math.nan, 0.0 * p["m"]), {"m": Normal(0.0, 2.0)}, vectorised=True)
    with pytest.raises(NanLogPotential, match="NaN"):
        near.evaluate(torch.tensor([[4.0]], dtype=torch.float64))
