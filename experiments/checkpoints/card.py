"""Describe the packed checkpoint `base`: its model card (README.md) and checkpoint.json.

    python experiments/checkpoints/card.py
    python experiments/checkpoints/card.py --out mmsr/checkpoints/base

RUN/base          weights, config ──────────────┐
RUN/base.yaml     settings ─────────────────────┤
RUN/seconds.json  seconds of each stage ────────┼─► checkpoint.json ─► README.md
RUN/*.csv         rows of each part ────────────┤
RUN/packing       the weights before 8 bits ────┤
scorings.jsonl    last line of each set ────────┘

Only scorings of these weights count, by their digest, and no trials (`score.py --rows`). What was not scored,
measured or left by the run is left out of the card.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from held_out import KINDS, RULE
from huggingface_hub import ModelCard, ModelCardData
from score import ALL, LOG, limited, table, weights_digest

from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.report.names import number
from mmsr.files import atomic_write, write_file
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.weight_storage import is_int8
from mmsr.records import Utterance

NAME = "base"
Facts = dict[str, Any]

# ---------------------------------------------------------------------- facts


def last_scorings(log: Path, weights: str) -> dict[str, Facts]:
    """The last scoring of each set with these weights, in the order of the sets; trials are left out."""
    found = {record["set"]: record for record in _scorings(log) if record.get("weights") == weights}
    return {name: found[name] for name in ALL if name in found}


def scored_versions(log: Path) -> dict[str, int]:
    """On each set, how many versions of the weights were scored; trials are left out."""
    found: dict[str, set[str]] = {}
    for record in _scorings(log):
        found.setdefault(record["set"], set()).add(record["weights"])
    return {name: len(found[name]) for name in ALL if name in found}


def _scorings(log: Path) -> list[Facts]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [record for record in map(json.loads, lines) if record.get("limit") is None]


def row_counts(run: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Rows that the stages learn from: {what: {split: {language or kind: rows}}}, of the files that exist."""
    files = {
        "clips and copies": ("corpus/clips.csv", "view"),
        "labelled texts": ("corpus/texts.csv", "language"),
        "texts of the second training": ("words-distilled.csv", "language"),
        "pairs, and each alone": ("pairs.csv", "kind"),
    }
    found = {}
    for what, (name, column) in files.items():
        if (run / name).exists():
            rows = pd.read_csv(run / name, usecols=["split", column], keep_default_na=False)
            found[what] = {
                str(split): {str(key): int(count) for key, count in part.value_counts().sort_index().items()}
                for split, part in rows.groupby("split")[column]
            }
    return found


def agreement(packed: Path, whole: Path, rows: Sequence[Utterance]) -> Facts:
    """How alike a checkpoint answers with its stored weights and with those from before they were stored.

    Args:
        packed: Folder of the stored checkpoint.
        whole: Folder with its weights in floats; detectors of outliers that it lacks are those of `packed`.
        rows: What both answer.
    """
    pipes = [load_pipeline(packed), load_pipeline(packed)]
    pipes[1].model.load_state_dict(
        MmsrForSentimentReasoning.from_pretrained(whole).state_dict(), strict=False
    )
    given = [row.model_input() for row in rows]
    first, second = (predictor(pipe, rationale=False)(given) for pipe in pipes)
    answers = list(zip(first, second, strict=True))
    return {
        "n": len(answers),
        "label": sum(a.label == b.label for a, b in answers) / len(answers),
        "largest_difference_of_a_probability": max(
            abs(a.scores[label] - b.scores[label]) for a, b in answers for label in a.scores
        ),
    }


