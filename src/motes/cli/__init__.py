"""The `motes` command: one file a command, `main` finds them."""
