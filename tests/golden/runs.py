"""Every golden run by its name: one a sampler and kernel, a few steps each."""

from golden import densities, diffusions, texts

RUNS = densities.RUNS | texts.RUNS | diffusions.RUNS
