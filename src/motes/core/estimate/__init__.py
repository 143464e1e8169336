"""Estimates with their errors: from weighted particles, from families of them, from chains."""
