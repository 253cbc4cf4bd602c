"""Parts of the corpora: no row trains and tests, and pairs are of held-out voices and texts."""

import csv

import held_out
import pytest
from held_out import KINDS, SENTIMENTS, SETS, load_sets, pairs, speaker_part, text_fold, text_part

from mmsr.records import Utterance

SOURCES = ("GoEmotions-train", "GoEmotions-dev", "BRIGHTER-train", "BRIGHTER-dev", "XED-projected-tw")
SOURCES += ("XED-annotated", "Kajava-train", "Tatoeba-projected", "TopicalChat-valid_freq")


@pytest.mark.parametrize(
    ("speaker", "part"),
    [("crema_1005", "test"), ("crema_1090", "test"), ("crema_1001", "selection"), ("crema_1004", "train")],
)
def test_the_id_of_a_speaker_gives_the_part(speaker, part):
    assert speaker_part(speaker) == part


def test_a_speaker_without_an_id_is_refused():
    with pytest.raises(ValueError, match=r"speaker is 'ravdess01'; accepted: crema_ and an id"):
        speaker_part("ravdess01")


def test_the_fold_of_a_text_never_changes():
    assert [text_fold(text) for text in ("Thank you.", "Cảm ơn.", "谢谢。")] == [2, 8, 2]


def test_fold_one_is_in_no_test_set_but_of_development_rows_and_fold_zero_only_of_two_corpora():
    by_fold = {}
    for number in range(400):
        by_fold.setdefault(text_fold(f"text {number}"), f"text {number}")
    assert sorted(by_fold) == list(range(10))
    for source in SOURCES:
        parts = {fold: text_part(source, text) for fold, text in by_fold.items()}
        if source.endswith("-dev"):
            assert set(parts.values()) == {"test"}
            continue
        assert parts.pop(1) == "selection"
        assert parts.pop(0) == ("test" if source.startswith(("XED", "Kajava")) else "train")
        assert set(parts.values()) == {"train"}


def test_sets_hold_test_rows_alone(corpora):
    sets = {found.name: found for found in load_sets(corpora, SETS)}
    assert list(sets) == list(SETS)
    assert all(row.split == "test" and row.label for found in sets.values() for row in found.rows)
    assert all(len({row.id for row in found.rows}) == len(found.rows) > 0 for found in sets.values())
    assert {str(row.speaker) for row in sets["crema"].rows} == {"crema_1000", "crema_1005"}
    assert {row.kind for row in sets["goemotions"].rows} == {"GoEmotions-dev"}
    assert {row.language for row in sets["brighter"].rows} == {"en", "de", "zh"}
    assert {row.label for row in sets["xed"].rows} == {"negative", "positive"}
    assert {row.language for row in sets["xed_neutral"].rows} == {"en"}
    assert {row.label for row in sets["xed_neutral"].rows} == set(SENTIMENTS)
    assert all(text_fold(row.text) == 0 for name in ("xed", "kajava") for row in sets[name].rows)
    assert {row.language for row in sets["paper"].rows} == {"vi", "en"}


def test_a_text_is_in_one_part_even_of_two_corpora(corpora):
    parts = {}
    for row in held_out.text_rows(corpora, ["xed", "kajava_subtitles"]):
        parts.setdefault(row.text, set()).add(row.split)
    assert all(len(found) == 1 for found in parts.values())


def test_texts_of_the_training_are_left_out_of_a_set_and_many_of_them_refused(corpora, tmp_path):
    (found,) = load_sets(corpora, ["goemotions"])

    def written(texts, split):
        with open(tmp_path / "texts.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "language", "source", "split"])
            writer.writerows([text, "neutral", "en", "XED-neutral", split] for text in texts)
        return held_out.read_training_texts(tmp_path / "texts.csv")

    seen = found.rows[0].text
    assert load_sets(corpora, ["goemotions"], training_texts=written([seen], "test"))[0].left_out == 0
    for split in ("train", "selection"):
        (left,) = load_sets(corpora, ["goemotions"], training_texts=written([f" {seen.upper()}"], split))
        assert left.left_out == 1
        assert [row.id for row in left.rows] == [row.id for row in found.rows[1:]]
    with pytest.raises(ValueError, match=r"30 of 30 rows of goemotions are in the training texts; accepted"):
        load_sets(corpora, ["goemotions"], training_texts=written([row.text for row in found.rows], "train"))


def test_texts_without_a_column_are_refused(tmp_path):
    (tmp_path / "texts.csv").write_text("text,label,language\na,neutral,en\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"texts.csv has no column source, split; accepted: text, label"):
        held_out.read_texts(tmp_path / "texts.csv")


def test_an_unknown_set_is_refused(corpora):
    with pytest.raises(ValueError, match="set is emodb; accepted: crema, ravdess"):
        load_sets(corpora, ["crema", "emodb"])


def parts_of(n):
    labels = [SENTIMENTS[i % 3] for i in range(n)]
    voices = [
        Utterance(id=f"v{i}", audio=f"{i}.wav", text="a jacket", label=one) for i, one in enumerate(labels)
    ]
    texts = [Utterance(id=f"t{i}", text=f"text {i}", label=one) for i, one in enumerate(labels)]
    return voices, texts


def test_pairs_have_the_labels_of_their_kind_and_the_seed_draws_them():
    voices, texts = parts_of(30)
    found = pairs(voices, texts, n=20, seed=3)
    assert list(found) == list(KINDS) and all(len(members) == 20 for members in found.values())
    label_of = {row.audio: row.label for row in voices} | {row.text: row.label for row in texts}
    for members in found.values():
        assert all(label_of[pair.row.audio] == pair.voice for pair in members)
        assert all(label_of[pair.row.text] == pair.text for pair in members)
        assert len({pair.row.id for pair in members}) == 20
    assert all(pair.voice == pair.text == pair.row.label for pair in found["agreeing"])
    assert all(pair.voice == "neutral" and pair.row.label == pair.text for pair in found["neutral_voice"])
    assert all(pair.text == "neutral" and pair.row.label == pair.voice for pair in found["neutral_text"])
    assert {(pair.voice, pair.text, pair.row.label) for pair in found["conflicting"]} == {
        ("negative", "positive", None),
        ("positive", "negative", None),
    }
    for kind in ("agreeing", "neutral_voice", "neutral_text"):
        counts = [sum(pair.row.label == label for pair in found[kind]) for label in SENTIMENTS]
        assert sorted(counts) == [6, 7, 7]
    drawn = [pair.row.audio for pair in found["neutral_voice"]]
    assert max(map(drawn.count, drawn)) == 2  # ten neutral voices for twenty pairs
    assert pairs(voices, texts, n=20, seed=3) == found != pairs(voices, texts, n=20, seed=4)


def test_pairs_need_every_label():
    voices, texts = parts_of(30)
    with pytest.raises(ValueError, match="no voice is neutral; accepted: one or more of each of negative"):
        pairs([row for row in voices if row.label != "neutral"], texts, n=4)
