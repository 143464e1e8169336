"""What kernels learn from the population: scales, step sizes, lengths of trajectories, emulators."""
