"""The program: ``python search/run.py --budget-tflops 2``, installed as ``prunetune``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        from search.command_line import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        # Ctrl-C while libraries are imported; the search itself ends in its own way.
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    # Run as a file, search/ is first on the path, where its modules would be found as top-level
    # ones. The repository takes its place, so that this also works before installing.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    main()
