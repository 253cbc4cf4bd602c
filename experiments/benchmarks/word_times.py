"""When words were said: a recogniser's times against times by the length of the words.

    python experiments/benchmarks/word_times.py --recordings 16

Clips of one speaker, each of one sentence, are joined to recordings of four sentences. Where each sentence
begins and ends is known from its clip. RAVDESS is so quiet that it is where the clip sounds. CREMA-D has
noise around the voice, so it is where silero-vad finds speech; it also moves the recogniser's words to
pauses, so these figures flatter. For each sentence of the true transcript the program takes the mean error of
both edges, in ms, of `mmsr.speech.timing.WordTimes` with a recogniser's words and without them, and the
paired difference, with 95 % intervals over speakers:

| condition | between the sentences |
|---|---|
| pauses | .2 to 1 s of silence |
| joined | nothing, the clips' own silence is cut off: no pause shows where a sentence ends |
| noise | as pauses, with white noise 20 dB below the recording over all of it |

The words inside of sentences have no known times. Writes runs/word-times.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from mmsr.data.audio.decoding import Audio
from mmsr.data.audio.segments import Segmentation, speech_segments
from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.evaluation.entries import mean_with_interval
from mmsr.evaluation.report.names import number
from mmsr.records import SAMPLE_RATE, Chunk, Utterance
from mmsr.speech.recogniser import Transcriber
from mmsr.speech.timing import WordTimes, sounding

DATA = Path("../shared/data")
CORPORA = {"CREMA-D": "crema-d", "RAVDESS": "ravdess16k"}
CONDITIONS = ("pauses", "joined", "noise")
SENTENCES = 4  # in a recording
NOISE = -20.0  # dB of the recording
CLOSE = 0.2  # seconds


class Sentence(NamedTuple):
    """A sentence in a recording, from `start` to `end` in seconds."""

    text: str
    start: float
    end: float


class Joined(NamedTuple):
    """Clips that were joined: samples `[s]`, the sentences and the speaker."""

    wave: np.ndarray
    sentences: list[Sentence]
    speaker: str

    @property
    def text(self) -> str:
        """The true transcript."""
        return " ".join(sentence.text for sentence in self.sentences)


def spoken(clip: Utterance) -> tuple[np.ndarray, float, float]:
    """A clip's samples `[s]`, and where its sentence begins and ends in seconds."""
    wave = Audio(SAMPLE_RATE)(str(clip.audio))
    if "ravdess" in str(clip.speaker):
        return wave, *sounding(wave, SAMPLE_RATE)
    found = speech_segments(wave, Segmentation(padding=0.0))
    found = found or speech_segments(wave, Segmentation(padding=0.0, threshold=0.1))
    return wave, found[0].start, found[-1].end


def join(clips: Sequence[Utterance], condition: str, generator: np.random.Generator) -> Joined:
    """Clips of one speaker as one recording."""
    parts: list[np.ndarray] = []
    sentences, at = [], 0

    def add(wave: np.ndarray) -> None:
        nonlocal at
        parts.append(wave.astype(np.float32))
        at += len(wave)

    def pause() -> None:
        if condition != "joined":
            add(np.zeros(round(SAMPLE_RATE * generator.uniform(0.2, 1.0))))

    pause()
    for clip in clips:
        wave, start, end = spoken(clip)
        if condition == "joined":
            wave, start, end = wave[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)], 0.0, end - start
        sentences.append(Sentence(str(clip.text), at / SAMPLE_RATE + start, at / SAMPLE_RATE + end))
        add(wave)
        pause()
    wave = np.concatenate(parts)
    if condition == "noise":
        level = np.sqrt(np.mean(np.square(wave))) * 10 ** (NOISE / 20)
        wave = wave + generator.normal(0, level, len(wave)).astype(np.float32)
    return Joined(wave, sentences, str(clips[0].speaker))


