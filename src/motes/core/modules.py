"""Networks inside of what a user gives: whether they compute the same every time, and keep gradients."""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from motes.errors import MotesError

MOST_OBJECTS = 2000
"""Objects that a search for networks looks at, and how deep they may lie."""
DEEPEST = 8
PLAIN = (str, bytes, int, float, complex, bool, type(None), Tensor, type, ModuleType, CodeType)
KNOBS = ("p", "dropout", "attention_dropout", "dropout_p", "drop_prob", "activation_dropout", "resid_dropout")


def refuse_training_mode(given: object, name: str) -> None:
    """Raise MotesError if a network that `given` is or holds computes something else in training mode.

    Dropout then draws numbers of its own, and batch normalisation mixes the particles: weights would be wrong in
    silence. Networks without such parts pass in either mode.

    Args:
        given: a network, a function, or any object; networks are looked for in what it closes over, is bound to, names
            as globals, or has as attributes.
        name: what the message calls it: "the denoiser", "the reward".
    """
    for network in networks(given):
        part = in_training(network)
        if part is not None:
            where = f"its part {part!r} (a {type(network.get_submodule(part)).__name__})" if part else "it"
            raise MotesError(
                f"{name} is a network in training mode, or holds one: {where} would draw numbers of its own or mix the "
                f"particles, as dropout and batch normalisation do: call .eval() on the {type(network).__name__} first"
            )


def in_training(network: nn.Module) -> str | None:
    """The name of the first part that computes something else in training mode and is in it; None if there is none."""
    for name, part in network.named_modules():
        if part.training and _reads_training(part):
            return name
    return None


def _reads_training(part: nn.Module) -> bool:
    """Whether what the part computes depends on its mode."""
    if isinstance(part, torch.jit.ScriptModule):
        kind = str(getattr(part, "original_name", ""))
        return "Dropout" in kind or "BatchNorm" in kind
    forward = getattr(type(part).forward, "__wrapped__", type(part).forward)
    code = getattr(forward, "__code__", None)
    if code is None or not any("training" in c.co_names for c in _codes(code)):
        return False
    knobs = [v for k in KNOBS if isinstance(v := getattr(part, k, None), int | float)]
    return not knobs or any(knobs)


def networks(given: object) -> list[nn.Module]:
    """The networks that an object is or holds, outermost ones, in the order in which they are met."""
    found: list[nn.Module] = []
    seen: set[int] = set()
    level = [given]
    for _ in range(DEEPEST + 1):
        below: list[object] = []
        for value in level:
            if id(value) in seen or isinstance(value, PLAIN) or len(seen) >= MOST_OBJECTS:
                continue
            seen.add(id(value))
            if isinstance(value, nn.Module):
                found.append(value)
            else:
                below += _held(value)
        level = below
    return found


def _held(value: Any) -> Iterator[object]:
    """What an object refers to by itself."""
    if isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, FunctionType):
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not filled yet
                continue
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        if not (value.__module__ or "").startswith(("torch.", "motes.", "transformers.")):
            for code in _codes(value.__code__):
                names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
                yield from (value.__globals__[k] for k in sorted(names) if k in value.__globals__)
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    else:
        yield from (getattr(value, "__dict__", None) or {}).values()
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            yield from (getattr(value, s, None) for s in ([slots] if isinstance(slots, str) else slots))


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions and comprehensions written in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def gradient(value: Tensor, x: Tensor, what: str, *, instead: str = "", of: str = "x", **options: Any) -> Tensor:
    """The gradient of the sum of `value` with respect to `x`, like x.

    Args:
        value: (n,), each made from its own row of x.
        x: (n, ...), with `requires_grad`.
        what: what the message calls the value: "the reward".
        instead: what else may be done, a clause without a full stop.
        of: what the message calls x: "the image".
        options: `retain_graph`, `create_graph`.

    Raises:
        MotesError: the value does not depend on x by operations that keep gradients.
    """
    if value.requires_grad:  # a network's own parameters ask for gradients too, so this is not enough
        (slope,) = torch.autograd.grad(value.sum(), x, allow_unused=True, **options)
        if slope is not None:
            return slope
    raise MotesError(
        f"{what} has no gradient with respect to {of}: compute it with torch operations that keep gradients, outside "
        f"of torch.no_grad and torch.inference_mode, without .detach(), .item() or numpy{instead and f'; or {instead}'}"
    )
