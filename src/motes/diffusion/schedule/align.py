"""Times for a sampler that suit a model: steps are put where the model's prediction changes."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.micro_batches import in_parts
from motes.diffusion.arguments import check_networks, check_tensors
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.processes.transition import INTEGRATORS
from motes.diffusion.schedule.cost import flow_cost, path_divergence
from motes.diffusion.schedule.path import best_path, finer
from motes.errors import MotesError, ShapeError, check_name
from motes.rng import Rng
from motes.rng.seed import seeded

REFINE = 6


def align_your_steps(
    denoiser: Denoiser,
    samples: Tensor,
    steps: int,
    *,
    seed: int | Rng,
    integrator: str = "ancestral",
    noise: float = 1.0,
    last: float | None = None,
    grid: int = 128,
    micro_batch: int | None = None,
) -> Tensor:
    """The (steps + 1,) falling times at which this model is best sampled with so few steps.

    Ancestral steps with noise = 1 hold the prediction of the data D still during a step and follow the process
    otherwise, so by Girsanov's theorem the Kullback-Leibler divergence between the paths of the true reverse equation
    and of the sampler is

        KLUB = 1/2 sum_i int E|D(x_t, t) - D(x_{t_i}, t_i)|^2 d snr(t),        snr = alpha^2 / sigma^2,

    with (x_t, x_{t_i}) two places of one forward path: it bounds the divergence of what is sampled. The exponential
    step with churn c = noise^2 has (1 + c)^2 / (4 c) times that, and so the same best times. Deterministic steps
    (noise = 0, any integrator) have no such bound; there a step costs the root mean square of its error against a fine
    solution of the flow, relative to the spread of the population, and costs add up: the relative error at the end if
    the flow carries errors as it carries the spread, which is exact for normal data and a rule of thumb otherwise.

    A path divergence asks for right paths at every noise level, down to detail that is not seen: with little noise at
    the end most steps go there (the original stops its descent early for this reason). `last` ends the schedule
    earlier, where the sampler's last denoising takes over.

    The model is asked on a grid of times only (`grid` evaluations a sample, and a few more where the grid is refined);
    the best `steps + 1` of them come from dynamic programming, where the original descends coordinate by coordinate:
    the optimum of the grid is the global one. Exact as `grid` and the number of samples grow.

    Args:
        denoiser: the model.
        samples: (n, *shape) data, or samples of the model itself; some dozens do.
        steps: how many steps.
        seed: a whole number or an Rng, of the noise.
        integrator, noise: the sampler's; "ancestral" with noise = 1, "exponential", or any with noise = 0.
        last: the time that the schedule ends at; None is the process's t_min.
        grid: how many cells of equal log-snr the times are first looked for in.
        micro_batch: rows a call of the model.

    Raises:
        ShapeError: samples have no axis beside the first, or there are fewer than 2.
        UnknownName: another integrator.
        ValueError: noise and integrator without an objective, more steps than grid cells, or an end outside.

    References:
        Sabour, Fidler & Kreis (2024), Align Your Steps: Optimizing Sampling Schedules in Diffusion Models, ICML,
        section 3 and appendices A.2-A.3.

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> process = VariancePreserving()
        >>> denoiser = gaussian(process, torch.zeros(1), 0.25 * torch.eye(1))
        >>> data = 0.5 * Rng(0).at("data").normal((32, 1))
        >>> align_your_steps(denoiser, data, 4, seed=Rng(0), grid=32).shape
        torch.Size([5])
    """
    rng = seeded(seed)
    check_networks(denoiser=denoiser)
    check_tensors(samples=samples)
    check_name("integrator", integrator, INTEGRATORS)
    bounded = (noise == 1 and integrator in ("ancestral", "ddim")) or (noise > 0 and integrator == "exponential")
    if noise != 0 and not bounded:
        raise MotesError(
            "steps can be aligned for noise=0, for 'ancestral' with noise=1 and for 'exponential', not for "
            f"{integrator!r} with noise={noise}: only then is there a path divergence or an error of a step"
        )
    if samples.ndim < 2 or len(samples) < 2:
        raise ShapeError(f"need at least 2 samples (n, *shape), not a tensor of shape {tuple(samples.shape)}")

    def data(x: Tensor, t: Tensor) -> Tensor:
        return in_parts(lambda part: denoiser.data(part, float(t)).detach(), micro_batch, x)

    process = denoiser.process
    end = process.t_min if last is None else last
    if not process.t_min <= end < process.t_max:
        raise MotesError(f"last must lie in [{process.t_min}, {process.t_max}), not {last}")
    ends = [float(process.log_snr(t)) for t in (process.t_max, end)]
    log_snr = torch.linspace(ends[0], ends[1], grid + 1, dtype=torch.float64)

    def best(log_snr: Tensor, again: int) -> tuple[Tensor, Tensor]:
        """All times, and which of them the cheapest path takes."""
        times = process.time(log_snr)
        times[0], times[-1] = process.t_max, end
        with torch.no_grad():
            if noise == 0:
                cost = flow_cost(data, process, samples, times, rng.at("flow"), integrator)
            else:
                cost = path_divergence(data, process, samples, times, rng.at("path", inner=again))
        return times, best_path(cost, steps)

    times, path = best(log_snr, 0)
    if steps > 1:
        times, path = best(finer(log_snr, path, REFINE), 1)
    return times[path]
