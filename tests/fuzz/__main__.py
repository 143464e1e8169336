"""`python -m fuzz [READER ...] [--count N] [--from K]`: the inputs of these readers; 1 if one was not refused."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from fuzz.harness import run
from fuzz.readers import readers


def main() -> int:
    """Run the readers one after the other."""
    known = readers()
    options = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    options.add_argument("reader", nargs="*", help=f"which of: {', '.join(known)} (default: all)")
    options.add_argument("--count", type=int, help="how many inputs each (default: what the reader says)")
    options.add_argument("--from", dest="first", type=int, default=0, help="the number of the first input")
    args = options.parse_args()
    for name in args.reader:
        if name not in known:
            options.error(f"no reader is called {name!r}; there are: {', '.join(known)}")
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in args.reader or known:
            count, start = args.count or known[name].count, time.process_time()
            found = 0
            for finding in run(known[name], range(args.first, args.first + count), Path(folder)):
                found += 1
                if found <= 10:
                    print(f"{finding.reader} {finding.number}: {finding.input}\n{finding.error}\n", flush=True)
            print(
                f"{name}: {count} inputs, {found} not refused rightly, {time.process_time() - start:.0f} s", flush=True
            )
            faults += found
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
