"""What a run shows, by kind: one file each, found by being here.

A model says which kind its `view` is (`FeynmanKac.shows`); reports, plots and data frames know kinds and no domain.
"""

from typing import Any

from motes.core.registry import Registry

views: Registry[type[Any]] = Registry("view", "motes.core.views", named=lambda entry: entry.kind)

__all__ = ["views"]
