"""Which kernel moves the particles of a density, if the user does not say."""

from __future__ import annotations

from motes.errors import MotesError
from motes.kernels import Kernel, find_kernel, kernels
from motes.laws.law import Law, must_be_law


def choose_kernel(density: Law, kernel: Kernel | str | None, best: str, *, biased: bool = False) -> Kernel:
    """The kernel that was asked for, or `best` where there are gradients and a gradient-free one elsewhere.

    Args:
        biased: whether kernels will do that do not leave their target invariant; weights would be wrong with them.

    Raises:
        UnknownName: there is no such kernel; only those that suit the density are listed.
        MotesError: it needs gradients that the density has not, moves other points than the density's, or is biased.
        WrongType: `density` is no law.
    """
    must_be_law(density)
    discrete = density.levels is not None
    if kernel is None:
        kernel = ("gibbs-with-gradients" if density.differentiable else "flip") if discrete else None
        kernel = kernel or (best if density.differentiable else "random-walk")
    fitting = [
        name
        for name, k in kernels.items()
        if k.discrete == discrete and (density.differentiable or not k.gradient) and (biased or k.exact)
    ]
    kernel = find_kernel(kernel, fitting)
    if kernel.gradient and not density.differentiable:
        raise MotesError(
            f"{type(kernel).__name__} needs gradients, and none flow through log_likelihood: write it with torch "
            "operations, or use a kernel without them, like kernel='random-walk'"
        )
    if kernel.discrete != discrete:
        what = "whole numbers" if kernel.discrete else "real vectors"
        raise MotesError(
            f"{type(kernel).__name__} moves {what}, and the density is over "
            + (f"whole numbers 0..{density.levels - 1}" if density.levels is not None else "real vectors")
            + f"; kernels for it are: {', '.join(fitting)}"
        )
    if not kernel.exact and not biased:
        raise MotesError(
            f"{type(kernel).__name__} does not leave its target invariant, so the weights would be wrong: use an exact "
            f"kernel here, like {best!r}, or the biased one in motes.Chains"
        )
    if kernel.one_target and not biased:
        raise MotesError(
            f"{type(kernel).__name__} holds draws that are exact for one law, and here kernels are asked for tempered "
            "or constrained ones too, so the weights would be wrong: use it in motes.Chains, or kernels on all blocks"
        )
    return kernel
