"""Training rationales without their content: controls of what rationales teach a model.

If learning to write rationales helps the label, either their content helps or the second task as such. A
model trained on the rationales of other rows has the task without the content.
"""

from collections import Counter
from typing import Literal, get_args

import datasets
import numpy as np
import pyarrow as pa

from mmsr.data.manifest.manifest import column_of
from mmsr.languages import language_code

Rationales = Literal["given", "permuted", "permuted_within_label", "template"]
RATIONALES: tuple[str, ...] = get_args(Rationales)


def control_rationales(rows: datasets.Dataset, kind: Rationales, *, seed: int) -> datasets.Dataset:
    """Replace the rationales of rows that have one.

    Args:
        rows: A split of a manifest.
        kind: `given`: unchanged. `permuted`: the rationale of another row of the same language, unrelated to
            the row. `permuted_within_label`: of another row of the same language and label, so it fits the
            label alone. `template`: the label's most frequent rationale in the language, which repeats the
            label.
        seed: Seed of the permutations.

    Raises:
        ValueError: The kind is unknown.
    """
    if kind not in RATIONALES:
        raise ValueError(f"rationales is {kind!r}; accepted: {', '.join(RATIONALES)}")
    if kind == "given":
        return rows
    given, labels, languages = (
        column_of(rows, name).to_pylist() for name in ("rationale", "label", "language")
    )
    languages = [language_code(language) for language in languages]
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
        else:  # each row takes that of the next row in a random order, so none of two or more keeps its own
            order = generator.permutation(members)
            for row, other in zip(order, np.roll(order, -1), strict=True):
                replaced[row] = given[other]
    column = pa.array(replaced, type=column_of(rows, "rationale").type)
    return rows.remove_columns("rationale").add_column("rationale", column)
