"""Named numbers, a row a particle."""

from __future__ import annotations

from motes.core.views import views
from motes.core.views._view import View


@views.register
class TableView(View):
    """A tensor (N, ...), or named tensors in dicts, tuples and lists: parameters, states, anything with numbers."""

    kind = "table"
    needs = "tensors"
    plural = "numbers"

    def fits(self) -> bool:
        """Whatever holds no tensors is a table without columns."""
        return True
