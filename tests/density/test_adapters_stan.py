"""Stan models: against a compiled library with BridgeStan's interface, through BridgeStan itself where it is there.

No Stan compiler is needed: the library is written in C, with the functions that BridgeStan's Python calls. Where
BridgeStan is missing, an object with the same methods stands in for `bridgestan.StanModel`.
"""

import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from density.known import off, sampled
from motes.errors import MotesError, NanLogPotential
from motes.laws.adapters import from_stan
from motes.rng import Rng

NAMES = ["mu", "s", "b.1.1", "b.2.1", "b.1.2", "b.2.2"]
Y, COUNT = 1.5, 3
EVIDENCE = float(Normal(0.0, math.sqrt(5.0)).log_prob(torch.tensor(Y, dtype=torch.float64))) - 4 * math.log(2)
"""mu ~ normal(0, 2), y ~ normal(mu, 1); s ~ exponential(1), count ~ poisson(s); b[i, j] ~ normal(10 i + j, 1)."""
CENTRE = np.array([11.0, 21.0, 12.0, 22.0])


class StandIn:
    """What `bridgestan.StanModel` offers, of the model above; t = mu + s is a transformed parameter."""

    def name(self):
        return "known"

    def param_unc_num(self):
        return 6

    def param_names(self, *, include_tp=False, include_gq=False):
        return NAMES + ["t"] * include_tp

    def param_constrain(self, theta_unc, *, include_tp=False, include_gq=False, out=None, rng=None):
        s = math.exp(theta_unc[1])
        return np.array([theta_unc[0], s, *theta_unc[2:], *[theta_unc[0] + s] * include_tp])

    def param_unconstrain(self, theta, *, out=None):
        return np.array([theta[0], math.log(theta[1]), *theta[2:]])

    def log_density(self, theta_unc, *, propto=True, jacobian=True):
        return self.log_density_gradient(theta_unc, propto=propto, jacobian=jacobian)[0]

    def log_density_gradient(self, theta_unc, *, propto=True, jacobian=True, out=None):
        assert theta_unc.flags["C_CONTIGUOUS"]
        mu, u, b = theta_unc[0], theta_unc[1], theta_unc[2:]
        if mu > 100:
            raise RuntimeError("mu is too large")
        s = math.exp(u)
        value = -mu * mu / 8 - (Y - mu) ** 2 / 2 - 2 * s + COUNT * u - ((b - CENTRE) ** 2).sum() / 2
        value += u if jacobian else 0.0
        value -= 0.0 if propto else math.log(2.0) + math.log(6.0) + 3 * math.log(2 * math.pi)
        slope = np.array([-mu / 4 + Y - mu, -2 * s + COUNT + jacobian, *(CENTRE - b)])
        return value, slope


