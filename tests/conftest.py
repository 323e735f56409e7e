"""What holds for all tests."""

from __future__ import annotations

import os

# Set before anything imports torch, and inherited by the programs that tests start: the models here
# are so small that threads wait for each other longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
