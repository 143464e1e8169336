"""Calling JAX functions on batches of torch tensors: in float64, without copies, compiled for few sizes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from motes.errors import needing
from motes.kernels import State

INSTALL = "this needs JAX (and NumPyro for its models): pip install 'motes[jax]'"

Parts = Callable[[Any], tuple[Any, Any, Any]]
"""Maps one point (dim,) to its log-likelihood, its log-prior, and whether it is inside of the support."""


def need_jax() -> Any:
    """The package JAX.

    Raises:
        ImportError: it is not installed.
    """
    with needing(INSTALL):
        import jax
    return jax


def x64() -> AbstractContextManager[Any]:
    """A context in which JAX computes in float64, whatever the program around it has chosen."""
    jax = need_jax()
    enable = getattr(jax, "enable_x64", None)
    if enable is None:  # before JAX 0.8
        enable = importlib.import_module("jax.experimental").enable_x64
    return enable(True)


class Batched:
    """A JAX function of one point as a function of a batch of torch tensors.

    The batch is filled up to the next power of two with copies of its last row, so that a population that changes its
    size is compiled for a few sizes only. Tensors are handed over by DLPack, which copies nothing on either way but
    what is filled up. The last bits of a row may depend on the power of two, never on the other rows.

    Args:
        function: a JAX function of the rows of its arguments, which are trees of arrays.
    """

    def __init__(self, function: Callable[..., Any]):
        jax = need_jax()
        self._call = jax.jit(jax.vmap(function))

    def __call__(self, *arguments: Any) -> Any:
        """The function at every row: trees of tensors (N, ...) to a tree of tensors (N, ...)."""
        jax = need_jax()
        given = jax.tree.leaves(arguments)
        n = len(given[0])
        size = 1 << max(0, n - 1).bit_length()
        with x64():
            value = self._call(*jax.tree.map(lambda v: to_jax(v, size), arguments))
            value = jax.block_until_ready(value)
            seen = {v.data_ptr() for v in given}
            return jax.tree.map(lambda v: to_torch(v, seen)[:n], value)


class Evaluated:
    """A log-likelihood and a log-prior of one point, in JAX, as what `Law.evaluate` says of a batch.

    Args:
        parts: a JAX function of one point.
    """

    without: Batched
    with_gradient: Batched
    curved: Batched

    def __init__(self, parts: Parts):
        jax = need_jax()
        np = jax.numpy

        def without(z: Any) -> State:
            likelihood, prior, inside = parts(z)
            return {"log_likelihood": likelihood, "log_prior": prior, "inside": inside}

        def both(z: Any) -> tuple[tuple[Any, Any], Any]:
            likelihood, prior, inside = parts(z)
            return (likelihood, prior), inside

        def with_gradient(z: Any) -> State:
            (likelihood, prior), pull, inside = jax.vjp(both, z, has_aux=True)
            one, zero = np.ones_like(likelihood), np.zeros_like(likelihood)
            return {
                "log_likelihood": likelihood,
                "log_prior": prior,
                "inside": inside,
                "likelihood_gradient": pull((one, zero))[0],
                "prior_gradient": pull((zero, one))[0],
            }

        def curved(z: Any, vector: Any) -> tuple[Any, Any]:
            def slopes(z: Any) -> tuple[Any, Any]:
                state = with_gradient(z)
                return state["prior_gradient"], state["likelihood_gradient"]

            return jax.jvp(slopes, (z,), (vector,))[1]

        self.without, self.with_gradient, self.curved = Batched(without), Batched(with_gradient), Batched(curved)

    def __call__(self, z: Tensor, gradient: bool) -> State:
        state = (self.with_gradient if gradient else self.without)(z)
        return {k: v.to(torch.float64) if k.startswith("log_") else v for k, v in state.items()}

    def differentiable(self, dim: int) -> bool:
        """Whether JAX can trace the gradient; values that it cannot trace raise what they raise."""
        jax = need_jax()
        with x64():
            point = jax.ShapeDtypeStruct((1, dim), jax.numpy.float64)
            jax.eval_shape(self.without._call, point)
            return traceable(self.with_gradient, point)


def traceable(function: Batched, *shapes: Any) -> bool:
    """Whether a gradient can be traced. What JAX raises for lack of a rule of differentiation is no fixed class."""
    jax = need_jax()
    with x64():
        try:
            jax.eval_shape(function._call, *shapes)
        except Exception:  # noqa: BLE001 - ValueError, TypeError, NotImplementedError and JAX's own
            return False
    return True


def to_jax(tensor: Tensor, size: int | None = None) -> Any:
    """The same numbers as a JAX array, filled up to `size` rows with copies of the last; call it under `x64`."""
    jax = need_jax()
    tensor = tensor.detach()
    if size is not None and size > len(tensor):
        tensor = torch.cat([tensor, tensor[-1:].expand(size - len(tensor), *tensor.shape[1:])])
    return jax.dlpack.from_dlpack(tensor.contiguous())


def to_torch(array: Any, seen: set[int] | None = None) -> Tensor:
    """The same numbers as a tensor; a copy if the memory is among `seen` addresses, to which it is added.

    JAX may return one array twice, or an argument as it came, and what is made of it here may be changed in place.
    """
    tensor = torch.from_dlpack(array)
    if seen is not None and tensor.data_ptr() in seen:
        tensor = tensor.clone()
    if seen is not None:
        seen.add(tensor.data_ptr())
    return tensor


def keys(words: Any) -> Any:
    """The JAX key made of two 32-bit words (2,), int64 or uint32; the generator is Threefry, whatever the default."""
    jax = need_jax()
    return jax.random.wrap_key_data(words.astype("uint32"), impl="threefry2x32")


def flat(values: Mapping[str, Any]) -> Any:
    """One vector of all arrays."""
    np = need_jax().numpy
    return np.concatenate([np.ravel(v) for v in values.values()]).astype("float64")
