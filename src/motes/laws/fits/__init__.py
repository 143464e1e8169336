"""Approximations fitted to a law: Laplace, Pathfinder, mixtures."""
