"""The check of schemes finds each promise broken by a scheme that breaks this one."""

from __future__ import annotations

import pytest
import torch

from breaks import breaks
from motes.core.resampling import Scheme, schemes
from motes.errors import MotesError
from motes.testing import LawViolation, check_scheme
from motes.testing.schemes import unbiased


def lattice(rng, log_weight, n, side=True, high=1.0):
    """Systematic resampling as one would write it in a hurry."""
    end = torch.softmax(log_weight, 0).cumsum(0)
    place = (torch.arange(n) + high * rng.uniform(())) / n
    return torch.searchsorted(end, place, right=side).clamp(max=len(end) - 1)


def made(function, *, bounded: bool = False) -> Scheme:
    return Scheme("mine", function, variance=None, bounded=bounded)


def test_a_scheme_that_is_right_passes():
    assert check_scheme(made(lattice)).keys() == {"unbiased", "legal", "address"}


def cut(rng, w, n):
    """The last quarter of the uniform number is never used."""
    return lattice(rng, w, n, high=0.75)


def next_slot(rng, w, n):
    """Each parent is one slot too far."""
    return (lattice(rng, w, n) + 1).clamp(max=len(w) - 1)


@pytest.mark.parametrize("function", [cut, next_slot])
def test_a_biased_scheme_is_found_out(function):
    with pytest.raises(LawViolation, match=r"mine gives particle \[\d\] .* children on average and should give"):
        unbiased(made(function), (0.3, -1.2, 0.9))
    with pytest.raises(LawViolation):
        check_scheme(made(function))


def late(rng, w, n):
    """Right for up to three particles; the first of more is chosen whatever its weight."""
    return lattice(rng, w, n) if len(w) < 4 else lattice(rng, w, n).scatter(0, torch.tensor([0])[: min(n, 1)], 0)


def out_of_range(rng, w, n):
    return lattice(rng, w, n) if len(w) < 4 else lattice(rng, w, n) + len(w)


def counting(rng, w, n, calls=[]):  # noqa: B006
    calls.append(n)
    return lattice(rng.at("call", inner=len(calls)) if len(w) > 3 else rng, w, n)


@pytest.mark.parametrize("function, law", [(late, "legal"), (out_of_range, "legal"), (counting, "address")])
def test_a_law_that_is_broken_is_named(function, law):
    with breaks(law):
        check_scheme(made(function))


def single(rng, w, n):
    """Sums in float32, which lose particles where there are many."""
    if len(w) < 1000:
        return schemes["systematic"].function(rng, w, n)
    end = torch.from_numpy(torch.softmax(w, 0).float().numpy().cumsum())
    return torch.searchsorted(end, ((torch.arange(n) + 0.5) / n).float(), right=True).clamp(max=len(w) - 1)


@pytest.mark.parametrize("function", [schemes["multinomial"].function, single])
def test_a_promise_that_is_not_kept_is_found_out(function):
    with breaks("bounded"):
        check_scheme(made(function, bounded=True))


def test_what_cannot_be_enumerated_is_said():
    with pytest.raises(MotesError, match=r"rng\.gumbel has more outcomes than can be enumerated"):
        check_scheme(made(lambda rng, w, n: (w + rng.gumbel((n, len(w)))).argmax(1)))
