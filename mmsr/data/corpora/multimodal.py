"""Corpora of text and audio in fixed splits: MELD, CMU-MOSI, CMU-MOSEI, SLUE-VoxCeleb."""

from collections.abc import Iterator
from dataclasses import replace

from mmsr.data.corpora.source import SENTIMENTS, Corpus, Protocol, Segment, Source, Utterance

# ---------------------------------------------------------------------- MELD

_MELD_EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
_MELD_FOLDERS = {
    "train": ("train_splits", "train"),
    "dev": ("dev_splits_complete", "dev_splits", "dev"),
    "test": ("output_repeated_splits_test", "test_splits", "test"),
}


def _read_meld(source: Source) -> Iterator[Utterance]:
    """Rows of `{train,dev,test}_sent_emo.csv`; audio of `dia0_utt0.wav` or `.mp4` in the split's folder."""
    columns = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
    accepted = {"Sentiment": SENTIMENTS, "Emotion": _MELD_EMOTIONS}
    for split, folders in _MELD_FOLDERS.items():
        table = source.file(f"{split}_sent_emo.csv")
        clips = source.clips(*folders)
        if not clips:
            source.notes.append(f"no recordings in {' or '.join(folders)}: the {split} rows have text alone")
        by_name = {name.rpartition("/")[2]: path for name, path in clips.items()}
        place = source.name(table)
        for number, row in source.table(table, require=columns):
            for column, values in accepted.items():
                if row[column].lower() not in values:
                    problem = f"{row[column]!r} is unknown; accepted: {', '.join(values)}"
                    source.issue(place, problem, row=number, column=column)
            clip = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            emotion = row["Emotion"].lower()
            yield Utterance(
                id=f"meld-{split}-{clip}",
                where=f"{place}, row {number}",
                audio=by_name.get(clip, source.root / folders[0] / f"{clip}.mp4") if clips else None,
                text=row["Utterance"],
                label=emotion if source.labels == "emotion" else row["Sentiment"].lower(),
                language="en",
                speaker=row["Speaker"],
                split=split,
                more={"emotion": emotion, "dialogue": row["Dialogue_ID"]},
            )


_MELD_PROTOCOL = Protocol(
    name="MELD three sentiments",
    labels=SENTIMENTS,
    metrics=("weighted_f1", "macro_f1", "accuracy"),
    splits=tuple(_MELD_FOLDERS),
    rows=13_708,
    source="arXiv:1810.02508",
)

MELD = Corpus(
    name="meld",
    read=_read_meld,
    layout="train_sent_emo.csv, dev_sent_emo.csv and test_sent_emo.csv, the clips dia0_utt0.wav or .mp4 in"
    " train_splits, dev_splits_complete and output_repeated_splits_test",
    home="https://github.com/declare-lab/MELD (MELD.Raw.tar.gz)",
    licence="GPL-3.0 (annotations); the clips are from a television series",
    protocols={
        "sentiment": _MELD_PROTOCOL,
        "emotion": replace(_MELD_PROTOCOL, name="MELD seven emotions", labels=_MELD_EMOTIONS),
    },
    text_alone=True,
)


# ---------------------------------------------------------------------- CMU-MOSI and CMU-MOSEI

_MOSI_SPLITS = {"train": "train", "valid": "dev", "test": "test"}


def _read_mosi(source: Source) -> Iterator[Utterance]:
    """Rows of `label.csv` (MMSA's and Self-MM's layout); audio of `Raw/VIDEO/CLIP.wav` or `.mp4`."""
    table = source.file("label.csv")
    place = source.name(table)
    clips = source.clips("Raw", "wav", "audio")
    if not clips:
        source.notes.append("no recordings in Raw, wav or audio: the rows have text alone")
    for number, row in source.table(table, require=("video_id", "clip_id", "text", "label", "mode")):
        score = source.number(row["label"], place, row=number, column="label")
        if score is None or abs(score) > 3:
            if score is not None:
                problem = f"{row['label']!r} is no score; accepted: -3 to 3"
                source.issue(place, problem, row=number, column="label")
            continue
        if row["mode"] not in _MOSI_SPLITS:
            problem = f"{row['mode']!r} is unknown; accepted: {', '.join(_MOSI_SPLITS)}"
            source.issue(place, problem, row=number, column="mode")
            continue
        if source.labels == "acc2" and score == 0:
            source.leave_out(f"{place}, row {number}", "its score 0 is neither negative nor positive")
            continue
        clip = f"{row['video_id']}/{row['clip_id']}"
        found = [clips[name] for mark in ("/", "_", "$_$") if (name := clip.replace("/", mark)) in clips]
        yield Utterance(
            id=clip.replace("/", "_"),
            where=f"{place}, row {number}",
            audio=(found or [source.root / f"Raw/{clip}.mp4"])[0] if clips else None,
            text=row["text"],
            label=bin_score(score, source.labels),
            language="en",
            speaker=row["video_id"],  # a video has a single speaker
            split=_MOSI_SPLITS[row["mode"]],
            more={"score": row["label"]},
        )


