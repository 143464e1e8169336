"""One shape for all that is called: the signatures of every public name, read from the `__all__` of every package."""

from __future__ import annotations

import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import Parameter
from typing import Any

import pytest

import motes
from motes.core import FeynmanKac
from motes.kernels import HMC
from motes.language.rules import Temperature

Signatures = dict[str, inspect.Signature]

RENAMED = {
    "when": "ess_threshold",
    "cess": "conditional_ess",
    "forget": "max_correlation",
    "moves": "sweeps",
    "noise_level": "noise",
}
RECORDS = {
    *("Comparison", "Estimate", "Finding", "JsonSchema", "Particles", "Remark", "Result", "Run", "Scheme"),
    *("StandardError", "State", "StepContext", "Sweep", "Tally"),
}
"""What the package makes and hands out, written in a fixed order."""
HOUSE = {"motes.kernels.move"}
"""Called by samplers with what a kernel's own methods take, in the order in which those have it."""
SHARED = ("ess_threshold", "guidance", "noise", "reward", "schedule", "steps", "sweeps", "times")
OWN = {
    ("ActiveDiffusion", "guidance"): "its measurements guide it; without, nothing would be learnt from them",
    ("AnnealedImportanceSampling", "sweeps"): "the number of temperatures is what adapts, not the sweeps at each",
    ("CorruptDenoise", "steps"): "small walks back from a low noise level, and many of them",
    ("CorruptDenoise", "sweeps"): "the length of the chain",
    ("Follmer", "steps"): "a diffusion from 0 to 1, with no step size to adapt",
    ("Guided", "schedule"): "the published samplers, which count the predicted reward in full at every step",
    ("ParallelTempering", "sweeps"): "between two swaps; what is forgotten is told by round trips",
    ("ReflectedDiffusion", "schedule"): "it has no signal by which the predicted reward could be trusted",
    ("ResampleMove", "sweeps"): "texts have no correlation with their start; rewrites are dear, so they are counted",
    ("SMC2", "sweeps"): "each costs a run of the particle filter over all observations",
    ("SplitGibbs", "sweeps"): "the length of the chain",
    ("WalkJump", "sweeps"): "of one measurement; the chain of measurements goes on from them",
}
"""Samplers with a default of their own, and why."""


def public() -> Iterator[tuple[str, Any]]:
    """Every class and function that a package exports, once, by the path of its first door."""
    seen: set[int] = set()
    inner = [import_module(m.name) for m in pkgutil.walk_packages(motes.__path__, "motes.") if m.ispkg]
    for package in [motes, *inner]:
        for name in getattr(package, "__all__", ()):
            found = getattr(package, name)
            if (inspect.isclass(found) or inspect.isfunction(found)) and id(found) not in seen:
                seen.add(id(found))
                yield f"{package.__name__}.{name}", found


def read(found: Iterator[tuple[str, Any]]) -> Signatures:
    """The signatures of what can be called."""
    signatures = {}
    for path, what in found:
        if getattr(what, "_is_protocol", False):  # never called
            continue
        try:
            signatures[path] = inspect.signature(what)
        except ValueError:  # an exception, made by C
            continue
    return signatures


PUBLIC = dict(public())
ALL = read(iter(PUBLIC.items()))


