"""Simulated recognition errors: transcripts degraded to a chosen error rate.

    pairs (text, asr_text) ─► jiwer's alignment ─► Confusions ─► degrade(text, wer) ─► asr_text at 5, 10, 20 %

Confusions are counted from a recogniser's output; the error rate is a free choice. Errors are those of
`mmsr.evaluation.error_rates`: words or, in languages written without spaces, characters. The demo corpus has
its own simulation (`mmsr.data.corpora.demo.corpus.simulate_asr`).
"""

from __future__ import annotations

import difflib
import json
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmsr.data.manifest.manifest import Issue, ManifestError, examine_manifest, load_manifest
from mmsr.data.manifest.tables import check_table, check_table_output, read_table, write_table
from mmsr.evaluation.error_rates import edits, units, word_error_rate
from mmsr.extras import needed_for
from mmsr.languages import UNSPACED, language_code

_Token = tuple[str, float]  # a written word, and its weight in the draw of errors
_DRAWS = 50  # attempts at one edit; the first nearly always succeeds
_ALIKE = 5  # similarly spelt words that replace one without known confusions


@dataclass
class LanguageConfusions:
    """Counts of a recogniser's output for one language's words (characters)."""

    heard: Counter[str] = field(default_factory=Counter)  # units that were right
    substituted: dict[str, Counter[str]] = field(default_factory=dict)  # what replaced each unit
    deleted: Counter[str] = field(default_factory=Counter)
    inserted: Counter[str] = field(default_factory=Counter)

    def kinds(self) -> dict[str, int]:
        """Number of errors of each kind."""
        substitutions = sum(counts.total() for counts in self.substituted.values())
        return {"substitute": substitutions, "delete": self.deleted.total(), "insert": self.inserted.total()}

    def error_rate(self, unit: str) -> float:
        """Share of a unit's occurrences that were wrong, with add-one smoothing."""
        wrong = self.deleted[unit] + self.substituted.get(unit, Counter()).total()
        return (wrong + 1) / (wrong + self.heard[unit] + 2)


