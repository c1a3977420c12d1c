"""`python -m chatgptlib`: the command line, which is in `apps`."""

import sys

from .apps.ask import main

if __name__ == "__main__":
    sys.exit(main())