def bin_score(score: float, protocol: str) -> str:
    """The label of a sentiment score, -3 to 3, by a protocol.

    `sentiment`: below, at or above 0. `acc2`: negative or positive (0 is left out). `acc2_nonnegative`:
    negative or not. `acc7`: the nearest integer, halves to the even one, as numpy rounds.
    """
    if protocol == "acc7":
        return str(round(score))
    if score < 0:
        return "negative"
    if protocol == "acc2_nonnegative":
        return "non-negative"
    return "positive" if score > 0 else "neutral"


def _mosi_protocols(corpus: str, *, rows: int, source: str) -> dict[str, Protocol]:
    two = ("accuracy", "weighted_f1")
    return {
        key: Protocol(
            name=f"{corpus} {name}",
            labels=labels,
            metrics=metrics,
            splits=("train", "dev", "test"),
            rows=None if key == "acc2" else rows,
            source=source,
        )
        for key, name, labels, metrics in (
            ("sentiment", "below, at and above 0", SENTIMENTS, ("macro_f1", "accuracy")),
            ("acc2", "Acc-2 negative / positive, without 0", ("negative", "positive"), two),
            ("acc2_nonnegative", "Acc-2 negative / not", ("negative", "non-negative"), two),
            ("acc7", "Acc-7 rounded", ("-3", "-2", "-1", "0", "1", "2", "3"), ("accuracy",)),
        )
    }


MOSI = Corpus(
    name="cmu-mosi",
    read=_read_mosi,
    layout="label.csv (video_id, clip_id, text, label, annotation, mode: the layout of MMSA and Self-MM)"
    " beside Raw/VIDEO/CLIP.wav or .mp4",
    home="https://github.com/thuiar/MMSA (MOSI, raw)",
    licence="CMU Multimodal SDK, research use",
    protocols=_mosi_protocols("CMU-MOSI", rows=2199, source="arXiv:1606.06259; layout by arXiv:2102.04830"),
    text_alone=True,
)

MOSEI = replace(
    MOSI,
    name="cmu-mosei",
    home="https://github.com/thuiar/MMSA (MOSEI, raw)",
    protocols=_mosi_protocols(
        "CMU-MOSEI", rows=22_856, source="doi:10.18653/v1/P18-1208; layout by arXiv:2102.04830"
    ),
)


# ---------------------------------------------------------------------- SLUE-VoxCeleb

_SLUE_SPLITS = {"fine-tune": "train", "dev": "dev", "test": "test"}


def _read_slue(source: Source) -> Iterator[Utterance]:
    """Rows of `slue-voxceleb_{fine-tune,dev,test}.tsv` and the annotated part of each recording.

    The test table may be `..._test_blind.tsv`, whose rows have no label.
    """
    for part, split in _SLUE_SPLITS.items():
        labelled = list(source.root.rglob(f"slue-voxceleb_{part}.tsv"))
        blind = part == "test" and not labelled
        table = source.file(f"slue-voxceleb_{part}{'_blind' if blind else ''}.tsv")
        place = source.name(table)
        clips = source.clips(f"{part}_raw", part, "audio")
        by_name = {name.rpartition("/")[2]: path for name, path in clips.items()}
        needed = ("id", "start_second", "end_second") + (() if blind else ("sentiment",))
        for number, row in source.table(table, require=needed, delimiter="\t"):
            label = row.get("sentiment", "").lower() or None
            if label not in (None, *SENTIMENTS):
                source.leave_out(f"{place}, row {number}", f"its annotators gave {label}")
                continue
            start, end = (
                source.number(row[column], place, row=number, column=column)
                for column in ("start_second", "end_second")
            )
            if start is None or end is None:
                continue
            clip = by_name.get(row["id"], source.root / f"{part}_raw" / f"{row['id']}.flac")
            yield Utterance(
                id=row["id"],
                where=f"{place}, row {number}",
                audio=Segment(clip, start, end),
                text=row.get("normalized_text") or row.get("raw_text"),
                label=label,
                language="en",
                speaker=row.get("speaker_id") or row["id"].partition("_")[0],
                split=split,
                more={"start": start, "end": end},
            )


SLUE_VOXCELEB = Corpus(
    name="slue-voxceleb",
    read=_read_slue,
    layout="slue-voxceleb_fine-tune.tsv, slue-voxceleb_dev.tsv and slue-voxceleb_test.tsv or _test_blind.tsv,"
    " beside fine-tune_raw, dev_raw and test_raw with ID.flac",
    home="https://github.com/asappresearch/slue-toolkit",
    licence="CC BY 4.0",
    protocols={
        "sentiment": Protocol(
            name="SLUE-VoxCeleb three sentiments",
            labels=SENTIMENTS,
            metrics=("macro_f1", "accuracy"),
            splits=("train", "dev", "test"),
            source="arXiv:2111.10367",
        )
    },
)
