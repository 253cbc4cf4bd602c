"""Values that a run can be monitored by, and whether more or less of them is better."""

from __future__ import annotations

from typing import Literal

from mmsr.evaluation.metrics import metrics_of

MODEL_LOSSES = ("loss", "sentiment_loss", "rationale_loss")

Mode = Literal["min", "max"]


def mode_of(monitor: str) -> Mode:
    """Whether a logged value is minimised or maximised.

    Raises:
        ValueError: No run logs a value of that name.
    """
    modes: dict[str, Mode] = {f"dev_{name}": "min" for name in MODEL_LOSSES}
    for source in ("dev", "dev_decoder"):
        modes |= {
            f"{source}_{metric.name}": "max" if metric.higher_is_better else "min"
            for metric in metrics_of("label")
            if metric.higher_is_better is not None
        }
    if monitor.startswith("train_") and monitor.endswith("loss"):
        return "min"
    if monitor not in modes:
        raise ValueError(f"monitor {monitor!r} is not logged; accepted: {', '.join(modes)}")
    return modes[monitor]


def checked_mode(monitor: str, mode: str, *, flag: str) -> Mode:
    """The mode of a monitor, where `mode` is `min`, `max` or `auto`; `flag` is its name in messages.

    Raises:
        ValueError: The mode contradicts the monitor, or no run logs the monitor.
    """
    right = mode_of(monitor)
    if mode not in ("auto", right):
        raise ValueError(f"{flag} {mode} contradicts monitor {monitor}; accepted: {right}, or no {flag}")
    return right
