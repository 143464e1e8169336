"""Arithmetic sampling: texts from evenly spaced points of the unit interval."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.language.search.beam import Beam
from motes.language.search.population import Choice, TextPopulation
from motes.rng import Rng

DEPTH = 20.0
"""Nats of a code that are used; a number has 36, and what is left behind them has its law to 1e-7."""


class Arithmetic(TextPopulation):
    """Draws N texts that spread as evenly over the law as N texts can: of each about N p(y).

    Every text owns an interval of length p(y) (its arithmetic code), and the texts are those that own the points
    u_i = (i / N + b) mod 1 with one uniform shift b. Each point is uniform, so each text has the law p and its weight
    is what rules and constraint drop; together the count of a text is floor(N p(y)) or ceil(N p(y)). The lattice
    i / (N + 1) of the published code does not have that property.

    A double holds 36 nats of a code. Once a prefix is less likely than exp(-20) and than 1 / N, its point is alone in
    it and uniform there, so fresh numbers go on from it: laws and counts stay what they are.

    Unbiased for each text; no error bar from one run, since all points share one shift.

    Args:
        model, prompt, rules, constraint, max_tokens, globalise, chat: as for `motes.Generation`.

    Example:
        >>> import motes, torch
        >>> model = motes.language.TableModel(["a", "b", "."], torch.tensor([0.5, 0.25, 0.25]).log().expand(4, 3))
        >>> run = motes.sample(Arithmetic(model, "", max_tokens=4), 16, seed=0, progress=False)
        >>> run.texts.count("")  # 16 times 0.25
        4

    References:
        Vilnis, Zemlyanskiy, Murray, Passos & Sanghai (2023), Arithmetic sampling: parallel diverse decoding for large
        language models, ICML, section 3.
    """

    copied: ClassVar[bool] = True
    references = (cited("vilnis2023", "texts from one lattice of codes"),)

    def begin(self, rng: Rng, n: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        code = (self.lattice(n) + rng.at("shift").uniform(())) % 1.0
        return {"code": code}, {}

    def lattice(self, n: int) -> Tensor:
        """(n,) the points before the shift."""
        return torch.arange(n, dtype=torch.float64) / n

    def choose(self, rng: Rng, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Choice:
        entry, going = torch.arange(n), torch.nonzero(beam.going)[:, 0]
        token, code = torch.full((n,), -1, dtype=torch.int64), more["code"].clone()
        alone = beam.log_prob < -max(DEPTH, math.log(n))
        fresh = rng.at("code").uniform((n,))
        code = torch.where(alone, fresh, code)
        top = torch.cumsum(beam.next_log_prob().exp(), 1)
        u = code[going][:, None] * top[:, -1:]  # the sum is 1 but for rounding
        token[going] = torch.searchsorted(top, u, right=True)[:, 0].clamp(max=top.shape[1] - 1)
        below = torch.gather(torch.nn.functional.pad(top, (1, 0)), 1, token[going][:, None])
        width = torch.gather(top, 1, token[going][:, None]) - below
        code[going] = ((u - below) / width)[:, 0].clamp(0.0, 1.0 - 2.0**-53)
        return entry, token, {"code": code}, shared

    def log_expected(self, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Tensor:
        return math.log(n) + beam.log_prob
