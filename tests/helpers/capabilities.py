"""Root without the right to write everywhere."""

from __future__ import annotations

import ctypes
import os

_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE = 1


def obey_file_modes() -> None:
    """Let programs that this process starts obey the modes of files, also if it is root's.

    To be called between fork and exec: it cannot be taken back.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the right to write everywhere cannot be given up")
