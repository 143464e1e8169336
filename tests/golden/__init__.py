"""Golden runs: seeded, a few steps each, whose bits must not move unless somebody means it.

`python -m golden` in `tests/` (that is, `make golden`) writes them anew; the diff of runs.json says which moved.
"""
