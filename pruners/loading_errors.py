"""What libraries raise over files of models that they cannot read."""

from __future__ import annotations

from pickle import UnpicklingError

from safetensors import SafetensorError

LOADING_ERRORS = (OSError, ValueError, RuntimeError, UnpicklingError, SafetensorError)
"""What `from_pretrained` raises over missing, damaged or foreign files."""
