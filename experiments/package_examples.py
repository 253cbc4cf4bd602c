"""Make the utterances that `mmsr app` offers to try, in mmsr/examples.

    python experiments/package_examples.py                            five synthetic voices
    python experiments/package_examples.py --people ../shared/data    four people, from CREMA-D

The synthetic ones are of the demo corpus' test split: voices and sentences that the checkpoint `demo` never
heard. Before anything is written the checkpoint is asked about each of them as it will be stored, and has to
give the label that the corpus' rule gives. Needs the extra `demo`.

The people are speakers whose id is divisible by five, whom no checkpoint was trained or selected on. Of each
of four emotions it is the clip whose emotion most listeners heard (the mean level of their vote), with a
sentence and a speaker of its own. No checkpoint is asked.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
from pathlib import Path

import soundfile

from mmsr.data.audio.decoding import Audio
from mmsr.data.corpora.demo.corpus import SAMPLE_RATE, Utterance, plan, speak
from mmsr.files import atomic_write
from mmsr.inference.loading import load_pipeline
from mmsr.serving.app import EXAMPLES

# One a language: words against voice, voice alone (twice), and words alone (twice).
CHOSEN = {
    "en": "so the pharmacist was wonderfully kind",
    "vi": "thì bác sĩ mới làm đến bốn giờ hôm nay",
    "zh": "今天新来的医生帮了大忙",
    "de": "sein arm wird gerade untersucht sage ich mal",
    "fr": "donc la secrétaire nous ignore complètement comme je disais",
}
README = """# Five utterances to try

Synthetic voices: sentences of mmsr's own grammar (`mmsr/data/corpora/demo/grammar.py`), spoken by
[espeak-ng](https://github.com/espeak-ng/espeak-ng) and stored as MP3, 16 kHz, mono. No person speaks. They
are under the licence of mmsr, Apache-2.0; espeak-ng is a program under GPL-3, and its output is not.

Made by `python experiments/package_examples.py`. They were chosen such that the checkpoint `demo` is right
about them, and so say nothing of how often it is. `examples.json` holds what is said, and the label that the
rule of the demo corpus gives.
"""


EMOTIONS = {"anger": "A", "happiness": "H", "sadness": "S", "neutral": "N"}
"""Emotions of the people, with the letter of the listeners' vote."""
PEOPLE = """# Four people to try

Acted speech: {count} clips of [CREMA-D](https://github.com/CheyneyComputerScience/CREMA-D) (Cao, Cooper,
Keutmann, Gur, Nenkova and Verma 2014), **re-synthesised**: rebuilt from log-mel spectrograms, so that level
and phase are not those of the recordings, and stored as MP3, 16 kHz, mono.

CREMA-D is made available under the Open Database License: https://opendatacommons.org/licenses/odbl/1-0/. Any
rights in individual contents of the database are licensed under the Database Contents License:
https://opendatacommons.org/licenses/dbcl/1-0/. The same holds for these clips.

Made by `python experiments/package_examples.py --people`. They were chosen by the listeners' votes, and no
checkpoint was asked. `examples.json` holds what is said and which emotion was acted.

| file | clip | emotion |
|---|---|---|
"""


def people(data: Path) -> None:
    """Choose and write the clips of people."""
    tables = []
    for name in ("manifest.csv", "extra.csv"):
        with open(data / "crema-d" / name, newline="", encoding="utf-8") as file:
            tables.append({row["audio"]: row for row in csv.DictReader(file)})
    clips = [row | tables[1][audio] for audio, row in tables[0].items()]
    unheard = [row for row in clips if int(row["speaker"].removeprefix("crema_")) % 5 == 0]
    chosen: dict[str, dict[str, str]] = {}
    for emotion, letter in EMOTIONS.items():
        taken = {row[name] for row in chosen.values() for name in ("text", "speaker")}
        agreed = [
            row
            for row in unheard
            if row["emotion"] == emotion
            and row["voice_vote"] == letter
            and row["truncated_3s"] == "0"
            and not taken & {row["text"], row["speaker"]}
        ]
        chosen[emotion] = max(agreed, key=lambda row: float(row["voice_level"]))
    listed, rows = PEOPLE.format(count=len(chosen)), []
    with atomic_write(EXAMPLES / "people") as half:
        half.mkdir()
        for emotion, row in chosen.items():
            content = stored(Audio(SAMPLE_RATE)(str(data / "crema-d" / row["audio"])))
            (half / f"{emotion}.mp3").write_bytes(content)
            rows.append(
                {"audio": f"{emotion}.mp3", "emotion": emotion}
                | {key: row[key] for key in ("text", "language", "label")}
            )
            listed += f"| {emotion}.mp3 | {Path(row['audio']).stem} | {emotion} |\n"
            print(f"{emotion}.mp3: {len(content):,} bytes, {row['audio']}: {row['text']}")
        (half / "README.md").write_text(listed, encoding="utf-8")
        (half / "examples.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def stored(samples: object) -> bytes:
    """Samples as MP3: every browser plays it, and libsndfile writes the same bytes each time."""
    content = io.BytesIO()
    soundfile.write(
        content, samples, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.3
    )
    return content.getvalue()


def main() -> None:
    """Make the ones or the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--people", type=Path, metavar="DATA", help="folder of the corpora, for the clips of people"
    )
    args = parser.parse_args()
    if args.people is None:
        synthetic()
    else:
        people(args.people)


def synthetic() -> None:
    """Speak, check and write."""
    unheard = [utterance for split, utterance in plan(2400, 0) if split == "test"]
    chosen: list[Utterance] = [
        next(one for one in unheard if (one.language, one.sentence) == pair) for pair in CHOSEN.items()
    ]
    pipe = load_pipeline("demo", device="cpu")
    rows, sounds = [], {}
    for one, samples in zip(chosen, speak(chosen), strict=True):
        file = f"{one.language}.mp3"
        sounds[file] = stored(samples)
        answer = pipe({"audio": sounds[file], "text": one.sentence})
        print(f"{file}: {len(sounds[file]):,} bytes, {one.kind}, {one.label}; {dict(answer)}")
        if answer["label"] != one.label:
            raise SystemExit(f"{file}: the checkpoint says {answer['label']}, the rule {one.label}")
        rows.append({"audio": file, "text": one.sentence, "language": one.language, "label": one.label})
    with atomic_write(EXAMPLES) as half:
        half.mkdir()
        if (EXAMPLES / "people").exists():
            shutil.copytree(EXAMPLES / "people", half / "people")
        for file, content in sounds.items():
            (half / file).write_bytes(content)
        (half / "README.md").write_text(README, encoding="utf-8")
        (half / "examples.json").write_text(
            json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
