"""Run the command line, `chatgptlib.apps`, as `python -m chatgptlib`."""

import sys

from .apps.ask import main

if __name__ == "__main__":
    sys.exit(main())
