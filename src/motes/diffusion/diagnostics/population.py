"""How a weighted run fared at each noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.run import Run
from motes.errors import MotesError


@dataclass(frozen=True)
class ByNoiseLevel:
    """The particles of a run of a diffusion sampler, by noise level.

    Attributes:
        noise_level: (T,) sigma at each step, falling.
        ess: (T,) the effective sample size after the step's weights.
        resampled: (T,) whether the population was resampled before the step.
        roots: (T,) how many of the starting noises still had descendants.
        survivors: (T,) how many of the particles of that step have descendants at the end; NaN where no parents were
            recorded.
        se: (T,) sqrt(1 / ess - 1 / N), what the weights held at this level contribute to the standard error of the log
            normaliser if the population is resampled now.
    """

    noise_level: Tensor
    ess: Tensor
    resampled: Tensor
    roots: Tensor
    survivors: Tensor
    se: Tensor

    def __repr__(self) -> str:
        head = f"{'noise level':>12} {'ess':>9} {'resampled':>9} {'roots':>7} {'survivors':>9} {'se':>8}"
        rows = zip(self.noise_level, self.ess, self.resampled, self.roots, self.survivors, self.se, strict=True)
        lines = [f"{a:12.4g} {b:9.1f} {'yes' if c else '':>9} {d:7.0f} {e:9.0f} {f:8.3f}" for a, b, c, d, e, f in rows]
        return "\n".join([head, *lines])


def by_noise_level(run: Run) -> ByNoiseLevel:
    """Effective sample sizes and genealogy of a run, by noise level.

    Where the effective size falls the reward learns something new; where few starting noises have descendants, nothing
    that was settled before that level (the layout of an image, say) varies any more among the particles.

    Args:
        run: of a sampler that says its noise level, such as `ReverseDiffusion`.

    Raises:
        ValueError: the run is of another kind.

    Example:
        >>> import torch, motes
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> process = VariancePreserving()
        >>> denoiser = gaussian(process, torch.zeros(1), torch.eye(1))
        >>> model = motes.ReverseDiffusion(denoiser, 8, reward=lambda x: 2 * x[:, 0], shape=(1,))
        >>> table = by_noise_level(motes.sample(model, 100, seed=0, progress=False))
        >>> len(table.ess), int(table.survivors[-1])
        (9, 100)
    """
    run = run.alone("by_noise_level")
    if "noise_level" not in iter(run.trace):
        raise MotesError(f"the run of {run.setup['model']} has no noise levels; diffusion samplers record them")
    column = {name: torch.from_numpy(run.trace[name]) for name in ("noise_level", "ess", "resampled", "roots", "t")}
    survivors = torch.full_like(column["ess"], torch.nan)
    paths = run.genealogy.paths()
    alive = {t: len(torch.unique(row)) for t, row in zip(run.genealogy.times, paths, strict=False)}
    for i, t in enumerate(column["t"].tolist()):
        survivors[i] = alive.get(int(t), torch.nan)
    se = torch.sqrt((1 / column["ess"] - 1 / run.n).clamp(min=0))
    return ByNoiseLevel(
        column["noise_level"], column["ess"], column["resampled"].bool(), column["roots"], survivors, se
    )
