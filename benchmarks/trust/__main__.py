"""`python -m benchmarks.trust`: see the package."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from benchmarks.trust import peers, plan, record, runner, table, targets


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Whether this process has the row for itself; the claim ends with the process, however it ends."""
    claims = runner.ROOT / "runs" / "trust"
    claims.mkdir(parents=True, exist_ok=True)
    with (claims / f"{file.stem}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def tell(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str] | None = None) -> int:
    known = targets.load()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description="Does any run lie?")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="targets and their samplers")
    row = commands.add_parser("row", help="run what is missing of one row")
    row.add_argument("target", choices=known)
    row.add_argument("sampler")
    row.add_argument("--n", type=int)
    every = commands.add_parser("all", help="rows in order of importance")
    every.add_argument("--hours", type=float, required=True)
    every.add_argument(
        "--only", nargs="+", default=[], metavar="PATTERN", help="rows whose file matches, like '*-Chains-16'"
    )
    every.add_argument("--budget", type=float, default=3600.0, help="CPU seconds that one row may take in one sitting")
    peer = commands.add_parser("peer", help="the same for another package")
    peer.add_argument("target", choices=known)
    peer.add_argument("peer", choices=peers.PEERS)
    peer.add_argument("--seeds", type=int, default=peers.SEEDS)
    peer.add_argument("--folder", type=Path, default=record.RESULTS)
    for command in (row, every):
        command.add_argument("--seeds", type=int, default=runner.SEEDS)
        command.add_argument("--stop", type=float, default=runner.STOP, help="CPU seconds that a run may take")
        command.add_argument("--fresh", action="store_true", help="begin anew, whatever there is")
        command.add_argument("--stale", action="store_true", help="begin anew what other sources have run")
        command.add_argument("--folder", type=Path, default=record.RESULTS)
    commands.add_parser("table", help="write benchmarks/results/trust.md").add_argument(
        "--folder", type=Path, default=record.RESULTS
    )
    a = parser.parse_args(arguments)
    if a.command == "list":
        for target in known.values():
            tell(f"{target.name} ({'easy' if target.easy else 'hard'}): {', '.join(target.samplers)}")
    elif a.command == "table":
        text = table.write(known, a.folder)
        (a.folder.parent / "trust.md").write_text(text)
    elif a.command == "row":
        target = known[a.target]
        if a.sampler not in target.samplers:
            parser.error(f"{a.target} has the samplers {', '.join(target.samplers)}")
        n = a.n or target.sizes[0]
        runner.row(target, a.sampler, n, a.seeds, folder=a.folder, stop=a.stop, fresh=a.fresh, stale=a.stale, tell=tell)
    elif a.command == "peer":
        attempt = partial(peers.attempt, known[a.target], a.peer)
        n = peers.find(a.peer).N
        runner.row(known[a.target], a.peer, n, a.seeds, attempt=attempt, folder=a.folder, tell=tell)
    else:
        end = time.monotonic() + 3600 * a.hours
        for target, sampler, n in plan.rows(known):
            file = record.path(target.name, sampler, n, a.folder)
            if time.monotonic() > end:
                break
            if a.only and not any(fnmatch(file.stem, pattern) for pattern in a.only):
                continue
            with claimed(file) as mine:
                if mine:
                    options = {"folder": a.folder, "stop": a.stop, "fresh": a.fresh, "stale": a.stale, "tell": tell}
                    runner.row(target, sampler, n, a.seeds, until=end, budget=a.budget, **options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
