"""What a run can be monitored by: losses, and the metrics of the development rows' labels.

logits, labels of development batches ─► `LabelMetrics` ─► dev_accuracy, dev_macro_f1 … ─► `--monitor`
"""

from __future__ import annotations

from typing import Literal

from torchmetrics.classification import MulticlassConfusionMatrix

from mmsr.evaluation.metrics import label_metrics, metrics_of

MODEL_LOSSES = ("loss", "sentiment_loss", "rationale_loss")

Mode = Literal["min", "max"]


class LabelMetrics(MulticlassConfusionMatrix):
    """The confusion matrix `[c, c]` of an epoch's rows, summed over processes, and every metric of it."""

    def values(self) -> dict[str, float]:
        """Every metric of labels of the rows so far, which are forgotten then; all 0 without any."""
        confusion = self.compute().cpu().numpy()
        self.reset()
        return label_metrics(confusion)


def mode_of(monitor: str) -> Mode:
    """Which way a logged value is better: losses are minimised, metrics as their records say.

    Raises:
        ValueError: No run logs a value of that name.
    """
    modes: dict[str, Mode] = {f"dev_{name}": "min" for name in MODEL_LOSSES}
    for metric in metrics_of("label"):
        if metric.higher_is_better is not None:
            better: Mode = "max" if metric.higher_is_better else "min"
            modes |= {f"dev_{metric.name}": better, f"dev_decoder_{metric.name}": better}
    if monitor.startswith("train_") and monitor.endswith("loss"):
        return "min"
    if monitor not in modes:
        raise ValueError(f"monitor {monitor!r} is not logged; accepted: {', '.join(modes)}")
    return modes[monitor]


def checked_mode(monitor: str, mode: str, *, flag: str) -> Mode:
    """The mode of a monitor, `auto` or given.

    Args:
        monitor: Name of a logged value.
        mode: `min`, `max`, or `auto`.
        flag: What `mode` is called, for the message.

    Raises:
        ValueError: The given mode is the wrong one for this monitor, or no run logs the monitor.
    """
    right = mode_of(monitor)
    if mode not in ("auto", right):
        better = "more" if right == "max" else "less"
        raise ValueError(
            f"{flag} {mode} contradicts monitor {monitor}, of which {better} is better; accepted: {right}, or "
            f"no {flag}"
        )
    return right
