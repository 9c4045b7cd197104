"""`python -m sgdiff_app`: the same as the `sgdiff-app` command."""

import sys

from sgdiff_app.cli import main

if __name__ == "__main__":
    sys.exit(main())
