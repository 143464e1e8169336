"""Posteriors for several samplers: one log-density for all, cold processes, one external estimator."""
