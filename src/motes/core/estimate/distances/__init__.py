"""Distances between weighted samples, or sets of features."""
