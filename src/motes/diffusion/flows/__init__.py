"""Probability flows: integrators, likelihoods, tilted flows."""
