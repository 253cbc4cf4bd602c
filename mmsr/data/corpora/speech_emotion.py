"""Corpora of acted emotion: EmoDB, RAVDESS, IEMOCAP. They have few speakers, so folds are by speaker."""

import re
from collections.abc import Iterator
from dataclasses import replace

from mmsr.data.corpora.source import SENTIMENTS, Corpus, Protocol, Source, Utterance

# ---------------------------------------------------------------------- EmoDB

_EMODB_TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_EMODB_EMOTIONS = dict(  # by the initial of the German word
    W="anger", L="boredom", E="disgust", A="fear", F="happiness", T="sadness", N="neutral"
)
_EMODB_SPEAKERS = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
_EMODB_NAME = re.compile(
    rf"({'|'.join(_EMODB_SPEAKERS)})({'|'.join(_EMODB_TEXTS)})([{''.join(_EMODB_EMOTIONS)}])([a-z])"
)


def _read_emodb(source: Source) -> Iterator[Utterance]:
    """`03a01Fa.wav`: speaker 03, text a01, emotion F, version a."""
    for path in source.recordings():
        code = _EMODB_NAME.fullmatch(path.stem)
        if code is None:
            source.leave_out(
                source.name(path),
                "is no EmoDB name; accepted: speaker, text, emotion and version, as 03a01Fa,"
                f" the emotion one of {', '.join(_EMODB_EMOTIONS)}",
            )
            continue
        speaker, text, emotion, _ = code.groups()
        yield Utterance(
            id=path.stem,
            where=source.name(path),
            audio=path,
            text=_EMODB_TEXTS[text],
            label=_EMODB_EMOTIONS[emotion],
            language="de",
            speaker=f"emodb{speaker}",
            more={"emotion": _EMODB_EMOTIONS[emotion], "fold": _EMODB_SPEAKERS.index(speaker)},
        )


_EMODB_PROTOCOL = Protocol(
    name="EmoDB seven emotions, leave one speaker out",
    labels=tuple(sorted(_EMODB_EMOTIONS.values())),
    metrics=("uar", "accuracy"),
    folds=10,
    fold_by="speaker",
    label_of={emotion: emotion for emotion in _EMODB_EMOTIONS.values()},
    rows=535,
    source="doi:10.21437/Interspeech.2005-446",
)

EMODB = Corpus(
    name="emodb",
    read=_read_emodb,
    layout="recordings named as 03a01Fa.wav, in wav/ or anywhere below",
    home="http://emodb.bilderbar.info (Berlin Database of Emotional Speech)",
    protocols={
        "sentiment": replace(
            _EMODB_PROTOCOL,
            name="EmoDB sentiment from seven emotions, leave one speaker out",
            labels=SENTIMENTS,
            label_of=dict.fromkeys(("anger", "boredom", "disgust", "fear", "sadness"), "negative")
            | {"neutral": "neutral", "happiness": "positive"},
        ),
        "emotion": _EMODB_PROTOCOL,
    },
)


# ---------------------------------------------------------------------- RAVDESS

_RAVDESS_TEXTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
_RAVDESS_EMOTIONS = {
    f"{code:02d}": emotion
    for code, emotion in enumerate(
        ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"), start=1
    )
}
_RAVDESS_NAME = re.compile(
    r"(?P<modality>0[123])-(?P<channel>0[12])-(?P<emotion>0[1-8])-(?P<intensity>0[12])-(?P<text>0[12])"
    r"-(?P<take>0[12])-(?P<actor>0[1-9]|1\d|2[0-4])"
)


def _read_ravdess(source: Source) -> Iterator[Utterance]:
    """`03-01-06-01-02-01-12.wav`: audio only, speech, fearful, normal, text 2, first take, actor 12."""
    for path in source.recordings():
        place = source.name(path)
        code = _RAVDESS_NAME.fullmatch(path.stem)
        if code is None:
            source.leave_out(
                place, "is no RAVDESS name; accepted: seven two-digit codes, as 03-01-06-01-02-01-12"
            )
        elif code["channel"] == "02":
            source.leave_out(place, "is sung, and the protocol is of speech (03-01-...)")
        elif code["modality"] != "03":
            source.leave_out(place, "is a video; its audio is a separate file 03-01-...")
        else:
            emotion = _RAVDESS_EMOTIONS[code["emotion"]]
            yield Utterance(
                id=path.stem,
                where=place,
                audio=path,
                text=_RAVDESS_TEXTS[code["text"]],
                label=emotion,
                language="en",
                speaker=f"ravdess{code['actor']}",
                more={
                    "emotion": emotion,
                    "intensity": {"01": "normal", "02": "strong"}[code["intensity"]],
                    "fold": (int(code["actor"]) - 1) // 4,
                },
            )


