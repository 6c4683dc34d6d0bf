"""``python -m ral_env``: the same as ``ral``."""

import sys

from ral_env.cli import main

if __name__ == "__main__":
    sys.exit(main())
