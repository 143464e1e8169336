"""`python -m motes` is the command `motes`."""

import sys

from motes.cli.main import main

sys.exit(main())