def collect(model: Path, run: Path, log: Path, *, compared: int, seed: int = 0) -> Facts:
    """What is known of a packed checkpoint, for checkpoint.json.

    Args:
        model: Folder of the packed checkpoint.
        run: Folder that base.py left.
        log: File that score.py appends to.
        compared: Number of rows that select, on which stored weights are compared with floats; 0 for none.
        seed: Of the draw of these rows.

    Raises:
        ValueError: The run has no settings, or the checkpoint no weights.
    """
    if not (run / "base.yaml").exists():
        raise ValueError(f"{run} has no base.yaml; accepted: a folder that base.py left")
    settings = yaml.safe_load((run / "base.yaml").read_text(encoding="utf-8"))
    share, seconds = settings.pop("share"), run / "seconds.json"
    weights, pipe, origin = weights_digest(model), load_pipeline(model), Provenance()
    config = pipe.model.config
    command = ["python", "experiments/checkpoints/base.py", *([f"--share={share:g}"] if share < 1 else [])]
    facts: Facts = {
        "name": NAME,
        "trained_by": shlex.join(command),
        "seed": settings["seed"],
        "share": share,
        "weights": weights,
        "stored_as": "int8"
        if is_int8(MmsrConfig.from_pretrained(model))
        else str(config.dtype).removeprefix("torch."),
        "bytes": (model / "model.safetensors").stat().st_size,
        "parameters": pipe.model.num_parameters(),
        "labels": list(config.labels),
        "writes_rationales": pipe.model.writes_rationales,
        "emotions": {"voice": config.voice_emotions, "text": config.text_emotions},
        "temperature": config.temperature,
        "outliers": {
            name: {
                "layer": getattr(config, f"{name}_outlier_layer"),
                "threshold": getattr(config, f"{name}_outlier_threshold"),
            }
            for name in ("audio", "text")
            if getattr(config, f"{name}_outlier_layer") is not None
        },
        "settings": settings,
        "rows": row_counts(run),
        "versions": dict(origin.versions),
        "machine": dict(origin.machine),
        "scorings": last_scorings(log, weights),
        "scored_versions": scored_versions(log),
    }
    if seconds.exists():
        facts["seconds"] = json.loads(seconds.read_text(encoding="utf-8"))
    if compared and (run / "packing").exists():
        rows = utterances(load_manifest(run / "pairs.csv", split="dev"))
        facts["agreement"] = agreement(model, run / "packing", limited(rows, compared, seed))
    unpaired = run / "fusion_unpaired" / "model"
    if unpaired.exists() and (found := last_scorings(log, weights_digest(unpaired)).get("pairs")):
        facts["unpaired"] = found
    return facts


# ---------------------------------------------------------------------- card

CARD = """---
{metadata}
---

# base: sentiment of human speech and text

A small checkpoint of mmsr that hears a voice, reads words, or both, and says whether the sentiment is
{labels}. {rationales}

**Languages of the voice: English alone. Languages of the text: {languages}.** Voices in other languages were
neither trained nor tested.

**The voices are acted, the speakers American, and most texts are subtitles, forum comments and chats. It is
not for clinical use, and not for any decision about a person.**

## Use

```python
import mmsr

explain = mmsr.load_pipeline("{name}")  # or mmsr.checkpoint("{name}") as the folder, for from_pretrained
explain({{"audio": "utterance.wav", "text": "what was said"}})
explain("utterance.wav")  # the voice alone
explain({{"text": "what was said"}})
```

On the command line: `mmsr predict utterance.wav --text "what was said" --model {name}`. The packaged
checkpoint `{name}` is not the preset of that name, `mmsr fit --model.preset {name}`, which has no trained
weights.

## How it was made

{model}

{rows}{seconds}
The clips and the texts come from unrelated corpora, so voices and texts were paired by their labels. {rule}

Speakers of CREMA-D with an id that leaves 1 when divided by 5, and a tenth of the training rows of each text
corpus, select epochs and thresholds. Speakers whose id is divisible by 5, the corpora's development rows, a
tenth of XED and Kajava, RAVDESS and the paper's rows are for testing alone.

{storage}
{figures}
{reasons}## Abstaining

{abstaining}

## Limits

- Voices: acted emotions in English by American actors, twelve sentences, clips of a few seconds. The clips
  were rebuilt from log-mel spectrograms, so that their phase and level are not the recording's. Spontaneous
  speech, other accents, children and other languages are untested.
- Six acted emotions stand behind three labels: anger, disgust, fear and sadness are negative, happiness is
  positive. An actor's intention is the label; listeners do not always agree with it.
- In Vietnamese and French no corpus with human labels has neutral texts. Their neutral texts have the label
  that was projected from, or that the model gave to, the English original.
- Irony, dialect and texts longer than a few sentences are untested.
- It judges an utterance and not a person: no diagnosis, and no screening of patients, applicants, pupils or
  employees.

## Terms

What is ours in these weights is under the software's licence, Apache-2.0. That does not replace the terms of
what they were made from. Keep this section with every copy. None of the corpora's rows is part of the
checkpoint.

{terms}
"""

