"""OpenVINO GenAI: CDPruner for Qwen-VL models.

Source: "Visual Token Pruning (CDPruner)" of its documentation,
``site/docs/concepts/optimization-techniques/visual-token-pruning.md``, commit 03b17e1:
`GenerationConfig.pruning_ratio` is a whole percentage from 0 to 99, `relevance_weight` 0 leaves
relevance out, and with the environment variable ``CDPRUNER_SPLIT_THRESHOLD=0`` one determinantal
point process is run over all tokens. "The current implementation supports Qwen-VL models only". How
a percentage becomes a count is not said there; here the dropped tokens are rounded down.
"""

from __future__ import annotations

import math

from pruners.errors import RuntimeExportError
from pruners.schedule import Schedule
from pruners.scorers import Uniform
from pruners.selectors import Determinantal
from studies.runtime_exports.settings import RuntimeSettings, encoder_stage, shape_of

NAME = "openvino-genai"
READ = (
    "https://openvinotoolkit.github.io/openvino.genai/docs/concepts/optimization-techniques/"
    "visual-token-pruning at 03b17e1",
)
_FAMILIES = ("qwen2_5_vl", "qwen3_vl")
_MOST_PERCENT = 99


def export(schedule: Schedule) -> RuntimeSettings:
    """Spell a determinantal schedule as CDPruner's settings.

    Args:
        schedule: The schedule: one stage at layer 0 with scorer ``"uniform"`` and selector
            ``"determinantal"``.

    Returns:
        The settings; where a percentage is not whole, more tokens are dropped, so that budgets
        hold.

    Raises:
        RuntimeExportError: The schedule cannot be had there; the message says why.
    """
    shape = shape_of(schedule, "OpenVINO GenAI", _FAMILIES)
    stage = encoder_stage(schedule, "OpenVINO GenAI")
    if not isinstance(stage.selector, Determinantal):
        raise RuntimeExportError(
            "OpenVINO GenAI chooses tokens by a determinantal point process (CDPruner); the "
            f"schedule's selector is {stage.selector.kind!r}"
        )
    if not isinstance(stage.scorer, Uniform):
        raise RuntimeExportError(
            "OpenVINO GenAI weighs the point process by nothing (relevance_weight 0) or by its own "
            f"relevance to the question; the schedule weighs it by {stage.scorer.kind!r}"
        )
    # Rounded before the ceiling: 100 * (1 - 0.3) is a little more than 70.
    percent = math.ceil(round(100 * (1 - stage.retention), 6))
    if percent > _MOST_PERCENT:
        raise RuntimeExportError(
            f"OpenVINO GenAI drops at most {_MOST_PERCENT} % of the tokens; the schedule keeps "
            f"{100 * stage.retention:.3g} %"
        )
    differences = []
    if not math.isclose(percent, 100 * (1 - stage.retention), abs_tol=1e-6):
        differences.append(
            f"Ratios are whole percentages: {100 - percent} % of the tokens are kept instead of "
            f"{100 * stage.retention:.4g} %."
        )
    return RuntimeSettings(
        runtime=NAME,
        read=READ,
        arguments=("--pruning_ratio", str(percent), "--relevance_weight", "0"),
        options={"pruning_ratio": percent, "relevance_weight": 0.0},
        environment={"CDPRUNER_SPLIT_THRESHOLD": "0"},
        kept_tokens=shape.visual_tokens - shape.visual_tokens * percent // 100,
        differences=tuple(differences),
    )
