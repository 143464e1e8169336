"""Samplers of posteriors side by side (benchmarks/posteriors): each a cold process, effective draws a second.

The posteriors of posteriordb need its data, in the folder that the environment variable MOTES_POSTERIORDB names;
without it the others are measured.

Usage: python benchmarks/draws.py [the options of benchmarks.posteriors.table]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.posteriors.table import main
from tests.posteriors import MORE

if __name__ == "__main__":
    if not os.environ.get("MOTES_POSTERIORDB") and "--posteriors" not in sys.argv:
        sys.argv += ["--posteriors", *MORE]
    main()
