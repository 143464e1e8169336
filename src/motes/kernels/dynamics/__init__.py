"""Trajectories that kernels follow: leapfrog, isokinetic motion, slices along curves."""
