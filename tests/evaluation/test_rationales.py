import unicodedata

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from mmsr.evaluation.metrics import METRICS, rationale_metrics
from mmsr.evaluation.rationales import Texts, UnicodeTokenizer, bleu, distinct

ROUGE = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def test_lengths_that_differ_raise() -> None:
    with pytest.raises(ValueError, match="2 reference rationales but 1 predicted ones"):
        rationale_metrics(["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Mô tả KHÁCH quan!", ["mô", "tả", "khách", "quan"]),
        (unicodedata.normalize("NFD", "Mô tả"), ["mô", "tả"]),
        ("语气很失望。", ["语", "气", "很", "失", "望"]),
        ("voice 语气calm, 2 mg", ["voice", "语", "气", "calm", "2", "mg"]),
        ("ひどいカゼ", ["ひ", "ど", "い", "カ", "ゼ"]),
        ("Die Straße, l'été", ["die", "strasse", "l", "été"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("한국어 음성", ["한국어", "음성"]),
        ("l'été l’été lʼété", ["l", "été"] * 3),
        ("สวัสดี ครับ", ["ส", "วั", "ส", "ดี", "ค", "รั", "บ"]),
        ("ខ្ញុំឈឺ", ["ខ្", "ញុំ", "ឈឺ"]),
        ("မြန်မာ ๑๒", ["မြ", "န်", "မာ", "๑๒"]),
        ("क्\u200dष می\u200cخواهم", ["क्ष", "میخواهم"]),
        ("\ufeffSprech\u00adstunde", ["sprechstunde"]),
        ("ＡＢＣ １２", ["abc", "12"]),
        ("❤️ 葛󠄀", ["葛"]),
        ("… !", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert UnicodeTokenizer().tokenize(text) == tokens


@pytest.mark.parametrize("text", ["mô tả khách quan", "语气很失望", "la voix est gaie"])
def test_equal_rationales_score_one(text: str) -> None:
    figures = rationale_metrics([text], [unicodedata.normalize("NFD", text)])
    assert {name: figures[name] for name in [*ROUGE, "chrf", "rationale_exact"]} == dict.fromkeys(
        [*ROUGE, "chrf", "rationale_exact"], 1.0
    )


def test_the_ascii_code_reads_fragments_of_vietnamese_and_nothing_of_chinese() -> None:
    different = rationale_metrics(["giọng tệ"], ["giống tả"])  # both are "gi ng t" to the ASCII code
    assert different["rouge1"] == 0.0
    assert different["rouge1_ascii"] == 1.0
    constant = rationale_metrics(["mô tả triệu chứng"], ["mô tả khách quan"])
    assert constant["rouge1"] == constant["rougeL"] == 0.5
    assert constant["rouge2"] == pytest.approx(1 / 3)
    assert constant["rouge1_ascii"] == pytest.approx(
        6 / 11
    )  # m t ch of "m t tri u ch ng" and "m t kh ch quan"
    assert rationale_metrics(["很好"], ["很好"])["rougeL_ascii"] == 0.0


def test_chinese_is_scored_by_characters() -> None:
    figures = rationale_metrics(["语气失望"], ["语气高兴"])
    assert figures["rouge1"] == 0.5
    assert figures["rouge2"] == pytest.approx(1 / 3)


def test_rationale_figures_are_means_of_rows_and_corpus_chrf() -> None:
    references = ["the words are kind", "the voice is upset"]
    hypotheses = ["the words are harsh", "the voice is upset"]
    figures = rationale_metrics(references, hypotheses)
    assert figures["rouge1"] == figures["rougeL"] == pytest.approx((0.75 + 1) / 2)
    assert figures["rationale_exact"] == 0.5
    assert figures["chrf"] == pytest.approx(CHRF().corpus_score(hypotheses, [references]).score / 100)
    scorer = RougeScorer(ROUGE)
    for name in ROUGE:
        rows = [scorer.score(r, h)[name].fmeasure for r, h in zip(references, hypotheses, strict=True)]
        assert figures[f"{name}_ascii"] == pytest.approx(sum(rows) / 2) == pytest.approx(figures[name])


def test_bleu_is_sacrebleus_of_the_corpus() -> None:
    references = ["the words are kind, and so is she", "the voice is upset and loud"]
    hypotheses = ["the words are kind, and so is he", "the voice is upset and low"]
    expected = BLEU(tokenize="13a").corpus_score(hypotheses, [references]).score / 100
    assert 0 < expected < 1
    assert bleu(references, hypotheses, languages=["en", "fr-CA"]) == pytest.approx(expected)
    assert rationale_metrics(references, hypotheses)["bleu"] == pytest.approx(expected)


@pytest.mark.parametrize("language", ["zh", "ZH_cn", "zho_Hans", "zho", "cmn", "Chinese", "中文", None])
def test_bleu_of_chinese_is_over_characters(language: str | None) -> None:
    references, hypotheses = ["病人的语气很失望", "医生说得很清楚"], ["病人的语气很高兴", "医生说得很清楚"]
    expected = BLEU(tokenize="zh").corpus_score(hypotheses, [references]).score / 100
    assert 0 < expected < 1
    assert bleu(references, hypotheses, languages=[language] * 2) == pytest.approx(expected)
    assert bleu(references, hypotheses, languages=["en"] * 2) < expected  # a sentence is one word there


def test_rows_of_several_languages_are_each_cut_by_their_own() -> None:
    references, hypotheses = (
        ["病人的语气很失望", "the voice is upset"],
        ["病人的语气很失望", "the voice is upset"],
    )
    assert bleu(references, hypotheses, languages=["zh", "en"]) == pytest.approx(1.0)
    # of 5 + 1 unigrams ... 2 + 0 four-grams, all right: Chinese characters count as words
    changed = bleu(references, ["病人的语气很高兴", "the voice is upset"], languages=["zh", "en"])
    halves = [10 / 12, 8 / 10, 6 / 8, 4 / 6]
    assert changed == pytest.approx(float(np.prod(halves)) ** 0.25)


def test_distinct_by_hand() -> None:
    texts = ["a b a", "A b", ""]
    assert distinct(texts, n=1) == pytest.approx(2 / 5)
    assert distinct(texts, n=2) == pytest.approx(2 / 3)  # ab, ba, ab: none across two texts
    assert distinct(["语气语气"], n=1) == 0.5
    assert distinct(["", "…"], n=1) is None and distinct(["a"], n=2) is None


def test_constant_answers_are_copies_and_not_distinct() -> None:
    references = ["the words are kind", "the voice is upset"]
    training = ["neutral words ", "giọng buồn"]
    constant = rationale_metrics(references, ["neutral words"] * 2, training=training)
    assert constant["verbatim_from_training"] == 1.0 and constant["distinct1"] == 0.5
    one = rationale_metrics(references, [unicodedata.normalize("NFD", "giọng buồn"), ""], training=training)
    assert one["verbatim_from_training"] == 0.5
    assert "verbatim_from_training" not in rationale_metrics(references, references)


def test_lengths_are_words_and_characters_in_chinese() -> None:
    figures = rationale_metrics(["mô tả khách quan", "语气失望"], ["mô tả", ""])
    assert (figures["length"], figures["length_gold"]) == (1.0, 4.0)


def test_texts_without_words_have_no_distinct_share() -> None:
    figures = rationale_metrics(["sad"], [""])
    assert not {"distinct1", "distinct2", "bertscore_f1"} & set(figures)
    assert figures["bleu"] == figures["length"] == 0.0


def test_bertscore_is_a_mean_over_rows() -> None:
    def scores(references, hypotheses):
        assert (references, hypotheses) == (["a b", "c"], ["a", "c"])
        return np.array([[0.5, 0.25, 0.3], [1.0, 1.0, 1.0]])

    figures = rationale_metrics(["a b ", "c"], [" a", "c"], bertscore=scores)
    assert [figures[f"bertscore_{name}"] for name in ("precision", "recall", "f1")] == [0.75, 0.625, 0.65]


def test_scores_of_rows_average_to_the_metric_but_where_that_is_of_the_corpus() -> None:
    texts = Texts(["the words are kind", "the voice is upset"], [" the words are harsh", "upset"])
    rows = {name: metric.from_rows(texts) for name, metric in METRICS.items() if metric.from_rows is not None}
    assert all(scores.shape == (2,) for scores in rows.values())
    metrics = rationale_metrics(texts.references, texts.hypotheses)
    corpus = {name for name, scores in rows.items() if metrics[name] != pytest.approx(scores.mean())}
    assert corpus == {"chrf"}
    assert set(metrics) - set(rows) == {"bleu", "distinct1", "distinct2", "length_gold"}


@pytest.mark.parametrize(
    ("text", "languages"),
    [
        (
            "病人的语气很失望",
            ["zh", "zho", "cmn", "zho_Hans", "Chinese", "zh-CN", "zh_CN.UTF-8", "yue", None],
        ),
        ("ひどい風邪です", ["ja", "jpn", "Japanese", "日本語"]),
        ("สวัสดีครับ", ["th", "tha", "Thai"]),
        ("ខ្ញុំឈឺខ្លាំង", ["km", "khm", "Khmer"]),
        ("l’été est très chaud", ["fr", "fre", "Français"]),
    ],
)
def test_bleu_of_equal_texts_is_one_in_every_code(text: str, languages: list[str | None]) -> None:
    assert [bleu([text], [text], languages=[language]) for language in languages] == pytest.approx(
        [1.0] * len(languages)
    )
