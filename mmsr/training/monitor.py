"""Values that a run can be monitored by, and whether more or less of them is better."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from mmsr.evaluation.metrics import metrics_of
from mmsr.model.configuration import RationaleFormat
from mmsr.training.objectives import LOSSES

MODEL_LOSSES = ("loss", "sentiment_loss", "rationale_loss")

LAST_EPOCH = "last_epoch"
"""In place of a value: the model of the last epoch is kept, whatever the development rows say."""

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
    modes |= {f"train_{name}": "min" for name in MODEL_LOSSES}
    modes |= {f"train_{name}_loss": "min" for name in LOSSES}
    modes[LAST_EPOCH] = "max"  # a later epoch is preferred
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


def check_logged(
    monitor: str,
    *,
    layout: RationaleFormat | None,
    objectives: Collection[str],
    labelled: bool,
    explained: bool,
) -> None:
    """Refuse a monitor that this run does not log.

    Args:
        monitor: A name that `mode_of` accepts.
        layout: Format of the model's rationales; None if it writes none.
        objectives: Names of the run's further objectives.
        labelled: Whether a development row has a label.
        explained: Whether a development row has a rationale.

    Raises:
        ValueError: The model, the objectives or the development rows do not give the value.
    """
    source, _, name = monitor.partition("_")
    lacks, explained = None, explained and layout is not None
    if name == "rationale_loss" and layout is None:
        lacks = "the model writes no rationales"
    elif name.startswith("decoder_") and not (layout and layout.label_first and layout.label_learned):
        lacks = "the decoder does not write the label first; accepted: rationale_format post_thinking"
    elif source == "train" and name not in MODEL_LOSSES and name.removesuffix("_loss") not in objectives:
        lacks = f"there is no objective {name.removesuffix('_loss')}"
    elif source == "dev" and (name == "rationale_loss" or name.startswith("decoder_")) and not explained:
        lacks = "no development row has a rationale"
    elif source == "dev" and not labelled and not (name in ("loss", "rationale_loss") and explained):
        lacks = "no development row has a label (column label)"
    if lacks is not None:
        raise ValueError(f"monitor {monitor} is not logged: {lacks}")
