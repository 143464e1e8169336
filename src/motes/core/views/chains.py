"""Draws by chain."""

from __future__ import annotations

from torch import Tensor

from motes.core import tree
from motes.core.views import views
from motes.core.views._view import View
from motes.core.views.table import TableView


@views.register
class ChainView(View):
    """Tensors (chains, draws, ...), of equal weight, alone or named as in a table."""

    kind = "chains"
    needs = "tensors (chains, draws, ...)"
    plural = "numbers"
    weighted = False
    axes = 2

    def fits(self) -> bool:
        found = [leaf for _, leaf in tree.leaves(self.value)]
        return bool(found) and all(isinstance(leaf, Tensor) and leaf.ndim >= 2 for leaf in found)

    @property
    def shape(self) -> tuple[int, int]:
        """How many chains, and how many draws of each."""
        chains, draws = next((leaf.shape[:2] for _, leaf in self.leaves()), (0, 0))
        return chains, draws

    def flat(self, most: int | None = None) -> View:
        chains, draws = self.shape
        step = 1 if most is None else max(1, chains * draws // most)
        return TableView(tree.map_leaves(lambda v: v[:, ::step].flatten(0, 1), self.value))
