"""`python -m minilog`: hands the command line to `minilog.cli` and its answer to the shell."""

import sys

from minilog.cli import main

if __name__ == "__main__":
    sys.exit(main())
