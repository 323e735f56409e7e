"""From what lmms-eval's tasks say of answers to a sample's score, and to what papers report.

A search needs one number in [0, 1] per sample, whose means can be compared. For exact match and VQA
accuracy that is the paper's metric itself. POPE's F1 is no mean over samples: its samples score
accuracy, which orders schedules alike on a benchmark with as many yes as no. A sample of MME is the
pair of questions on an image: (accuracy + pair accuracy) / 2, whose mean over samples is the
benchmark's sum, up to a factor, when categories have equal shares. A sample of MMBench is a
question with all rotations of its choices, and is right when each of them is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search.tasks.catalogue import Rule

Results = Sequence[Mapping[str, Any]]
"""What the task says of each row of a sample."""


def sample_score(rule: Rule, results: Results) -> float:
    """Score a sample.

    Args:
        rule: How the benchmark scores.
        results: What lmms-eval's `process_results` returned, for each row of the sample.

    Returns:
        The score, in [0, 1].
    """
    return _RULES[rule](results)


def paper_metric(rule: Rule, samples: Sequence[Results]) -> float:
    """Compute what papers report of a benchmark.

    Args:
        rule: How the benchmark scores.
        samples: The results of each sample.

    Returns:
        The figure, in the unit that `KnownTask.metric` names.
    """
    if rule == "pope":
        from lmms_eval.tasks.pope.utils import pope_aggregate_f1_score

        # Answers that are neither yes nor no count as lmms-eval counts them.
        values = [results[0]["pope_f1_score"] for results in samples]
        return 100 * float(pope_aggregate_f1_score(values))
    if rule == "mme":
        categories: dict[str, list[float]] = {}
        for results in samples:
            score = 200 * sample_score("mme", results)
            categories.setdefault(_mme_value(results[0])["category"], []).append(score)
        return sum(sum(scores) / len(scores) for scores in categories.values())
    return 100 * sum(sample_score(rule, results) for results in samples) / len(samples)


def _exact_match(results: Results) -> float:
    return float(results[0]["exact_match"])


def _pope(results: Results) -> float:
    return float(results[0]["pope_accuracy"]["score"])


def _mme(results: Results) -> float:
    scores = [float(_mme_value(result)["score"]) for result in results]
    return (sum(scores) / len(scores) + float(all(scores))) / 2


def _mme_value(result: Mapping[str, Any]) -> Mapping[str, Any]:
    value: Mapping[str, Any] = next(iter(result.values()))
    return value


def _mmbench(results: Results) -> float:
    import pandas as pd
    from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator

    rows = pd.DataFrame([result["gpt_eval_score"] for result in results])
    answers = dict(zip(rows["index"], rows["answer"], strict=True))
    return float(MMBench_Evaluator().eval_sub_data(rows, answers, static_only=True))


def _seed(results: Results) -> float:
    value = results[0]["seed_all"]
    return float(value["pred"].lower().strip() == value["answer"].lower().strip())


_RULES: Mapping[Rule, Callable[[Results], float]] = {
    "exact_match": _exact_match,
    "pope": _pope,
    "mme": _mme,
    "mmbench": _mmbench,
    "seed": _seed,
}
