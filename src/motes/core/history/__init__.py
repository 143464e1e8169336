"""Who descends from whom, and lists that only grow."""
