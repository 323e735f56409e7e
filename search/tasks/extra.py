"""lmms-eval and its libraries, which are an extra of this distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from pruners.errors import SettingsError

_MODULES = ("lmms_eval", "datasets", "accelerate", "loguru", "tenacity")

HOW_TO_INSTALL = (
    "pip install 'prunetune[lmms-eval]', then pip install --no-deps lmms-eval==0.7.3 decord"
)


def require_extra() -> None:
    """Check that lmms-eval is installed; nothing is imported.

    Raises:
        SettingsError: Something is missing; the message has the command that installs it.
    """
    missing = [name for name in _MODULES if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"--tasks needs {', '.join(missing)}, which is not installed; run {HOW_TO_INSTALL}"
        )


def extra_versions() -> dict[str, str]:
    """List the versions of the libraries that decide what a benchmark is.

    Returns:
        Versions by distribution.
    """
    found = {}
    for name in ("lmms-eval", "datasets", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
