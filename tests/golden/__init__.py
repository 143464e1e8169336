"""Golden runs: seeded, a few steps each, whose bits must not move unless somebody means it.

`make golden` writes them and the list of public names (names.py) anew; the diff says what moved.
"""