def places(signature: inspect.Signature) -> list[Parameter]:
    return [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def by_keyword(all_: Signatures) -> Iterator[str]:
    """What has a default is by keyword, but for the first argument and functions of two; so is a fifth argument."""
    for path, signature in all_.items():
        first, is_class = places(signature), inspect.isclass(PUBLIC.get(path))
        if path.rsplit(".", 1)[1] in RECORDS or (not is_class and len(signature.parameters) <= 2):
            continue
        late = [p.name for p in first[1:] if p.default is not p.empty]
        if late:
            yield f"{path}: {late} by keyword only"
        knobs = any(p.default is not p.empty for p in signature.parameters.values())
        if len(first) > 4 and path not in HOUSE and (knobs or not is_class):
            yield f"{path}: {len(first)} arguments by place"


def words(all_: Signatures) -> Iterator[str]:
    """No name that has been given up."""
    for path, signature in all_.items():
        yield from (f"{path}: {RENAMED[p]} for {p}" for p in signature.parameters if p in RENAMED)


def order(all_: Signatures) -> Iterator[str]:
    """`rng` is first, as within the package, or there is `seed=`; the process is the denoiser's."""
    for path, signature in all_.items():
        first = [p.name for p in places(signature)]
        if path.rsplit(".", 1)[1] in RECORDS or path in HOUSE or path == "motes.Rng":
            continue
        if "rng" in signature.parameters and first[:1] != ["rng"]:
            yield f"{path}: rng is first, or call it seed and take it by keyword"
        if "seed" in first or {"seed", "rng"} <= set(signature.parameters):
            yield f"{path}: seed by keyword, and no rng beside it"
        if "n" in first and {"model", "run", "generation"} & set(first[first.index("n") :]):
            yield f"{path}: n after what it is a number of draws from"
        model = {str(p.annotation) for p in signature.parameters.values()} & {"Denoiser", "TokenModel"}
        if model and "process" in signature.parameters:
            yield f"{path}: the process is that of its {model.pop()}"


def defaults(samplers: Signatures) -> Iterator[str]:
    """A name that samplers of one domain share has one default in all of them."""
    found: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, signature in samplers.items():
        name = path.rsplit(".", 1)[1]
        domain = PUBLIC[path].__module__.split(".")[1] if path in PUBLIC else "one"
        for p in signature.parameters.values():
            if p.name in SHARED and p.default is not p.empty and (name, p.name) not in OWN:
                found[domain, p.name][repr(p.default)].append(name)
    yield from (f"{domain}, {name}: {dict(by)}" for (domain, name), by in found.items() if len(by) > 1)


def swallowed(all_: Signatures) -> Iterator[str]:
    """No constructor takes names that it does not know."""
    for path, signature in all_.items():
        if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()) and path[path.rfind(".") + 1].isupper():
            yield f"{path}: a misspelt name would go by in silence"


def samplers() -> Signatures:
    return {p: s for p, s in ALL.items() if inspect.isclass(PUBLIC[p]) and issubclass(PUBLIC[p], FeynmanKac)}


def late(model, kernel=None, steps=3): ...
def crowd(a, b, c, d, e): ...
def old(model, *, when=0.5): ...
def behind(model, rng): ...
def placed(model, seed, *, steps=3): ...
def early(n, model): ...
def twice(denoiser: Denoiser, process, steps): ...  # type: ignore[name-defined]
def one(model, *, steps=3): ...
def other(model, *, steps=4): ...
def Anything(model, **knobs): ...


RULES: dict[str, tuple[Callable[[Signatures], Iterator[str]], Callable[[], Signatures], list[list[Any]]]] = {
    "what follows the first arguments is by keyword": (by_keyword, lambda: ALL, [[late], [crowd]]),
    "old names are gone": (words, lambda: ALL, [[old]]),
    "rng, seed, n and process have one place": (order, lambda: ALL, [[behind], [placed], [early], [twice]]),
    "a shared name has one default": (defaults, samplers, [[one, other]]),
    "a misspelt name is not swallowed": (swallowed, lambda: ALL, [[Anything]]),
}


@pytest.mark.parametrize("rule", RULES)
def test_all_signatures(rule: str) -> None:
    check, signatures, broken = RULES[rule]
    assert list(check(signatures())) == []
    for twin in broken:
        assert list(check(read((f"twin.{f.__name__}", f) for f in twin))), twin


def test_exceptions_are_needed() -> None:
    """Every sampler that has a default of its own still is one, and differs from the others."""
    named = {path.rsplit(".", 1)[1]: signature for path, signature in samplers().items()}
    assert {(name, knob) for name, knob in OWN if knob not in named[name].parameters} == set()
    for name, knob in OWN:
        domain = PUBLIC[next(p for p in samplers() if p.endswith(f".{name}"))].__module__.split(".")[1]
        others = {
            repr(s.parameters[knob].default)
            for p, s in samplers().items()
            if PUBLIC[p].__module__.split(".")[1] == domain and knob in s.parameters and not p.endswith(f".{name}")
        }
        assert others != {repr(named[name].parameters[knob].default)}, f"{name} needs no exception for {knob}"
    names = {path.rsplit(".", 1)[1] for path in ALL}
    assert names >= RECORDS
    assert set(ALL) >= HOUSE


MISSPELT: list[Callable[[], Any]] = [
    lambda: motes.Tempering(None, sweps=3),  # type: ignore[arg-type, call-arg]
    lambda: HMC(lenght=1.0),  # type: ignore[call-arg]
    lambda: Temperature(temprature=1.0),  # type: ignore[call-arg]
]


@pytest.mark.parametrize("make", MISSPELT)
def test_a_misspelt_name_is_a_type_error(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument '(sweps|lenght|temprature)'"):
        make()