class Confusions:
    """Confusions of a recogniser, by language code without a region."""

    def __init__(self, by_language: Mapping[str, LanguageConfusions]):
        self.by_language = dict(by_language)
        self._substitutes: dict[tuple[str, str], Counter[str]] = {}

    @classmethod
    def learn(
        cls, references: Sequence[str], hypotheses: Sequence[str], languages: Sequence[str | None]
    ) -> Confusions:
        """Count confusions in pairs of reference and recognised text.

        Raises:
            ValueError: The lengths differ.
        """
        with needed_for("the count of confusions"):
            import jiwer

        learned: dict[str, LanguageConfusions] = {}
        for reference, hypothesis, language in zip(references, hypotheses, languages, strict=True):
            counts = learned.setdefault(_code(language), LanguageConfusions())
            old, new = units(reference, language), units(hypothesis, language)
            for part in jiwer.process_words(" ".join(old), " ".join(new)).alignments[0]:
                before = old[part.ref_start_idx : part.ref_end_idx]
                after = new[part.hyp_start_idx : part.hyp_end_idx]
                if part.type == "equal":
                    counts.heard.update(before)
                elif part.type == "delete":
                    counts.deleted.update(before)
                elif part.type == "insert":
                    counts.inserted.update(after)
                else:
                    for unit, other in zip(before, after, strict=True):
                        counts.substituted.setdefault(unit, Counter())[other] += 1
        return cls(learned)

    @classmethod
    def of_vocabulary(cls, texts: Sequence[str], languages: Sequence[str | None]) -> Confusions:
        """Confusions without a recogniser: words of each language are replaced by others of it.

        Of five errors three are substitutions, by similarly spelt or else frequent words, one is a deletion
        and one an insertion. All words are wrong equally often.

        Raises:
            ValueError: The lengths differ.
        """
        vocabulary: dict[str, Counter[str]] = {}
        for text, language in zip(texts, languages, strict=True):
            vocabulary.setdefault(_code(language), Counter()).update(units(text, language))
        return cls(
            {
                language: LanguageConfusions(
                    heard=Counter(words),
                    # under "", which is no unit: the words may replace any unit
                    substituted={"": Counter({word: 3 * count for word, count in words.items()})},
                    deleted=Counter(words),
                    inserted=Counter(words),
                )
                for language, words in vocabulary.items()
            }
        )

    @classmethod
    def open(cls, path: str | Path, *, columns: Mapping[str, str] | None = None) -> Confusions:
        """Load a confusions.json, or learn from a manifest that has asr_text beside text.

        Raises:
            ValueError: The file is neither, or the manifest has faults.
        """
        if Path(path).suffix != ".json":
            rows = load_manifest(path, columns=columns, check_audio=False)
            pairs = [row for row in rows if row["text"] and row["asr_text"]]
            return cls.learn(*([row[name] for row in pairs] for name in ("text", "asr_text", "language")))
        try:
            return cls(
                {
                    _code(language): LanguageConfusions(
                        heard=Counter(counts["heard"]),
                        substituted={unit: Counter(to) for unit, to in counts["substituted"].items()},
                        deleted=Counter(counts["deleted"]),
                        inserted=Counter(counts["inserted"]),
                    )
                    for language, counts in json.loads(Path(path).read_text(encoding="utf-8")).items()
                }
            )
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
            accepted = "accepted: confusions.json, or a manifest with text and asr_text"
            raise ValueError(f"{path} holds no confusions ({error}); {accepted}") from error

    def to_json(self) -> str:
        """Return the counts as `open` reads them."""
        content = {language: vars(counts) for language, counts in sorted(self.by_language.items())}
        return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"

    def degrade(self, text: str, *, wer: float, language: str | None, seed: int, identity: str) -> str:
        """Return the text with `wer` errors for each of its words (characters in unspaced languages).

        The mean number of edits, as an alignment of the two texts counts them, is `wer` times the number of
        words. Kinds and places of errors follow the recogniser's. The rest keeps its case and punctuation.
        Every draw is determined by `seed` and `identity`, the row's id.

        Raises:
            ValueError: `wer` is out of its range, or there are no confusions for the language.
        """
        counts = self._counts(language)
        if not 0 <= wer <= 1:
            raise ValueError(f"wer is {wer}; accepted: 0 to 1")
        # The draws do not depend on `wer`: a higher rate has the errors of a lower one, and more.
        draw = random.Random(f"{seed}/{identity}")
        exact = wer * len(units(text, language))
        wanted = int(exact) + (draw.random() < exact % 1)
        spaced = language_code(language) not in UNSPACED
        tokens = [
            (token, self._weight(counts, token, language)) for token in (text.split() if spaced else text)
        ]
        written, made = text, 0
        for _ in range(_DRAWS * wanted):
            if made == wanted:
                break
            trial = self._with_error(draw, tokens, counts, language)
            worse = (" " if spaced else "").join(token for token, _ in trial)
            reached = edits(text, worse, language)
            if made < reached <= wanted:  # an edit may undo another, or count twice
                tokens, written, made = trial, worse, reached
        return written

    def _with_error(
        self, draw: random.Random, tokens: list[_Token], counts: LanguageConfusions, language: str | None
    ) -> list[_Token]:
        """The tokens with one more error, among those that are still right."""
        trial, kinds = list(tokens), counts.kinds()
        (kind,) = draw.choices(list(kinds), list(kinds.values()))
        weights = [weight for _, weight in tokens]
        if kind == "insert":
            trial.insert(draw.randrange(len(trial) + 1), (_drawn(draw, counts.inserted), 0.0))
        elif any(weights):
            (place,) = draw.choices(range(len(tokens)), weights)
            if kind == "delete":
                del trial[place]
            else:
                substitutes = self._substitutes_of(counts, tokens[place][0], language)
                trial[place] = _drawn(draw, substitutes), 0.0
        return trial

    @staticmethod
    def _weight(counts: LanguageConfusions, token: str, language: str | None) -> float:
        """The token's weight in the draw of errors; 0 of punctuation, and of several words."""
        parts = units(token, language)
        return counts.error_rate(parts[0]) if len(parts) == 1 else 0.0

    def _counts(self, language: str | None) -> LanguageConfusions:
        counts = self.by_language.get(_code(language))
        if counts is None or not any(counts.kinds().values()):
            known = ", ".join(
                code for code, of in sorted(self.by_language.items()) if any(of.kinds().values())
            )
            raise ValueError(f"no errors were learned for language {language!r}; accepted: {known or 'none'}")
        return counts

    def _substitutes_of(self, counts: LanguageConfusions, token: str, language: str | None) -> Counter[str]:
        """What may replace a token: its own confusions; else similarly spelt words; else any confusion."""
        unit = units(token, language)[0]
        if seen := counts.substituted.get(unit):
            return seen
        key = _code(language), unit
        if key not in self._substitutes:
            pool: Counter[str] = Counter()
            for others in counts.substituted.values():
                pool.update(others)
            pool.pop(unit, None)
            alike = difflib.get_close_matches(unit, pool, n=_ALIKE, cutoff=0.5) if len(unit) > 1 else []
            self._substitutes[key] = Counter({word: pool[word] for word in alike}) or pool or Counter([unit])
        return self._substitutes[key]


