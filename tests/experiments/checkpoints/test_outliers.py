"""The made outliers: deterministic, finite, each recipe another; the languages of the test stand apart."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PROGRAM = Path(__file__).parents[3] / "experiments" / "checkpoints" / "outliers.py"


@pytest.fixture(scope="module")
def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("checkpoint_outliers", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("test", [False, True])
def test_every_recipe_makes_a_sound_of_its_own(made: ModuleType, test: bool) -> None:
    table = made.TESTING if test else made.FITTING
    for kind, recipes in table.items():
        sounds = made.sounds(len(recipes), seed=3, test=test, kinds=[kind])
        assert [sound.recipe for sound in sounds] == list(recipes)
        for sound in sounds:
            assert sound.waveform.dtype == np.float32 and 16_000 <= len(sound.waveform) <= 96_000
            assert np.isfinite(sound.waveform).all() and np.abs(sound.waveform).max() <= 1
            assert sound.recipe == "zeros" or sound.waveform.any()
        again = made.sounds(1, seed=3, test=test, kinds=[kind])[0].waveform
        assert np.array_equal(sounds[0].waveform, again)
    assert not set(made.FITTING["music"]) & set(made.TESTING["music"])


def test_speech_recorded_elsewhere_is_still_there(made: ModuleType) -> None:
    clip = np.sin(np.arange(16_000) / 5).astype(np.float32)
    for seed in range(8):
        wave = made.spoken(clip, seed=seed)
        assert np.array_equal(wave, made.spoken(clip, seed=seed))
        assert len(wave) >= len(clip) and np.isfinite(wave).all() and 0 < np.abs(wave).max() <= 1


def test_nonsense_differs_by_recipe_and_seed(made: ModuleType) -> None:
    texts = ["the nurse was very kind", "医生对我很好"]
    for test in (False, True):
        strings = made.nonsense(texts, 24, seed=1, test=test)
        assert strings == made.nonsense(texts, 24, seed=1, test=test) != made.nonsense(texts, 24, test=test)
        assert all(string.text and string.text not in texts for string in strings)


def test_each_test_language_has_twelve_sentences(made: ModuleType) -> None:
    sentences = made.test_texts()
    languages = [sentence.kind for sentence in sentences]
    assert {language: languages.count(language) for language in set(languages)} == dict.fromkeys(
        made.TEST_LANGUAGES, 12
    )
    assert len({sentence.text for sentence in sentences}) == len(sentences)


def test_rows_have_one_modality_and_a_kind(made: ModuleType) -> None:
    rows = made.outlier_rows(["the nurse was kind"], test=True, sounds_of_each=1, strings=5)
    kinds = {str(row.kind).split("/")[0] for row in rows}
    assert kinds == {"silence", "noise", "music", "tones", "language", "nonsense"}
    assert all(row.has("audio") != row.has("text") for row in rows)


def test_languages_of_the_test_are_not_among_the_others(made: ModuleType) -> None:
    pytest.importorskip("django", reason="texts in other languages are Django's: pip install Django Faker")
    pytest.importorskip("faker", reason="words in other languages are Faker's: pip install Django Faker")
    languages = {name.split("_")[0] for name in made.other_languages()}
    assert len(languages) > 40 and not languages & {*made.TEST_LANGUAGES, "en", "de", "fr", "vi", "zh"}
    assert languages < {name.split("_")[0] for name in made.other_languages(test=True)}
    assert made.texts(60, seed=1) == made.texts(60, seed=1) != made.texts(60, seed=2)
    assert {text.kind for text in made.known_texts(12)} == set(made.KNOWN)