def draw(
    rows: Sequence[Utterance], count: int, condition: str, generator: np.random.Generator
) -> list[Joined]:
    """Recordings of all speakers in turn, of different sentences while there are some."""
    speakers = sorted({str(row.speaker) for row in rows})
    made = []
    for speaker in (speakers * count)[:count]:
        own = [row for row in rows if row.speaker == speaker]
        texts = generator.permutation(sorted({str(row.text) for row in own})).tolist()
        clips = []
        for text in (texts * SENTENCES)[:SENTENCES]:
            fitting = [row for row in own if row.text == text and row not in clips]
            clips.append(fitting[int(generator.integers(len(fitting)))])
        made.append(join(clips, condition, generator))
    return made


def errors(recording: Joined, words: Sequence[Chunk] | None) -> list[tuple[float, bool]]:
    """The mean error of each sentence's edges in seconds, and whether a recogniser's times gave them."""
    text, found, place = recording.text, [], 0
    times = WordTimes(text, sounding(recording.wave, SAMPLE_RATE), words)
    for sentence in recording.sentences:
        timing = times.of((place, place + len(sentence.text)))
        off = (abs(timing.start - sentence.start) + abs(timing.end - sentence.end)) / 2
        found.append((off, timing.timed_by == "recogniser"))
        place += len(sentence.text) + 1
    return found


def measure(recordings: Sequence[Joined], transcriber: Transcriber) -> dict[str, Any]:
    """The figures of a condition, in ms."""
    rows: list[Utterance] = []
    by_words, by_place, heard = [], [], []
    for recording in track(recordings, description="recordings"):
        (transcript,) = transcriber.transcribe([recording.wave])
        for (one, timed), (other, _) in zip(
            errors(recording, transcript.chunks), errors(recording, None), strict=True
        ):
            rows.append(Utterance(id=str(len(rows)), speaker=recording.speaker))
            by_words.append(1000 * one)
            by_place.append(1000 * other)
            heard.append(timed)
    known, alone, sure = np.array(by_words), np.array(by_place), np.array(heard)
    timed_rows = [row for row, timed in zip(rows, sure, strict=True) if timed]
    return {
        "recordings": len(recordings),
        "speakers": len({recording.speaker for recording in recordings}),
        "recogniser": mean_with_interval(known, rows),
        "proportional": mean_with_interval(alone, rows),
        "difference": mean_with_interval(known - alone, rows),
        "medians": [float(np.median(known)), float(np.median(alone))],
        "close": mean_with_interval(known <= 1000 * CLOSE, rows),
        "close_proportional": mean_with_interval(alone <= 1000 * CLOSE, rows),
        "both_edges_heard": mean_with_interval(sure, rows),
        "recogniser_where_heard": mean_with_interval(known[sure], timed_rows),
    }


def main() -> None:
    """Measure each corpus and condition, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=16, help="of each corpus and condition")
    parser.add_argument("--recogniser", default="../shared/models/whisper-base")
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/word-times.json"))
    args = parser.parse_args()
    transcriber = Transcriber(args.recogniser, timestamps="word", language="en", dtype="float32")
    found = {}
    print(
        "| corpus, condition | sentences | recogniser | proportional | difference | medians"
        " | within 200 ms | both edges heard |\n|---|---:|---|---|---|---|---|---|"
    )
    for corpus in args.corpora:
        rows = utterances(load_manifest(args.data / CORPORA[corpus] / "manifest.csv"))
        for condition in args.conditions:
            generator = np.random.default_rng(args.seed)
            record = measure(draw(rows, args.recordings, condition, generator), transcriber)
            found[f"{corpus}, {condition}"] = record
            print(line(f"{corpus}, {condition}", record), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"seed": args.seed, **found}, indent=1) + "\n", encoding="utf-8")


def line(name: str, record: dict[str, Any]) -> str:
    """A row of the table."""

    def value(key: str, digits: int, *, signed: bool = False) -> str:
        entry = record[key]
        return number(entry["value"], entry.get("interval"), digits=digits, signed=signed)

    cells = [
        name,
        str(record["recogniser"]["n"]),
        value("recogniser", 0),
        value("proportional", 0),
        value("difference", 0, signed=True),
        " / ".join(f"{median:.0f}" for median in record["medians"]),
        f"{value('close', 2)} / {value('close_proportional', 2)}",
        value("both_edges_heard", 2),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
