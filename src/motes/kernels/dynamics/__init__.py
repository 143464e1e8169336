"""How kernels move: leapfrog and isokinetic motion, Langevin steps, slices along curves, levels of whole numbers."""