LIBRARY = r"""
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
int bs_major_version = MAJOR, bs_minor_version = MINOR, bs_patch_version = PATCH;
static int there;
void *bs_model_construct(const char *data, unsigned seed, char **err) { return &there; }
void bs_model_destruct(void *m) {}
void bs_free_error_msg(char *e) { free(e); }
int bs_set_print_callback(void *f, char **err) { return 0; }
const char *bs_name(const void *m) { return "known"; }
const char *bs_model_info(const void *m) { return ""; }
int bs_param_num(const void *m, bool tp, bool gq) { return 6 + tp; }
int bs_param_unc_num(const void *m) { return 6; }
const char *bs_param_names(const void *m, bool tp, bool gq) {
  return tp ? "mu,s,b.1.1,b.2.1,b.1.2,b.2.2,t" : "mu,s,b.1.1,b.2.1,b.1.2,b.2.2";
}
const char *bs_param_unc_names(const void *m) { return "mu,s,b.1.1,b.2.1,b.1.2,b.2.2"; }
int bs_param_constrain(const void *m, bool tp, bool gq, const double *u, double *x, void *rng, char **err) {
  memcpy(x, u, 6 * sizeof(double));
  x[1] = exp(u[1]);
  if (tp) x[6] = x[0] + x[1];
  return 0;
}
int bs_param_unconstrain(const void *m, const double *x, double *u, char **err) {
  memcpy(u, x, 6 * sizeof(double));
  u[1] = log(x[1]);
  return 0;
}
int bs_param_unconstrain_json(const void *m, const char *j, double *u, char **err) { return -1; }
int bs_param_initialize(const void *m, const char *j, void *r, double d, int n, bool z, double *u, char **e) {
  return -1;
}
int bs_log_density_gradient(const void *m, bool propto, bool jac, const double *u, double *v, double *g, char **err) {
  static const double centre[4] = {11, 21, 12, 22};
  double mu = u[0], s = exp(u[1]);
  if (mu > 100) { *err = strdup("mu is too large"); return -1; }
  *v = -mu * mu / 8 - (1.5 - mu) * (1.5 - mu) / 2 - 2 * s + 3 * u[1] + (jac ? u[1] : 0);
  if (!propto) *v -= log(2.0) + log(6.0) + 3 * log(2 * acos(-1.0));
  g[0] = -mu / 4 + 1.5 - mu;
  g[1] = -2 * s + 3 + jac;
  for (int i = 0; i < 4; i++) {
    double d = centre[i] - u[2 + i];
    *v -= d * d / 2;
    g[2 + i] = d;
  }
  return 0;
}
int bs_log_density(const void *m, bool propto, bool jac, const double *u, double *v, char **err) {
  double g[6];
  return bs_log_density_gradient(m, propto, jac, u, v, g, err);
}
int bs_log_density_hessian(const void *m, bool p, bool j, const double *u, double *v, double *g, double *h, char **e) {
  return -1;
}
int bs_log_density_hessian_vector_product(const void *m, bool p, bool j, const double *u, const double *w, double *v,
                                          double *h, char **e) { return -1; }
void *bs_rng_construct(unsigned seed, char **err) { return 0; }
int bs_rng_destruct(void *r) { return 0; }
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> str:
    """The path of the library, for BridgeStan."""
    bridgestan = pytest.importorskip("bridgestan", reason="comes with the extra motes[stan]")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform == "win32":
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("stan")
    (folder / "known.c").write_text(LIBRARY)
    versions = zip(("MAJOR", "MINOR", "PATCH"), bridgestan.__version__.split("."), strict=True)
    flags = [f"-D{name}={number}" for name, number in versions]
    command = [compiler, "-shared", "-fPIC", "-O1", *flags, "-o", "known_model.so", "known.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "known_model.so")


@pytest.fixture(params=["stand-in", "bridgestan"])
def model(request):
    return StandIn() if request.param == "stand-in" else request.getfixturevalue("compiled")


def test_the_evidence_and_means(model):
    run = sampled(from_stan(model))
    assert run.log_evidence_se < 0.1
    assert abs(off(run, EVIDENCE)) < 4.9
    assert abs(off(run, EVIDENCE + 0.5)) > 4.9
    for name, value in (("mu", 1.2), ("s", 2.0), ("t", 3.2)):
        mean = run.mean(name)
        assert abs(float(mean) - value) < 4.9 * float(mean.se) < 0.5
    assert (run.mean("b").value - torch.tensor([[11.0, 12.0], [21.0, 22.0]])).abs().max() < 0.3


def test_another_start_gives_the_same_evidence(model):
    start = Normal(torch.tensor([0.0, 0.0, 10.0, 20.0, 10.0, 20.0], dtype=torch.float64), 3.0)
    law = from_stan(model, start=start)
    assert abs(off(sampled(law), EVIDENCE)) < 4.9
    assert law.settings()["start"] == "Normal"


def test_values_and_gradients_are_those_of_the_formula(model):
    law = from_stan(model)
    z = law.sample(Rng(0), 20).T.contiguous().T  # not in the order of rows
    state = law.evaluate(z, True)
    normal, one = torch.distributions.Normal, torch.ones((), dtype=torch.float64)
    leaf = z.clone().requires_grad_()
    mu, s, b = leaf[:, 0], leaf[:, 1].exp(), leaf[:, 2:]
    value = normal(0 * one, 2 * one).log_prob(mu) + normal(mu, one).log_prob(torch.tensor(Y, dtype=torch.float64))
    value = value - s + leaf[:, 1] + COUNT * s.log() - s - math.log(6)
    value = value + normal(torch.from_numpy(CENTRE), one).log_prob(b).sum(1)
    slope = torch.autograd.grad(value.sum(), leaf)[0]
    whole = state["log_prior"] + state["log_likelihood"]
    assert torch.allclose(whole, value.detach(), rtol=1e-9, atol=1e-9)
    assert torch.allclose(state["prior_gradient"] + state["likelihood_gradient"], slope, rtol=1e-9, atol=1e-8)
    assert torch.equal(law.evaluate(z)["log_likelihood"], state["log_likelihood"])
    assert not torch.allclose(whole, value.detach() - z[:, 1], atol=1e-3)  # without the Jacobian


def test_names_shapes_and_round_trip(model):
    law = from_stan(model)
    z = law.sample(Rng(0), 5)
    values = law.constrain(z)
    assert {k: tuple(v.shape) for k, v in values.items()} == {"mu": (5,), "s": (5,), "b": (5, 2, 2), "t": (5,)}
    assert torch.equal(values["b"][:, 1, 0], z[:, 3])  # Stan counts columns first
    assert torch.allclose(law.unconstrain(values), z)


def test_a_rejection_is_a_zero_of_the_density(model):
    law = from_stan(model)
    z = law.sample(Rng(0), 2)
    z[0, 0] = 101.0
    state = law.evaluate(z, True)
    assert state["log_likelihood"][0] == -math.inf
    assert state["log_likelihood"][1] > -math.inf
    assert (state["likelihood_gradient"][0] == 0).all()
    away = Normal(torch.full((6,), 1000.0, dtype=torch.float64), 1.0)
    with pytest.raises(MotesError, match="mu is too large"):
        from_stan(model, start=away)


def test_data_belong_to_a_file():
    with pytest.raises(MotesError, match="with a file"):
        from_stan(StandIn(), data={"y": 1.5})


def test_no_number_is_an_error():
    class Broken(StandIn):
        def log_density_gradient(self, theta_unc, *, propto=True, jacobian=True, out=None):
            return math.nan, np.zeros(6)

    with pytest.raises(NanLogPotential):
        from_stan(Broken(), start=Normal(torch.zeros(6, dtype=torch.float64), 1.0))


def test_a_program_without_parameters_is_refused():
    class Empty(StandIn):
        def param_unc_num(self):
            return 0

    with pytest.raises(MotesError, match="no parameters"):
        from_stan(Empty())
