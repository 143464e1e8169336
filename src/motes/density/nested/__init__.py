"""Nested sampling and the error of its evidence."""
