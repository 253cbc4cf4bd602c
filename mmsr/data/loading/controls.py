"""Training rationales whose content is taken away: controls of what rationales teach a model.

If learning to write rationales helps the label, it may be their content that helps, or only that there is a
second task with such sentences. A model trained on rationales of other rows has the task without the content.
"""

from collections import Counter
from typing import Literal, get_args

import datasets
import numpy as np
import pyarrow as pa

from mmsr.data.manifest.manifest import column_of

Rationales = Literal["given", "permuted", "permuted_within_label", "template"]
RATIONALES: tuple[str, ...] = get_args(Rationales)


def control_rationales(rows: datasets.Dataset, kind: Rationales, *, seed: int) -> datasets.Dataset:
    """Rows with their rationales replaced; rows without one stay without.

    Args:
        rows: A split of a manifest.
        kind: `given`: as they are. `permuted`: each row has the rationale of another row of its language, so
            that rationales say nothing of their rows. `permuted_within_label`: of a row of the same label
            too, so that they fit the label and not the row. `template`: the most frequent rationale of the
            label in the language, so that they repeat the label and nothing else.
        seed: Of the permutations.

    Raises:
        ValueError: Another kind.
    """
    if kind not in RATIONALES:
        raise ValueError(f"rationales is {kind!r}; accepted: {', '.join(RATIONALES)}")
    if kind == "given":
        return rows
    given, labels, languages = (
        column_of(rows, name).to_pylist() for name in ("rationale", "label", "language")
    )
    groups: dict[tuple[str | None, ...], list[int]] = {}
    for row, rationale in enumerate(given):
        if rationale is not None:
            key = (languages[row],) if kind == "permuted" else (languages[row], labels[row])
            groups.setdefault(key, []).append(row)
    replaced = list(given)
    generator = np.random.default_rng(seed)
    for members in groups.values():
        if kind == "template":
            ((most_frequent, _),) = Counter(given[row] for row in members).most_common(1)
            for row in members:
                replaced[row] = most_frequent
        else:  # in a random order, each takes the next one's: none keeps its own where there are two
            order = generator.permutation(members)
            for row, other in zip(order, np.roll(order, -1), strict=True):
                replaced[row] = given[other]
    column = pa.array(replaced, type=column_of(rows, "rationale").type)
    return rows.remove_columns("rationale").add_column("rationale", column)
