"""Recordings in folders of labels, `root/LABEL/*.wav` or `root/SPLIT/LABEL/*.wav`, or without labels."""

from collections.abc import Iterator
from pathlib import Path

from mmsr.data.corpora.source import SOUND, SPLIT_OF, VIDEO, Corpus, Protocol, Source, Utterance


def _read_folders(source: Source) -> Iterator[Utterance]:
    """Recordings, each with its transcript if there is a text file of the same name beside it."""
    beside = _beside(source)
    texts = source.transcripts(beside.values())
    paths = list(source.recordings())
    unlabelled = source.labels == "none" or all(path.parent == source.root for path in paths)
    if unlabelled and source.labels != "none":
        source.notes.append("no recording is in a folder, so none has a label")
    for path in paths:
        place = source.name(path)
        *splits, label = path.relative_to(source.root).parts[:-1] or [""]
        if unlabelled:
            splits, label = [], ""
        elif not label or len(splits) > 1 or any(name.lower() not in SPLIT_OF for name in splits):
            known = ", ".join(SPLIT_OF)
            accepted = f"LABEL/FILE or SPLIT/LABEL/FILE ({known}), or --labels none"
            problem = f"is in no label's folder; accepted: {accepted}"
            source.issue(place, problem)
            continue
        elif not splits and label.lower() in SPLIT_OF:
            source.issue(place, f"{label!r} is a split's name; accepted: {label}/LABEL/{path.name}")
            continue
        transcript = beside.get(path.with_suffix(""))
        yield Utterance(
            id="-".join(path.relative_to(source.root).with_suffix("").parts),
            where=place,
            audio=path,
            text=texts[transcript].strip() if transcript in texts else None,
            label=label or None,
            language=source.language,
            speaker=source.speaker(path),
            split=SPLIT_OF[splits[0].lower()] if splits else None,
        )
    source.check_speakers()
    named = {path.with_suffix("") for path in source.paths(SOUND | VIDEO)}
    for stem, transcript in beside.items():
        if stem not in named:
            source.notes.append(f"{source.name(transcript)} has no recording beside it")


def _beside(source: Source) -> dict[Path, Path]:
    """Text files by their path without ending."""
    found: dict[Path, Path] = {}
    for path in source.paths({".txt"}):
        first = found.setdefault(path.with_suffix(""), path)
        if first != path:
            source.issue(
                source.name(path), f"is beside {first.name}; accepted: one transcript", column="text"
            )
    return found


FOLDER = Corpus(
    name="folder",
    read=_read_folders,
    layout="LABEL/FILE.wav, SPLIT/LABEL/FILE.wav or FILE.wav without a label, with FILE.txt beside where "
    "there is a transcript",
    home="your own recordings",
    licence="yours",
    own=True,
    protocols={
        "folder": Protocol(
            name="a folder for each label", labels=(), metrics=("macro_f1", "accuracy"), source="your own"
        ),
        "none": Protocol(
            name="recordings without labels", labels=(), metrics=("macro_f1",), source="your own"
        ),
    },
)
