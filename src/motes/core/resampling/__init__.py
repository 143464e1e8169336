"""Resampling schemes: one file each, found by being here; and designs that keep or weigh in another way, in `designs/`.

A new scheme is a new file with a function under `@scheme(name, ...)`. The integers on which all of them work are in
`_grid.py`, which is also where their exactness comes from.
"""

from motes.core.resampling._scheme import Scheme, find_scheme, scheme, schemes
from motes.core.resampling.designs.conditional import conditional_multinomial
from motes.core.resampling.designs.conditional_poisson import conditional_poisson
from motes.core.resampling.designs.optimal import thin
from motes.core.resampling.designs.rows import systematic_rows
from motes.core.resampling.designs.successive import without_replacement
from motes.core.resampling.designs.tempered import tempered

__all__ = [
    "Scheme",
    "conditional_multinomial",
    "conditional_poisson",
    "find_scheme",
    "scheme",
    "schemes",
    "systematic_rows",
    "tempered",
    "thin",
    "without_replacement",
]
