"""The rows that `base` learns from: balanced, paired by a rule, and none that tests."""

import numpy as np
import pandas as pd
import pytest
from corpus import (
    LABELS,
    PAIR_KINDS,
    pair,
    read_clips,
    read_texts,
    sample_balanced,
    vary_names,
)
from held_out import label_of_pair, load_sets, speaker_part, text_key, text_part


def generator(seed=0):
    return np.random.default_rng(seed)


def texts(sizes, languages=("en",)):
    """Rows with `sizes` {source: rows of each label and language}."""
    return pd.DataFrame(
        [
            {
                "text": f"{source} {language} {label} {i}",
                "label": label,
                "language": language,
                "source": source,
            }
            for source, size in sizes.items()
            for language in languages
            for label in LABELS
            for i in range(size)
        ]
    )


def test_labels_are_equally_frequent_in_each_language_and_languages_have_their_shares():
    rows = texts({"a": 200}, ("de", "en"))
    drawn = sample_balanced(rows, 120, languages={"en": 0.75, "de": 0.25}, generator=generator())
    counts = drawn.groupby(["language", "label"]).size()
    assert counts["en"].tolist() == [30] * 3 and counts["de"].tolist() == [10] * 3
    assert not drawn.text.duplicated().any()


def test_a_small_corpus_is_drawn_more_often_than_its_share_and_no_row_twice():
    rows = texts({"large": 900, "small": 100})
    drawn = sample_balanced(rows, 600, languages={"en": 1}, generator=generator())
    assert len(drawn) == 600 and not drawn.text.duplicated().any()
    assert (drawn.source == "small").mean() > 0.14  # a tenth of the rows


def test_where_there_are_too_few_rows_all_are_taken_once():
    rows = texts({"a": 5})
    drawn = sample_balanced(rows, 600, languages={"en": 0.5, "vi": 0.5}, generator=generator())
    assert sorted(drawn.text) == sorted(rows.text)


def test_a_draw_depends_on_the_generator_alone():
    rows = texts({"a": 50, "b": 10})
    first, same, other = (
        sample_balanced(rows, 60, languages={"en": 1}, generator=generator(seed)) for seed in (0, 0, 1)
    )
    assert first.equals(same) and not first.equals(other)


def test_names_stand_for_masked_ones_and_other_words_stay():
    given = pd.Series(["Alex met [PERSON] and [NAME].", "Alexander and alex stay", "no name"] * 20)
    varied = vary_names(given, generator())
    assert not varied.str.contains(r"\bAlex\b|\[PERSON\]|\[NAME\]").any()
    assert varied[1::3].eq("Alexander and alex stay").all() and varied[2::3].eq("no name").all()
    assert varied[::3].str.fullmatch(r"[A-Z]\w+ met [A-Z]\w+ and [A-Z]\w+\.").all()
    assert varied[::3].nunique() > 10  # not one name for all


@pytest.fixture
def clips():
    rows = [(f"{label}-{i}.wav", label, f"speaker {i}") for label in LABELS for i in range(9)]
    return pd.DataFrame(rows, columns=["audio", "label", "speaker"])


def test_pairs_have_their_count_and_the_labels_of_their_kind(clips):
    kinds = {kind: 30 for kind in PAIR_KINDS}
    made = pair(clips, texts({"a": 9}), kinds, generator=generator())
    assert made.kind.value_counts().to_dict() == kinds and made.id.is_unique
    assert all(audio.startswith(label) for audio, label in zip(made.audio, made.voice_label, strict=True))
    assert all(label in text for text, label in zip(made.text, made.text_label, strict=True))
    for kind, combinations in PAIR_KINDS.items():
        found = made[made.kind == kind].groupby(["voice_label", "text_label"]).size()
        assert found.to_dict() == dict.fromkeys(
            combinations, 30 // len(combinations)
        )  # the free side balanced


def test_a_pair_has_the_label_of_the_rule(clips):
    made = pair(clips, texts({"a": 9}), {kind: 6 for kind in PAIR_KINDS}, generator=generator())
    by_kind = dict(list(made.groupby("kind")))
    assert (by_kind["neutral_voice"].label == by_kind["neutral_voice"].text_label).all()
    for kind in ("agreeing", "neutral_text", "conflicting"):
        assert (by_kind[kind].label == by_kind[kind].voice_label).all()
    assert label_of_pair("neutral", "positive") == "positive" == label_of_pair("positive", "negative")
    assert label_of_pair("negative", "neutral") == "negative"


def test_pairs_depend_on_the_generator_alone(clips):
    first, same, other = (
        pair(clips, texts({"a": 9}), {"agreeing": 30}, generator=generator(seed)) for seed in (0, 0, 1)
    )
    assert first.equals(same) and not first.equals(other)


def test_clips_of_test_speakers_neither_train_nor_select(corpora):
    found = read_clips(corpora / "crema-d")
    names = {"train": "train", "selection": "dev", "test": "test"}
    assert (found.split == found.speaker.map(lambda speaker: names[speaker_part(speaker)])).all()
    assert set(found.split) == {"train", "dev", "test"}
    tested = {row.audio for row in load_sets(corpora, ["crema"])[0].rows}
    assert tested == set(found.audio[found.split == "test"])
    assert not found[found.split != "test"].audio.isin(tested).any()


def test_texts_that_test_or_select_train_in_no_corpus(corpora):
    found = read_texts(corpora / "sentiment-text")
    train = set(found.text[found.split == "train"].map(text_key))
    rest = found[found.split != "train"]
    assert train and {"dev", "test"} == set(rest.split)
    assert not train & set(rest.text.map(text_key))
    sets = load_sets(corpora, ["goemotions", "brighter", "xed", "xed_neutral", "kajava"])
    tested = {text_key(str(row.text)) for one in sets for row in one.rows}
    assert tested and not train & tested


def test_a_text_that_tests_in_one_corpus_is_left_out_where_another_would_train_with_it(corpora, tmp_path):
    for file in (corpora / "sentiment-text").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tested = next(row.text for row in load_sets(corpora, ["goemotions"])[0].rows)
    assert text_part("Tatoeba-projected", tested.upper()) == "train"
    with open(tmp_path / "tatoeba_projected.csv", "a") as file:
        file.write(f"{tested.upper()},neutral,,vi,Tatoeba-projected\n")
    found = read_texts(tmp_path)
    assert tested.upper() not in set(found.text) and tested in set(found.text[found.split == "test"])
