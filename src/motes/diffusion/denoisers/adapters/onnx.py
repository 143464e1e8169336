"""Denoisers from ONNX files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from motes.core.micro_batches import in_parts
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.processes.process import Process
from motes.errors import MotesError, UnknownName, check_name, needing

INSTALL = "denoisers from ONNX files need onnxruntime: pip install 'motes[onnx]'"
TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


def from_onnx(
    path: str | PathLike[str],
    process: Process,
    *,
    predicts: Literal["noise", "data", "velocity", "score", "flow", "backward flow"] = "data",
    condition: Literal["t", "sigma"] | Callable[[Tensor], Tensor] = "sigma",
    inputs: tuple[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    output: str | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int = 0,
) -> Denoiser:
    """The denoiser in an ONNX file, run by onnxruntime.

    It has no gradients: methods that need them say so, others (rewards without guidance, functions of the prediction)
    work as with any model. A file whose batch size is fixed is run in parts of that size.

    Args:
        path: the file.
        process, predicts, condition: what the network was trained for, as for `Denoiser`.
        inputs: the names of the file's inputs for the images and for the condition; None takes the first two.
        extra: values of all other inputs: a number fills the input, an array with a first axis of 1 is repeated for
            every image, other arrays are given as they are.
        output: the name of the prediction among the file's outputs; None takes the first.
        providers: what onnxruntime computes with, in order of preference.
        threads: threads that one call may use; 0 is onnxruntime's choice.

    Raises:
        ImportError: onnxruntime is not installed.
        UnknownName: the file has no such input or output.
        MotesError: an input of the file has no value, or one of a type or a shape that is not understood.

    Example:
        >>> from motes.diffusion.processes.edm import EDM
        >>> from motes.diffusion.denoisers.adapters.onnx import from_onnx
        >>> denoiser = from_onnx("unet.onnx", EDM(), extra={"difficulty": 0.5})  # doctest: +SKIP
    """
    with needing(INSTALL):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    asked = {i.name: i for i in session.get_inputs()}
    outputs = [o.name for o in session.get_outputs()]
    if inputs is None and len(asked) < 2:
        raise MotesError(f"the file has one input ({', '.join(asked)}): a denoiser takes images and a condition")
    image, level = inputs or tuple(asked)[:2]
    given = dict(extra or {})
    for name in (image, level, *given):
        check_name("input of the file", name, asked)
    if output is not None and output not in outputs:
        raise UnknownName("output of the file", output, outputs)
    missing = sorted(set(asked) - {image, level, *given})
    if missing:
        raise MotesError(f"the inputs {', '.join(missing)} of the file have no value: give extra={{name: value}}")
    odd = [f"{k} ({v.type})" for k, v in asked.items() if v.type not in TYPES]
    if odd:
        raise MotesError(f"the file has inputs of a type that is not understood: {', '.join(odd)}")
    first = asked[image].shape[0] if asked[image].shape else None
    size = first if isinstance(first, int) else None  # names and None are free

    def call(x: Tensor, t: Tensor) -> Tensor:
        """One run of the file."""
        feed = {image: _numbers(x, asked[image].type, image), level: _levels(t, asked[level], level)}
        feed |= {name: _other(value, asked[name], len(x)) for name, value in given.items()}
        return torch.from_numpy(session.run([output or outputs[0]], feed)[0]).to(x)

    def model(x: Tensor, t: Tensor) -> Tensor:
        """The prediction, in parts where the file has a fixed batch size."""
        with torch.no_grad():
            return in_parts(call, size, x, t)

    name = f"{Path(path).name} {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"
    return Denoiser(model, process, predicts=predicts, condition=condition, name=name)


def _numbers(value: Tensor, kind: str, name: str) -> np.ndarray:
    """A tensor as an array of the type that the file wants.

    Raises:
        MotesError: whole numbers are wanted and others given.
    """
    array = value.detach().cpu().numpy()
    out = array.astype(TYPES[kind])
    if np.issubdtype(TYPES[kind], np.integer) and not np.array_equal(out, array):
        raise MotesError(
            f"the file's input {name} takes whole numbers, and {array.ravel()[0]} is none: use times and a condition "
            "that are whole (diffusion.tabulated.Tabulated rounds its grids)"
        )
    return out


def _levels(t: Tensor, asked: Any, name: str) -> np.ndarray:
    """The condition (n,) in the file's rank: one number for all, (n,), or (n, 1, ...)."""
    if len(asked.shape) == 0 or asked.shape[0] == 1:
        if not bool((t == t[0]).all()):
            raise MotesError(f"the file's input {name} takes one number a call, so all particles need the same time")
        t = t[:1]
    shape = (-1,) + (1,) * (len(asked.shape) - 1) if asked.shape else ()
    return _numbers(t.reshape(shape), asked.type, name)


def _other(value: Any, asked: Any, n: int) -> np.ndarray:
    """The value of another input for n images."""
    array = np.asarray(value).astype(TYPES[asked.type])
    shape = [n if not isinstance(s, int) else s for s in asked.shape[:1]]
    if array.ndim == 0 and asked.shape:
        rest = asked.shape[1:]
        if not all(isinstance(s, int) for s in rest):
            raise MotesError(f"the file's input {asked.name} has shape {asked.shape}: give an array, not a number")
        return np.broadcast_to(array, (*shape, *rest)).copy()
    if array.ndim and array.shape[0] == 1 and asked.shape and not isinstance(asked.shape[0], int):
        return np.repeat(array, n, axis=0)
    return array
