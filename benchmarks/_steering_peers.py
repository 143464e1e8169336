"""The peers of steering.py, each driven on the denoiser, the times and the reward that motes gets.

They are loaded from where they lie, and left out with a word on how to get them where they do not:

- azula (MIT), from PyPI: `make bench` installs it into build/azula;
- the reference code of FK steering: `git clone https://github.com/zacharyhorvitz/Fk-Diffusion-Steering
  build/fk-steering`, or its folder in MOTES_FK_STEERING;
- the reference code of the twisted diffusion sampler: `git clone
  https://github.com/blt2114/twisted_diffusion_sampler build/twisted-diffusion`, or its folder in MOTES_TWISTED.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import os
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import motes
from motes.diffusion import Denoiser

BUILD = Path(__file__).parent.parent / "build"
Peer = Callable[[int], tuple[Tensor, Tensor | None, float | None]]
"""From a seed to images, their log-weights (None: equal) and the log normaliser (None: the peer has none)."""


class Task:
    """What all samplers are asked for: a denoiser, falling times, a reward, and how many particles of which shape."""

    def __init__(self, denoiser: Denoiser, reward: Callable[[Tensor], Tensor], steps: int, n: int, shape: tuple):
        self.denoiser, self.reward, self.steps, self.n, self.shape = denoiser, reward, steps, n, shape
        self.process = denoiser.process
        self.images = (n, *shape)


def folder(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable, BUILD / name))


# ---------------------------------------------------------------- FK steering


def fk_steering(task: Task, potential: str) -> Peer | str:
    """Its class for resampling, called after every denoising step as its pipelines do."""
    root = folder("MOTES_FK_STEERING", "fk-steering")
    path = root / "text_to_image" / "fkd_diffusers" / "fkd_class.py"
    if not path.exists():
        return f"FK steering is not at {root}; see benchmarks/_steering_peers.py"
    spec = importlib.util.spec_from_file_location("fkd_class", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    table = motes.diffusion.transitions(task.process, task.steps)
    keep, pull, std, times = (v.tolist() for v in (table.keep, table.pull, table.std, table.times))

    def run(seed: int) -> tuple[Tensor, None, None]:
        torch.manual_seed(seed)
        steering = module.FKD(
            potential_type=potential,
            lmbda=1.0,
            num_particles=task.n,
            adaptive_resampling=True,
            resample_frequency=1,
            resampling_t_start=0,
            resampling_t_end=task.steps - 1,
            time_steps=task.steps,
            reward_fn=task.reward,
            reward_min_value=0.0 if potential == "diff" else -100.0,  # the largest so far, of rewards below 0
            device=torch.device("cpu"),
        )
        x = torch.randn(task.images)
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            for i in range(task.steps):
                image = task.denoiser.data(x, times[i])
                x = keep[i] * x + pull[i] * image + std[i] * torch.randn(task.images)
                x, _ = steering.resample(sampling_idx=i, latents=x, x0_preds=image)
        return x, None, None

    return run


# ---------------------------------------------------------------- the twisted diffusion sampler


def twisted(task: Task) -> Peer | str:
    """Its reference code for images, conditional on a class, with the reward as the class's log-probability.

    It takes the image from the denoised prediction at the last of T times, so that it asks T = steps times, as motes
    does with one step less. It resamples at every step, as its configuration does.
    """
    root = folder("MOTES_TWISTED", "twisted-diffusion")
    if not (root / "smc_utils").exists():
        return f"the twisted diffusion sampler is not at {root}; see benchmarks/_steering_peers.py"
    nothing = lambda *_, **__: None  # noqa: E731
    for name in ("torchvision", "torchvision.utils", "image_diffusion.image_util"):  # for its pictures, not made here
        if name not in sys.modules:
            stub: Any = types.ModuleType(name)
            stub.make_grid = stub.multi_imgwrite = stub.toU8 = stub.imwrite = stub.visualize_weights = nothing
            sys.modules[name] = stub
    sys.path[:0] = [str(root), str(root / "image_exp")]
    from image_diffusion import feynman_kac_image_ddpm, smc_diffusion  # type: ignore[import-not-found]
    from smc_utils.feynman_kac_pf import smc_FK  # type: ignore[import-not-found]

    times = task.process.times(task.steps - 1).flip(0)  # rising
    left = (task.process.alpha(times) ** 2).numpy()
    sampler = feynman_kac_image_ddpm.TwistedDDPM(
        particle_base_shape=task.shape,
        use_timesteps=range(task.steps),
        betas=1 - left / np.concatenate([[1.0], left[:-1]]),
        model_mean_type=smc_diffusion.ModelMeanType.EPSILON,
        model_var_type=smc_diffusion.ModelVarType.LEARNED_RANGE,
        loss_type=smc_diffusion.LossType.MSE,
    )
    sampler.task, sampler.use_mean_pred, sampler.t_truncate = "class_cond_gen", True, 0

    def model(x: Tensor, index: Tensor, y: None) -> Tensor:
        noise = task.denoiser.noise(x, float(times[int(index[0])]))
        return torch.cat(
            [noise, torch.full_like(noise, -1.0)], 1
        )  # -1: the variance of the forward process's posterior

    def reward(xt: Tensor, x0_hat: Tensor, return_grad: bool = True, return_full_prob_original_scale: bool = False):
        if return_grad:
            value = task.reward(x0_hat)
            return value.detach(), torch.autograd.grad(value.sum(), xt)[0]
        with torch.no_grad():
            value = task.reward(x0_hat)
        return (value, value) if return_full_prob_original_scale else value

    sampler.classifier_prob_fn = reward

    def run(seed: int) -> tuple[Tensor, Tensor, float]:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 what the peer draws from
        sampler.clear_cache()
        images, log_w, *_, trace, _ = smc_FK(
            M=partial(sampler.M, model=model, device="cpu"),
            G=partial(sampler.G, model=model),
            resample_strategy="systematic",
            ess_threshold=None,
            T=sampler.T,
            P=task.n,
        )
        z = (trace.double().logsumexp(1) - math.log(task.n)).sum()
        return images, log_w.double(), float(z)

    return run


# ---------------------------------------------------------------- azula


def azula(task: Task, kind: str, measurement: tuple[Tensor, Callable[[Tensor], Tensor], float] | None = None):
    """Its samplers "ddpm", "tds" (the reward as twist) and "dps" (a measurement, its operator and zeta)."""
    if not (BUILD / "azula").exists():
        return "azula is not at build/azula; run `make bench`"
    if str(BUILD / "azula") not in sys.path:
        sys.path.append(str(BUILD / "azula"))
    from azula.denoise import Denoiser as Base  # type: ignore[import-not-found]
    from azula.denoise import DiracPosterior
    from azula.guidance import DPSSampler, TDSSampler
    from azula.noise import Schedule
    from azula.sample import DDPMSampler

    class Cosine(Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cos(0.5 * math.pi * t), torch.sin(0.5 * math.pi * t)

    class Same(Base):
        def __init__(self):
            super().__init__()
            self.schedule = Cosine()

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            return DiracPosterior(mean=task.denoiser.data(x_t, t))

    same = Same()
    ends = {"start": task.process.t_max, "stop": task.process.t_min, "steps": task.steps, "silent": True}
    if kind == "ddpm":
        sampler = DDPMSampler(same, **ends)
    elif kind == "tds":
        sampler = TDSSampler(same, lambda image, _: task.reward(image), **ends)
    else:
        y, operator, zeta = measurement  # type: ignore[misc]
        sampler = DPSSampler(same, y, operator, zeta, **ends)

    def run(seed: int) -> tuple[Tensor, None, None]:
        torch.manual_seed(seed)
        return sampler(torch.randn(task.images)), None, None

    return run