def degrade_manifest(
    source: str | os.PathLike[str],
    confusions: Confusions,
    out: str | os.PathLike[str],
    *,
    wer: Sequence[float],
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
) -> dict[Path, dict[str, Any]]:
    """Write a copy of a manifest for each error rate, its `asr_text` made from `text`.

    The folder `out` gets `wer-0.10.csv` and so on, in the manifest's format, and confusions.json. Every other
    column stays; rows without `text` keep their `asr_text`.

    Returns:
        The `word_error_rate` of each copy.

    Raises:
        ManifestError: The manifest has faults, or there are no confusions for a row's language.
        ValueError: An error rate is out of its range or given twice.
    """
    source, out = Path(source), Path(out)
    names = [f"wer-{rate:.2f}{source.suffix.lower()}" for rate in wer]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"wer is {list(wer)}; accepted: one rate or more, each once to two decimals")
    for name in names:
        check_table_output(out / name, inputs=[source])
    examined = examine_manifest(source, columns=columns)
    if examined.issues:
        raise ManifestError(examined.issues)
    table = read_table(source)
    check_table(out / names[0], table)
    asr_text, audio = ((columns or {}).get(name, name) for name in ("asr_text", "audio"))
    numbered = list(zip(examined.numbers.tolist(), examined.rows, strict=True))
    spoken = [(number, row) for number, row in numbered if row["text"] is not None]
    if not spoken:
        raise ManifestError([Issue(source.name, None, "text", "is empty; accepted: a transcript to degrade")])
    measured = {}
    for name, rate in zip(names, wer, strict=True):
        worse = {}
        for number, row in spoken:
            options = {"language": row["language"], "seed": seed, "identity": row["id"]}
            try:
                worse[number] = confusions.degrade(row["text"], wer=rate, **options)
            except ValueError as error:
                raise ManifestError([Issue(source.name, number, "language", str(error))]) from error
        write_table(out / name, table.filled(asr_text, worse).moved(audio, source.parent, out))
        columns_of = ([row["text"] for _, row in spoken], list(worse.values()))
        measured[out / name] = word_error_rate(*columns_of, [row["language"] for _, row in spoken])
    (out / "confusions.json").write_text(confusions.to_json(), encoding="utf-8")
    return measured


def _drawn(draw: random.Random, counts: Counter[str]) -> str:
    return draw.choices(list(counts), list(counts.values()))[0]


def _code(language: str | None) -> str:
    return language_code(language) or "unknown"
