"""Resampling schemes: one file each, found by being here.

A new scheme is a new file with a function under `@scheme(name, ...)`. The integers on which all of them work are in
`_grid.py`, which is also where their exactness comes from.
"""

from motes.core.resampling._scheme import Scheme, find_scheme, scheme, schemes

__all__ = ["Scheme", "find_scheme", "scheme", "schemes"]
