"""Particles, weights, resampling, the Feynman-Kac contract, the engine (`smc.py`), and what a run holds."""
