"""Rows of the demo corpus, and what their perturbations are made of."""

import pytest

from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.evaluation.robustness.confusions import Confusions
from mmsr.evaluation.robustness.curves import clean_rows
from mmsr.evaluation.robustness.perturbations import Material


@pytest.fixture(scope="module")
def rows(demo_corpus):
    return clean_rows(utterances(load_manifest(demo_corpus)), "audio+text")


@pytest.fixture(scope="module")
def material(rows):
    texts, languages = [row.text for row in rows], [row.language for row in rows]
    return Material(rows, Confusions.of_vocabulary(texts, languages))
