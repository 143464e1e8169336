"""Every route gives the bits of the reference, and "auto" takes what there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motes.rng import Rng, routes
from motes.rng.rng import GENERATORS
from process import python

KINDS = ("bits", "uniform", "normal", "exponential", "gumbel")
needs_numba = pytest.mark.skipif(bool(routes.missing("numba")), reason=routes.missing("numba"))
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@needs_numba
@given(
    st.sampled_from(sorted(GENERATORS)),
    st.sampled_from([(1, 1), (1, 2), (5, 1), (2, 3), (600, 3), (3, 601), (1, 9000), (4099, 2)]),
    st.sampled_from(KINDS),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 4100),
)
@settings(max_examples=150)
def test_compiled_loops_give_the_bits_of_the_reference(generator, shape, kind, dtype, step, seed, first) -> None:
    options = () if kind == "bits" else (dtype,)
    ids = torch.arange(first, first + shape[0])
    both = [
        getattr(Rng(seed, generator=generator, route=route).at("x", step=step, inner=7).shard(ids), kind)
        for route in ("reference", "numba")
    ]
    one, two = both[0](shape, *options), both[1](shape, *options)
    assert one.dtype == two.dtype and torch.equal(one, two)


@needs_numba
def test_compiled_normals_at_scale() -> None:
    """A million of them, tail and all, bit for bit in float64."""
    one, two = (Rng(5, route=route).normal((1 << 17, 8)) for route in ("reference", "numba"))
    assert torch.equal(one, two)
    assert float(one.abs().max()) > 4.5


def test_auto_waits_for_the_compiler_only_if_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(routes, "_spent", 0.0)
    assert routes._choose(cpu, 1000) is routes.reference
    Rng(0).normal((1000,))
    assert 0.0 < routes._spent < routes.PATIENCE
    if not routes.missing("numba"):
        assert routes._choose(cpu, 10**7).name == "numba"
        monkeypatch.setattr(routes, "_spent", 2 * routes.PATIENCE)
        assert routes._choose(cpu, 1).name == "numba"


def test_a_missing_route_is_named_and_auto_goes_on() -> None:
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "triton"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from motes.rng import Rng, routes, self_test
routes._spent = 100.0
print(Rng(0).normal((3, 2)).tolist())
print(routes.available("cpu"), any(self_test().values()))
for route in ("numba", "triton"):
    try:
        Rng(0, route=route).normal((3,))
    except ValueError as error:
        print(error)
"""
    done = python("-c", code)
    lines = done.stdout.splitlines()
    assert lines[:2] == [str(Rng(0).normal((3, 2)).tolist()), "['reference'] False"], done.stderr
    assert "'numba' route" in lines[2] and "pip install 'motes[fast]'" in lines[2] and "route='auto'" in lines[2]
    assert "'triton' route" in lines[3] and ("CUDA" in lines[3] or "triton" in lines[3])


@needs_numba
def test_a_route_on_the_wrong_device_is_refused() -> None:
    with pytest.raises(ValueError, match="works on cpu, but this Rng is on cuda"):
        routes._run("draw", "numba", torch.device("cuda"), 1)


@needs_numba
def test_loops_are_compiled_even_where_nothing_can_be_kept() -> None:
    from motes.rng.routes import kernels

    names: dict[str, Callable[[int], int]] = {}
    # a function without a file has no place for a cache
    exec("def double(x): return 2 * x", names)
    assert kernels.compiled(names["double"])(21) == 42


INTERPRETED = """
import torch
from motes.rng.rng import GENERATORS
from motes.rng.routes import cuda, reference
g, key = GENERATORS["philox4x32-10"], (0xDEADBEEF, 0xFFFFFFF1)
for n, count in ((1, 1), (5, 1), (300, 3), (7, 1001)):
    ids = torch.arange(n) + (1 << 32) - n
    for what in ("bits", "uniform", "normal", "exponential", "gumbel"):
        for dtype in (torch.int64,) if what == "bits" else (torch.float32, torch.float64):
            rest = (g, what, key, ids, count, 0xFFFFFFFE, 1, dtype)
            assert torch.equal(cuda.draw(*rest), reference.draw(*rest)), (n, count, what, dtype)
print("equal")
"""


@needs_triton
def test_the_triton_kernel_in_its_interpreter() -> None:
    """Triton's interpreter runs the kernel in NumPy: the arithmetic is checked, the card's rounding is not."""
    done = python("-c", INTERPRETED, TRITON_INTERPRET="1")
    assert done.stdout.strip() == "equal", done.stderr


@needs_triton
def test_the_triton_kernel_compiles_to_instructions_that_round_as_the_reference() -> None:
    """No card is needed to compile. No fused product and sum, and division and square root round to nearest."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from motes.rng.routes import cuda

    signature = {"out": "*fp64", "ids": "*i64", "address": "*i64", "table": "*fp64"}
    signature |= dict.fromkeys(("total", "per_row", "count"), "i32") | dict.fromkeys(("what", "block"), "constexpr")
    source = ASTSource(fn=cuda._kernel, signature=signature, constexprs={"what": cuda.WHAT["normal"], "block": 512})
    kernels = [
        triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": fused}).asm["ptx"]
        for fused in (False, True)
    ]
    found = [set(re.findall(r"\b((?:fma|div|sqrt)\.[a-z0-9.]*f64)", ptx)) for ptx in kernels]
    assert found[0] == {"div.rn.f64", "sqrt.rn.f64"}
    assert "fma.rn.f64" in found[1]  # the broken twin: what the option prevents


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_cuda_gives_the_bits_of_the_cpu() -> None:
    for route in routes.available("cuda"):
        for kind in KINDS:
            one = getattr(Rng(3, route="reference"), kind)((5001, 7))
            two = getattr(Rng(3, route=route, device="cuda"), kind)((5001, 7))
            assert torch.equal(one, two.cpu()), (route, kind)
