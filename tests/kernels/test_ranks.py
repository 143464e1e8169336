"""Exact rank tests: what they find in kernels that are wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from breaks import breaks, decide
from motes.kernels import kernels
from motes.rng import Rng
from motes.testing import check_kernel
from motes.testing.exact_laws import Conjugate


def test_a_kernel_for_another_target_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Conjugate.log_density
    monkeypatch.setattr(Conjugate, "log_density", lambda self, s: right(self, s) - 0.5 * s["position"][:, 0])
    with breaks("reversible"):
        check_kernel(kernels["random-walk"](), laws=["reversible"], n=100)


@pytest.mark.parametrize("name", ["random-walk", "hmc"])
def test_without_acceptance_ranks_are_not_uniform(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def always(rng: Rng, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_ratio), torch.isfinite(log_ratio)

    decide(monkeypatch, always)
    # leapfrog is nearly right by itself: a coarse step shows what acceptance is for
    coarse = {"step_size": 1.5, "leapfrog_steps": 2} if name == "hmc" else {}
    with breaks("reversible"):
        check_kernel(kernels[name](), laws=["reversible"], parameters=coarse, n=100)
