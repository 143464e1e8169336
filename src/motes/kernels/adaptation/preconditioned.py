"""Kernels in the coordinates in which the population is white."""

from __future__ import annotations

from torch import Tensor

from motes.kernels.adaptation.scale import fit_mean, fit_scale
from motes.kernels.kernel import Kernel, Parameters, State, Target


class Preconditioned(Kernel):
    """A kernel that learns the population's scale, and its mean if there is one among its parameters.

    Attributes:
        scale: "dense", "diagonal" or "auto" (see `fit_scale`).
    """

    scale: str

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        x = state["position"]
        new = {**parameters, "scale": fit_scale(x, weight, self.scale, parameters["scale"])}
        return {**new, "mean": fit_mean(x, weight, parameters["mean"])} if "mean" in parameters else new