EXPLAINED = "It names its evidence: the words that decide, the emotion of the words and that of the voice."

REASONS = """\
## Rationales

A rationale is written by a template, in the language of the transcript: the emotion of the words with a
quotation, and the emotion of the voice, as in `words of gratitude: "thank you so much"; a calm voice`. There
is no decoder that could invent one.

- What is quoted are whole words of the transcript, with their place in it and about when they were said.
  They are the words that a head of the model weighs most for the label; it learned from integrated gradients
  of the label's logit on {texts:,} training texts.
- The words' emotion is one of {text}. It goes with the label, unless the voice explains the label. It was
  learned from {named} texts of each emotion in XED, BRIGHTER, GoEmotions and Topical-Chat.
  Below a probability of .5 the words are called positive or negative alone.
- The voice's emotion is one of {voice}, as acted in CREMA-D. It does not depend on the text. Where it
  contradicts the label, the words or another part of the voice decided.

An emotion is a reading of words and tone, and no fact about the speaker.

"""

TERMS = """\
- Contains information from CREMA-D, which is made available under the ODbL / DbCL 1.0: the [Open Database
  License 1.0](https://opendatacommons.org/licenses/odbl/1-0/) for the database, the Database Contents License
  1.0 for its contents. H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova and R. Verma (2014),
  CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset, IEEE Transactions on Affective Computing
  5(4):377-390.
- XED ([CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)): E. Öhman, M. Pàmies, K. Kajava and J.
  Tiedemann (2020), XED: A Multilingual Dataset for Sentiment Analysis and Emotion Detection, COLING.
- BRIGHTER (CC BY 4.0): S. H. Muhammad et al. (2025), BRIGHTER: BRIdging the Gap in Human-Annotated Textual
  Emotion Recognition Datasets for 28 Languages, ACL.
- GoEmotions (CC BY 4.0): D. Demszky et al. (2020), GoEmotions: A Dataset of Fine-Grained Emotions, ACL.
- Topical-Chat ([CDLA-Sharing 1.0](https://cdla.dev/sharing-1-0/)): K. Gopalakrishnan et al. (2019),
  Topical-Chat: Towards Knowledge-Grounded Open-Domain Conversations, Interspeech.
- Kajava's subtitles (Apache-2.0): K. Kajava, E. Öhman, P. Hui and J. Tiedemann (2020), Emotion Preservation
  in Translation: Evaluating Datasets for Annotation Projection, DHN.
- Tatoeba ([CC BY 2.0 FR](https://creativecommons.org/licenses/by/2.0/fr/)): sentences of the contributors of
  [tatoeba.org](https://tatoeba.org), with labels that were projected from English.
- Whisper (MIT, Copyright (c) 2022 OpenAI): A. Radford et al. (2023), Robust Speech Recognition via
  Large-Scale Weak Supervision, ICML. Its lower encoder layers are part of these weights.
- multilingual-e5-small (MIT, Copyright (c) Microsoft Corporation): L. Wang et al. (2024), Multilingual E5
  Text Embeddings: A Technical Report, arXiv 2402.05672. It is part of these weights, its upper layers trained
  further.

Labels of all corpora were mapped to three, and texts were changed where names are masked. The MIT licence of
the two encoders: Permission is hereby granted, free of charge, to any person obtaining a copy of this
software and associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or
sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
following conditions: The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS
OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE
AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR
OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION
WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""

SETS = {
    "crema": "CREMA-D, unheard speakers",
    "ravdess": "RAVDESS, a corpus of other actors that it never trained on",
    "goemotions": "GoEmotions, development rows (en)",
    "brighter": "BRIGHTER, development rows, pooled and by language",
    "xed": "a tenth of XED, negative or positive",
    "xed_neutral": "the same tenth in languages that have a neutral label",
    "kajava": "a tenth of Kajava's subtitles, negative or positive",
    "paper": "the training rows of the mmsr paper (arXiv 2407.21054), doctors' and patients' words in "
    "Vietnamese and translated to English: a corpus that it never trained on; `en - vi` is the difference on "
    "the same rows",
}
"""What the sets of score.py are, for a reader of the card."""

# Heading, text, and the sets of a part of the figures.
FIGURES = (
    ("Voice alone (English)", "", ("crema", "ravdess")),
    ("Text alone", "", ("goemotions", "brighter", "xed", "xed_neutral", "kajava", "paper")),
    (
        "Voice and text",
        "Unheard voices with unread English texts, by kind of pair: {kinds}. `fused` is given both, "
        "`audio` and `text` are the same model with one of them, `late_fusion` is the mean of their "
        "log-probabilities. Pairs were made, not recorded.\n\nWhere voice and words contradict each other "
        "there is no true label: the table of `conflicting` pairs shows how often the model agrees with a "
        "rule, and is no accuracy.",
        ("pairs",),
    ),
    (
        "Calibration",
        "Expected calibration error (ECE), Brier score and negative log-likelihood of each input on "
        "held-out rows.",
        ("calibration",),
    ),
    (
        "What it should refuse",
        "The share of made inputs from which it abstains: silence, noise, music, tones, texts in other "
        "languages, strings that are no language.",
        ("outliers",),
    ),
    (
        "What rationales name",
        "`quoted`: share of held-out texts that are not neutral of which one to eight words are quoted; "
        "`said`: share of quotations that are in the transcript as whole words; the last column is what the "
        "label's probability loses without the quoted words, less what it loses without as many at random. "
        "`swapped`: voices beside one text that are called what they are called alone. `vote` and `acted`: "
        "agreement with the emotion that most listeners heard, and with the acted one.",
        ("evidence",),
    ),
)
INTRODUCTION = (
    "In brackets are 95 % intervals, over speakers where these are known, else over rows. `difference` is "
    "the model's macro-F1 minus the baseline's on the same rows, paired. Baselines: `majority`, the most "
    "frequent training label; `tfidf`, logistic regression on TF-IDF of the same training texts; `probe`, "
    "logistic regression on mean states of Whisper's layers 1 to 6, trained on the same clips."
)


def card(facts: Facts) -> str:
    """The model card."""
    labels, settings = facts["labels"], facts["settings"]
    languages = sorted(settings["corpus"]["languages"])
    metadata = ModelCardData(
        library_name="transformers",
        license="other",
        license_name="apache-2.0-with-odbl-notice",
        language=languages,
        base_model=["openai/whisper-base", "intfloat/multilingual-e5-small"],
        tags=["mmsr", "sentiment-analysis", "multimodal", "audio", "speech"],
    )
    return CARD.format(
        metadata=metadata.to_yaml(),
        name=facts["name"],
        labels=", ".join(labels[:-1]) + " or " + labels[-1],
        languages=", ".join(languages),
        rationales=EXPLAINED if facts["writes_rationales"] else "It writes no rationale.",
        reasons=_reasons(facts),
        model=_model(facts),
        rows=_rows(facts["rows"]),
        seconds=_seconds(facts),
        rule=RULE,
        storage=_storage(facts),
        figures=_figures(facts),
        abstaining=_abstaining(facts["outliers"]),
        terms=TERMS,
    )


def _reasons(facts: Facts) -> str:
    """How rationales are made."""
    emotions, settings = facts.get("emotions") or {}, facts["settings"].get("evidence")
    if not settings or not all(emotions.values()):
        return ""
    listed = {name: ", ".join(names) for name, names in emotions.items()}
    return REASONS.format(texts=settings["texts"], named=settings["named"], **listed)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _model(facts: Facts) -> str:
    """Parts and provenance."""
    parts, corpus = facts["settings"]["parts"], facts["settings"]["corpus"]
    rows = [
        ["parameters", f"{facts['parameters']:,}"],
        [
            "audio encoder",
            f"the lower {parts['audio_layers']} layers of Whisper base, frozen, with weights of reduced "
            f"precision; windows of {parts['config']['audio_window_seconds']:g} s; level set to "
            f"{parts['target_level']} dB",
        ],
        [
            "text encoder",
            "multilingual-e5-small, from a release in 4 bits, its vocabulary cut to 30,000 pieces; upper "
            f"{facts['settings']['words']['model']['train_layers']['text_encoder']} layers trained",
        ],
        ["fusion", f"`{parts['fusion_config']['fusion']}`"],
        [
            "copies of each training clip",
            f"{corpus['views']}, with other microphones, rooms and noise ({', '.join(corpus['augment'])})",
        ],
        ["trained by", f"`{facts['trained_by']}`, seed {facts['seed']}"],
        ["digest of the weights", f"`{facts['weights']}`"],
        ["versions", ", ".join(f"{name} {value}" for name, value in facts["versions"].items())],
    ]
    if facts["share"] < 1:
        rows.append(["share of the rows", f"{facts['share']:g}: a trial"])
    return _table(["", ""], rows).rstrip()


def _rows(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """Rows of each part that train and select."""

    def cell(of: Mapping[str, int]) -> str:
        return f"{sum(of.values()):,} ({', '.join(f'{key} {count:,}' for key, count in of.items())})"

    rows = [
        [what, *(cell(splits[split]) if split in splits else "" for split in ("train", "dev"))]
        for what, splits in counts.items()
    ]
    return _table(["rows", "train", "select"], rows) + "\n" if rows else ""


def _seconds(facts: Facts) -> str:
    """Seconds of each stage, and the machine."""
    if "seconds" not in facts:
        return ""
    stages = ", ".join(f"{stage} {seconds:,.0f}" for stage, seconds in facts["seconds"].items())
    machine = facts["machine"]
    return (
        f"Seconds of each stage: {stages}; {sum(facts['seconds'].values()):,.0f} in all. The machine that "
        f"wrote this card: {machine['cpu']}, {machine['cores']} cores.\n"
    )


def _storage(facts: Facts) -> str:
    """How the weights are stored, and what that changes."""
    size = f"{facts['bytes'] / 1e6:.1f} MB"
    if facts["stored_as"] != "int8":
        return f"Weights are stored as {facts['stored_as']} ({size}).\n"
    text = (
        f"Weights are stored in 8 bits ({size} in safetensors; those that come from 4 bits and were not "
        "trained stay exact in 4), and decoded to float32 when they are loaded."
    )
    if found := facts.get("agreement"):
        text += (
            f" On {found['n']:,} rows that select, the label is the same as with float32 weights in "
            f"{found['label']:.2%}, and no probability differs by more than "
            f"{number(found['largest_difference_of_a_probability'])}."
        )
    return text + "\n"


def _figures(facts: Facts) -> str:
    """The tables of all sets that were scored."""
    scorings, parts = facts["scorings"], []
    for title, text, names in FIGURES:
        records = [scorings[name] for name in names if name in scorings]
        if not records:
            continue
        known = [f"- `{name}`: {SETS[name]}" for name in names if name in scorings and name in SETS]
        paragraphs = [
            f"### {title}",
            text.format(kinds=", ".join(f"`{kind}`" for kind in KINDS)),
            "\n".join(known),
        ]
        parts.append("\n\n".join([*filter(None, paragraphs), table(records).strip()]))
    if not parts:
        return ""
    if "unpaired" in facts:
        text = "The same training without pairs of a voice and a text, each alone:"
        parts.append(f"### Without pairs in training\n\n{text}\n\n{table([facts['unpaired']]).strip()}")
    commits = sorted(
        {
            f"`{one['commit'][:12]}`{' with changes' * bool(one['dirty'])}"
            for one in scorings.values()
            if one["commit"]
        }
    )
    scored = (
        f"`python experiments/checkpoints/score.py`, commit {', '.join(commits)}" if commits else "score.py"
    )
    temperature = (
        f"Logits are divided by {number(facts['temperature'])}, which was fitted to rows that select. "
        "Another corpus wants a temperature of its own: `mmsr calibrate`."
    )
    counts = ", ".join(f"{name} {facts['scored_versions'][name]}" for name in scorings)
    versions = (
        f"Versions of the weights that were scored on each set, these included: {counts}. What was learned "
        "from earlier ones may have gone into these, so such a figure is a little optimistic."
    )
    head = f"## Figures\n\n{INTRODUCTION} Of one seed. Made by {scored}.\n\n{versions}\n\n{temperature}"
    return "\n\n".join([head, *parts]) + "\n"


def _abstaining(outliers: Mapping[str, Mapping[str, float]]) -> str:
    """What the detectors of outliers do."""
    if not outliers:
        return "It has no detector of outliers, and answers whatever it is given."
    kinds = {
        "audio": "recordings without speech (silence, noise, music, tones)",
        "text": "texts in a language that it was not trained on, or in none",
    }
    found = "; ".join(
        f"{kinds[name]}, above a probability of {number(one['threshold'])}" for name, one in outliers.items()
    )
    return (
        f"Detectors in the encoders tell {found}. `abstained` is true, and `abstained_because` says why, "
        "where all that was given is such an outlier: the label of that answer means nothing. An outlier "
        "beside a known modality is left out of the answer and named in `outliers`. An unsure answer is "
        "something else: `abstain_below` marks those of a low probability. A voice in another language is "
        "speech, and is answered."
    )


# ---------------------------------------------------------------------- command


def describe(folder: Path, facts: Facts) -> None:
    """Write checkpoint.json and the model card."""
    write_file(folder / "checkpoint.json", (json.dumps(facts, indent=1) + "\n").encode())
    ModelCard(card(facts)).save(folder / "README.md")


def main() -> None:
    """Collect, describe, and copy if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/base"), help="folder that base.py left")
    parser.add_argument("--model", type=Path, help="the packed checkpoint; RUN/base by default")
    parser.add_argument("--log", type=Path, default=LOG, help="of score.py")
    parser.add_argument(
        "--out", type=Path, help="a copy of the checkpoint with its card; else it gets the card"
    )
    parser.add_argument(
        "--compared", type=int, default=300, help="rows on which 8 bits are compared with floats; 0 for none"
    )
    args = parser.parse_args()
    model = args.run / "base" if args.model is None else args.model
    try:
        facts = collect(model, args.run, args.log, compared=args.compared)
    except ValueError as error:
        raise SystemExit(f"card.py: {error}") from None
    if args.out is None:
        describe(model, facts)
    else:
        with atomic_write(args.out) as folder:
            shutil.copytree(model, folder)
            describe(folder, facts)
    scored = ", ".join(facts["scorings"]) or "nothing"
    size = sum(file.stat().st_size for file in (args.out or model).iterdir())
    print(f"{args.out or model}: {size / 1e6:.2f} MB, with the figures of {scored}")


if __name__ == "__main__":
    main()
