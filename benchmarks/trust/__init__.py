"""The shelf: hard and easy targets with known answers, run by every sampler at its defaults, to see whether runs lie.

    python -m benchmarks.trust list                              targets, easy or hard, and their samplers
    python -m benchmarks.trust row TARGET SAMPLER [--n 256] [--seeds 40]
    python -m benchmarks.trust all --hours H                     rows in order of importance, within H hours
    python -m benchmarks.trust peer TARGET PEER                  the same for another package (`peers/`), 16 seeds
    python -m benchmarks.trust table                             writes benchmarks/results/trust.md

A *row* is a target, a sampler, a number of particles and its runs, one a seed. It is kept in
`benchmarks/results/trust/TARGET-SAMPLER-N.json` (`record.py` says what that holds), written after each run, and goes
on where it stopped; two processes of `all` share the work. What the runs say is judged in `judge.py`: how often the
intervals that they state cover, and the *silent misses*, estimates outside of the interval that they state at the level
of 4 normal deviations while no remark of the run doubts them.

A target is one file in `targets/`, whatever its domain, with a list `TARGETS` of `Target`s:

    def truth() -> Truth:
        return Truth(log_evidence=-3.2, means={"valid": 0.25})

    TARGETS = [
        Target(
            "table-even",                                       # its name in commands and files
            "A table model under a constraint, 243 texts enumerated",
            domain="language",
            truth=truth,
            functions={"valid": lambda texts: ...},             # what `run.mean` takes, under the names above
            samplers={"Generation": model(lambda: Generation(...))},
            sizes=(16, 64),                                     # numbers of particles
            easy=True,                                          # named before its first run
        )
    ]

`truth` is found by quadrature, a closed form, enumeration, or a long reference that the file can compute again; the
docstring of the file says how. `model(make)` turns a function that makes a Feynman-Kac model into a sampler of the
shelf; what needs more (other options of `motes.sample`, a pilot, a count of evaluations) returns a `Job` itself, see
`target.py`. Density targets get all samplers of `samplers.py` by `samplers=on(density)`.
"""
