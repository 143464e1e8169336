"""Models of the diffusers package, with what their schedulers say of the process they were trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.denoisers.preconditioned import preconditioned
from motes.diffusion.processes.edm import EDM
from motes.diffusion.processes.interpolant import RectifiedFlow
from motes.diffusion.processes.tabulated import Tabulated
from motes.errors import MotesError, ShapeError

PREDICTIONS = {"epsilon": "noise", "sample": "data", "v_prediction": "velocity", "flow_prediction": "flow"}
DISTILLED = ("LCM", "TCD", "Consistency", "CMStochastic", "DMDScheduler")


def from_diffusers(model: Any, scheduler: Any, *, extra: Mapping[str, Any] | None = None, name: str = "") -> Denoiser:
    """The denoiser of a diffusers model, its process taken from the scheduler.

    The scheduler only says what the network was trained for: a table of noise levels and a prediction type (then times
    are 0 to T - 1), a flow matching model (times 0 to 1, see `RectifiedFlow`), or an EDM model (time is the noise
    level). Its sampler, its grid, its clipping and its thresholding are not used. Nothing of diffusers is imported.

    Args:
        model: a UNet2DModel, UNet2DConditionModel, DiTTransformer2DModel, ...: called with the images, `timestep=` and
            `extra` by name. In evaluation mode.
        scheduler: the scheduler that belongs to it, of any class whose process can be told.
        extra: more arguments of the model (class_labels, encoder_hidden_states, ...); a tensor whose first axis is 1 is
            repeated for every image.
        name: kept with runs; the model's class if empty.

    Returns:
        The denoiser, whose `process` is what samplers need.

    Raises:
        MotesError: the scheduler belongs to a distilled model (which does not predict a mean), to a discrete or a
            continuous-time model that has no table, or does not say what the model predicts.
        ShapeError: on a call, when the model returns another shape.
        ValueError: the model is in training mode; a tensor of `extra` has another first axis than 1.

    References:
        von Platen et al. (2022), Diffusers: State-of-the-art diffusion models (the schedulers' conventions).
        Karras, Aittala, Aila & Laine (2022), NeurIPS, Table 1 (EDM).
    """
    if getattr(model, "training", False):
        raise MotesError("the model is in training mode, where dropout draws numbers of its own: call model.eval()")
    kind, config = type(scheduler).__name__, dict(scheduler.config)
    given = dict(extra or {})
    for key, value in given.items():
        if isinstance(value, Tensor) and (value.ndim == 0 or value.shape[0] != 1):
            raise MotesError(f"{key} must have a first axis of 1, repeated for every image, not {tuple(value.shape)}")
    learned = str(config.get("variance_type", "")).startswith("learned")
    parameter = next(model.parameters(), None)

    def network(x: Tensor, t: Tensor) -> Tensor:
        """The model's output for the images x at the numbers t that it is told."""
        like = x if parameter is None else parameter
        more = {k: v.expand(len(x), *v.shape[1:]) if isinstance(v, Tensor) else v for k, v in given.items()}
        out = model(x.to(like.dtype), timestep=t, **more, return_dict=False)[0].to(x)
        if learned and out.shape[1] == 2 * x.shape[1]:  # the second half is the variance
            out = out[:, : x.shape[1]]
        if out.shape != x.shape:
            raise ShapeError(f"the model returned shape {tuple(out.shape)} for x of shape {tuple(x.shape)}")
        return out

    name, said = name or type(model).__name__, config.get("prediction_type")
    if any(part in kind for part in DISTILLED):
        raise MotesError(f"{kind} belongs to distilled models, which predict the end of a path and not the mean")
    if config.get("timestep_type") == "continuous":
        raise MotesError(f'{kind} with timestep_type="continuous" has no table of the times that the model was told')
    if "FlowMatch" in kind or said == "flow_prediction":
        many, backward = float(config["num_train_timesteps"]), bool(config.get("invert_sigmas"))
        return Denoiser(
            network,
            RectifiedFlow(),
            predicts="backward flow" if backward else "flow",
            condition=(lambda t: many * (1 - t)) if backward else (lambda t: many * t),
            name=name,
        )
    if said not in PREDICTIONS:
        raise MotesError(
            f"{kind} does not say what the model predicts: prediction_type={said!r} is not in {list(PREDICTIONS)}; "
            "build Denoiser(model, process, predicts=...) by hand"
        )
    if "sigma_data" in config:
        if said not in ("epsilon", "v_prediction"):
            raise MotesError(f"{kind} has no rule for prediction_type={said!r}")
        sign = 1 if said == "epsilon" else -1  # the scheduler's convention for the output's scale
        process = EDM(float(config["sigma_min"]), t_max=float(config["sigma_max"]), rho=float(config.get("rho", 7.0)))
        return preconditioned(
            lambda x, c: sign * network(x, c), process, sigma_data=float(config["sigma_data"]), name=name
        )
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        raise MotesError(
            f"{kind} has no alphas_cumprod, so the process is unknown: build Denoiser(model, process, predicts=...) "
            "by hand"
        )
    table = torch.as_tensor(table).detach().cpu().to(torch.float64)
    table = table[: int((table > 0).sum())]  # a last level without data has nothing to predict from
    return Denoiser(network, Tabulated(table), predicts=PREDICTIONS[said], name=name)  # type: ignore[arg-type]
