"""Speak the five utterances that `mmsr app` offers to try, into mmsr/examples.

    python experiments/package_examples.py

They are of the demo corpus' test split: voices and sentences that the checkpoint `demo` never heard. Before
anything is written the checkpoint is asked about each of them as it will be stored, and has to give the label
that the corpus' rule gives. Needs the extra `demo`.
"""

from __future__ import annotations

import io
import json

import soundfile

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


def stored(samples: object) -> bytes:
    """Samples as MP3: every browser plays it, and libsndfile writes the same bytes each time."""
    content = io.BytesIO()
    soundfile.write(
        content, samples, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.3
    )
    return content.getvalue()


def main() -> None:
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
        for file, content in sounds.items():
            (half / file).write_bytes(content)
        (half / "README.md").write_text(README, encoding="utf-8")
        (half / "examples.json").write_text(
            json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
