"""Where modules run, which is not always where their weights are."""

from __future__ import annotations

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """Say on which device a module runs.

    Args:
        module: A module with weights.

    Returns:
        The device of its weights. Those of an offloaded module (`device_map`, where memory does not
        suffice) are on no device between its calls; then the one that accelerate brings them to.
    """
    device = next(module.parameters()).device
    if device.type != "meta":
        return device
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            brought = getattr(each, "execution_device", None)
            if brought is not None:
                return torch.device(brought)
    return device
