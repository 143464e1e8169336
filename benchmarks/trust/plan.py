"""Which rows there are, the most important first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.trust.target import Target

FIRST = ("schools", "funnel-4", "mean-and-sd", "sparse-dirichlet", "student-t", "two-modes", "regression-raw")
"""The targets that the shelf was built for; then come the other hard ones, then the easy ones."""


def rows(targets: Mapping[str, Target]) -> Iterator[tuple[Target, str, int]]:
    """Target, sampler and number of particles of each row: by size, then round by round one sampler of each target."""
    ranked = sorted(targets.values(), key=lambda t: FIRST.index(t.name) if t.name in FIRST else 99 + t.easy)
    for size in range(max(len(t.sizes) for t in ranked)):
        for place in range(max(len(t.samplers) for t in ranked)):
            for target in ranked:
                if size < len(target.sizes) and place < len(target.samplers):
                    yield target, list(target.samplers)[place], target.sizes[size]