# The corpus has no official protocol. Six folds by actor are EmoBox's; consecutive actors are our choice.
_RAVDESS_PROTOCOL = Protocol(
    name="RAVDESS speech, eight emotions, six folds of four actors",
    labels=tuple(_RAVDESS_EMOTIONS.values()),
    metrics=("uar", "accuracy", "macro_f1"),
    folds=6,
    fold_by="speaker",
    label_of={emotion: emotion for emotion in _RAVDESS_EMOTIONS.values()},
    rows=1440,
    source="doi:10.1371/journal.pone.0196391; folds by arXiv:2406.07162",
)

RAVDESS = Corpus(
    name="ravdess",
    read=_read_ravdess,
    layout="recordings named as 03-01-06-01-02-01-12.wav (or .flac), in Actor_12/ or anywhere below",
    home="https://zenodo.org/records/1188976 (Audio_Speech_Actors_01-24.zip)",
    licence="CC BY-NC-SA 4.0",
    protocols={
        "sentiment": replace(
            _RAVDESS_PROTOCOL,
            name="RAVDESS speech, sentiment from seven emotions, six folds of four actors",
            labels=SENTIMENTS,
            label_of=dict.fromkeys(("sad", "angry", "fearful", "disgust"), "negative")
            | {"neutral": "neutral", "calm": "neutral", "happy": "positive"},
            rows=1248,
        ),
        "emotion": _RAVDESS_PROTOCOL,
    },
)


# ---------------------------------------------------------------------- IEMOCAP

_IEMOCAP_TURN = re.compile(
    r"\[(?P<start>[\d.]+) - (?P<end>[\d.]+)\]\t(?P<id>(?P<dialogue>Ses0(?P<session>[1-5])\w+)_"
    r"(?P<gender>[FM])\w+)\t(?P<emotion>\w+)\t\[(?P<valence>[\d.]+), (?P<activation>[\d.]+), [\d.]+\]"
)
_IEMOCAP_LINE = re.compile(r"(?P<id>Ses0\w+) \[[^\]]*\]:\s*(?P<text>.*)")


def _read_iemocap(source: Source) -> Iterator[Utterance]:
    """Turns of `dialog/EmoEvaluation/*.txt`, words of `dialog/transcriptions`, sound of `sentences/wav`."""
    sheets = source.files("Session*/dialog/EmoEvaluation/Ses*.txt")
    lines_of_text = (
        _IEMOCAP_LINE.fullmatch(line.strip())
        for path in source.files("Session*/dialog/transcriptions/Ses*.txt")
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n")
    )
    texts = {line["id"]: line["text"] for line in lines_of_text if line}
    for sheet in sheets:
        session = sheet.parents[2]
        place = source.name(sheet)
        lines = sheet.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.startswith("[") or line.startswith("[START"):
                continue  # the votes of single annotators, and the header
            source.read[place] += 1
            turn = _IEMOCAP_TURN.fullmatch(line.strip())
            if turn is None:
                problem = f"{line.strip()!r} is no turn; accepted: [start - end], turn, emotion, [v, a, d]"
                source.issue(place, problem, row=number)
                continue
            if turn["id"] not in texts:
                source.notes.append(f"{turn['id']} has no transcript")
            yield Utterance(
                id=turn["id"],
                where=f"{place}, row {number}",
                audio=session / "sentences" / "wav" / turn["dialogue"] / f"{turn['id']}.wav",
                text=texts.get(turn["id"]),
                label=turn["emotion"],
                language="en",
                speaker=f"iemocap{turn['session']}{turn['gender']}",
                kind="improvised" if "impro" in turn["dialogue"] else "scripted",
                more={
                    "emotion": turn["emotion"],
                    "valence": turn["valence"],
                    "activation": turn["activation"],
                    "fold": int(turn["session"]) - 1,
                },
            )


_IEMOCAP_PROTOCOL = Protocol(
    name="IEMOCAP four emotions (happy with excited), leave one session out",
    labels=("angry", "happy", "neutral", "sad"),
    metrics=("uar", "accuracy"),  # the papers' UA and WA
    folds=5,
    fold_by="session",
    label_of={"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"},
    rows=5531,
    source="doi:10.1007/s10579-008-9076-6",
)

IEMOCAP = Corpus(
    name="iemocap",
    read=_read_iemocap,
    layout="Session1 to Session5, each with dialog/EmoEvaluation, dialog/transcriptions and sentences/wav",
    home="https://sail.usc.edu/iemocap (on request)",
    licence="IEMOCAP release form",
    protocols={
        "sentiment": replace(
            _IEMOCAP_PROTOCOL,
            name="IEMOCAP sentiment from four emotions, leave one session out",
            labels=SENTIMENTS,
            label_of={"ang": "negative", "sad": "negative", "neu": "neutral"}
            | dict.fromkeys(("hap", "exc"), "positive"),
        ),
        "emotion": _IEMOCAP_PROTOCOL,
    },
)
