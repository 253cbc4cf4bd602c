"""Agreement between raters."""

import numpy as np
import pytest

from mmsr.evaluation.human.agreement import ordinal_agreement


def test_alpha_is_the_published_one() -> None:
    missing = 0  # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", sections C and D
    said = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, missing, missing, missing],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, missing, 3],
            [missing, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, missing],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, missing],
        ]
    )
    counts = np.stack([(said == value).sum(axis=0) for value in range(1, 6)], axis=-1)
    found = ordinal_agreement(counts)
    assert found.alpha == pytest.approx(0.815, abs=5e-4) and found.units == 11
    assert found.interval is not None and found.interval[0] < 0.815 < found.interval[1]
    assert ordinal_agreement([[2, 0], [2, 0]]) == (None, None, 2)  # one value: nothing to tell apart
    assert ordinal_agreement([[1, 0], [0, 1]]) == (None, None, 0)
    # answers to one item drawn together: fewer units, a wider interval
    twice = np.concatenate([counts, counts])
    once, clustered = ordinal_agreement(twice), ordinal_agreement(twice, [*range(12), *range(12)])
    assert once.alpha == clustered.alpha
    assert np.ptp(clustered.interval) > 1.2 * np.ptp(once.interval)  # type: ignore[arg-type]
