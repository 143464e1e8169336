"""Golden runs: seeded, a few steps each, whose bits must not move unless somebody means it.

`make golden` writes them and the public names (names.py, doors.py) anew; the diff says what moved.
"""
