"""What a sampler of images is given, refused where it does not fit with a word on what would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from motes.core.modules import refuse_training_mode
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.errors import MotesError, ShapeError, WrongType, check_name


def check_function(name: str, function: Any, example: str) -> None:
    """Raise a TypeError unless this is a function, or None.

    Args:
        name: what the argument is called.
        function: what was given.
        example: what would do.
    """
    if function is not None and (not callable(function) or isinstance(function, type)):
        raise WrongType(f"{name} must be a function, {example}, not {function!r}")


def check_networks(**given: Any) -> None:
    """Raise a MotesError if one of these is or holds a network in training mode; None is passed over.

    Args:
        given: what the user handed in, by what it is called.
    """
    for name, value in given.items():
        refuse_training_mode(value, f"the {name}")


def check_images(denoiser: Any, reward: Any, shape: Any, dtype: Any, device: Any) -> None:
    """Raise unless a sampler can make images of this shape and type there, by this model and for this reward, or None.

    Raises:
        ShapeError, TypeError, ValueError: as `check_image` and `check_function` do; or no `Denoiser` was given.
    """
    if not isinstance(denoiser, Denoiser):
        raise WrongType(f"give a Denoiser(model, process, predicts=...), not a {type(denoiser).__name__}")
    check_image(shape, dtype, device)
    check_function("reward", reward, "images (N, *shape) -> (N,) nats")


def check_final(final: str) -> None:
    """Raise UnknownName unless the image at the end is the "denoised" prediction or the "state"."""
    check_name("final", final, ("denoised", "state"))


def falling_times(steps: Any, grid: Callable[[int], Tensor]) -> Tensor:
    """The falling times (K + 1,) float64 of a sampler, given as such or as the number of steps of a grid."""
    if not isinstance(steps, Integral | Tensor):
        raise WrongType(f"steps must be a whole number or the falling times (K + 1,), a tensor, not {steps!r}")
    times = grid(int(steps)) if isinstance(steps, Integral) else steps.to(torch.float64)
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() < 0).all()):
        raise MotesError("steps must be a number, or at least two falling times (K + 1,)")
    return times


def check_tensors(**given: Any) -> None:
    """Raise a TypeError unless all of these are tensors; names the argument."""
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise WrongType(f"{name} must be a torch tensor, not a {type(value).__name__}: torch.as_tensor makes one")


def check_image(shape: Any, dtype: Any, device: Any) -> None:
    """Raise unless images of this shape and type can be made there.

    Raises:
        ShapeError: the shape is no tuple of positive whole numbers.
        TypeError: the type is not a floating-point one of torch.
        ValueError: there is no such device.
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise ShapeError(f"shape must be the shape of one image, a tuple such as (1, 28, 28) or (2,), not {shape!r}")
    if not all(isinstance(s, Integral) and not isinstance(s, bool) and int(s) > 0 for s in shape):
        raise ShapeError(f"shape must hold positive whole numbers, not {shape!r}")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise WrongType(f"dtype must be a floating-point type such as torch.float32, not {dtype!r}")
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError):
        raise MotesError(f'device must be a device of torch such as "cpu" or "cuda", not {device!r}') from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise MotesError(f"device={device!r}, but torch sees no CUDA device here; use the CPU")
