"""Whether a population has the law that it stands for, and moves that bring it there."""
