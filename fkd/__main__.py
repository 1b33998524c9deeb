"""``python -m fkd``: the command line."""

import os
import sys

# Before torch is loaded: idle OpenMP threads sleep instead of spinning.  On a machine with other work
# to do, spinning made analyses of small networks three times slower (measured: 58 s against 17 s).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from fkd.cli import main
from fkd.core.memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
