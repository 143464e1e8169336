"""Malformed input for everything that reads what comes from outside: `make fuzz`, and a slice of it in the tests.

A reader is one file in `fuzz/readers/` that defines `READER` (see `fuzz/harness.py`); the list finds it by itself.
"""
