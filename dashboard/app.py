"""The dashboard's entry: ``streamlit run dashboard/app.py``."""

import os
import sys
from pathlib import Path

# Before torch is loaded, and inherited by runs: idle threads sleep (see `fkd.__main__`).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# `streamlit run` puts this folder on the path, not the project's root.
_ROOT = str(Path(__file__).resolve().parents[1])
if sys.path[0] != _ROOT:
    sys.path.insert(0, _ROOT)

from dashboard.frame import main  # noqa: E402

main()
