"""Noising processes and their times."""
