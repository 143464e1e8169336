"""What a run shows, by kind: one file each, found by being here.

A model says which kind its `view` is (`FeynmanKac.shows`); reports, plots and data frames know kinds and no domain.
"""

from motes.core.registry import Registry
from motes.core.views._view import Column, Distinct, View

__all__ = ["Column", "Distinct", "View", "views"]

views: Registry[type[View]] = Registry("view", "motes.core.views", named=lambda entry: entry.kind)
"""Every kind of view by its name."""
