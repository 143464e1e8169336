"""Files of runs: written whole or not at all, read back to the bit, and never believed."""
