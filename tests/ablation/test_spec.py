"""Files of ablations: expanded to variants, and checked."""

from pathlib import Path

import pytest

from mmsr.ablation.spec import read_ablation
from mmsr.model.fusion import FUSION_CLASSES

SHIPPED = Path(__file__).parents[2] / "experiments" / "ablations"


def test_grid_and_variants_are_combined_over_base_and_settings(write, tmp_path):
    (tmp_path / "base.yaml").write_text(
        "model: {preset: tiny, config: {dropout: 0.5}}\ndata: {manifest: m.csv}\n"
    )
    path = write(
        tmp_path,
        base="base.yaml",
        settings={"model": {"weight_decay": 0.0}, "model.config.hidden_size": 64},
        grid={"model.fusion": ["concat", "film"], "model.layer_decay": [0.5, 1.0]},
        variants={"plain": None, "smooth": {"model.label_smoothing": 0.1}},
        reference="plain, fusion=film, layer_decay=1.0",
    )
    ablation = read_ablation(path)
    assert list(ablation.variants)[0] == "plain, fusion=concat, layer_decay=0.5"
    assert len(ablation.variants) == 8 and ablation.seeds == (0, 1, 2)
    assert ablation.out == Path("runs/ablations/test")
    last = ablation.variants["smooth, fusion=film, layer_decay=1.0"]
    assert last == {
        "model": {
            **{"preset": "tiny", "config": {"dropout": 0.5, "hidden_size": 64}, "weight_decay": 0.0},
            **{"label_smoothing": 0.1, "fusion": "film", "layer_decay": 1.0},
        },
        "data": {"manifest": "m.csv"},
    }
    assert "label_smoothing" not in ablation.variants["plain, fusion=film, layer_decay=1.0"]["model"]


def test_an_axis_may_have_names_and_a_variant_some_of_its_points(write, tmp_path):
    path = write(
        tmp_path,
        settings={"data.manifest": "m.csv"},
        grid={
            "transcript": {"human": None, "asr": {"test_transcript": "asr_text"}},
            "model.fusion": ["concat", "film"],
        },
        variants={
            "all": None,
            "some": {"grid": {"transcript": ["asr"], "model.fusion": ["film"]}, "model.layer_decay": 0.5},
        },
    )
    ablation = read_ablation(path)
    assert list(ablation.variants) == [
        "all, human, fusion=concat",
        "all, human, fusion=film",
        "all, asr, fusion=concat",
        "all, asr, fusion=film",
        "some, asr, fusion=film",
    ]
    some = {"model": {"layer_decay": 0.5, "fusion": "film"}, "data": {"manifest": "m.csv"}}
    assert ablation.variants["some, asr, fusion=film"] == some
    assert ablation.changes["all, asr, fusion=film"]["test_transcript"] == "asr_text"
    assert ablation.variants["all, asr, fusion=film"] == ablation.variants["all, human, fusion=film"]
    assert set(ablation.test_transcripts) == {name for name in ablation.variants if ", asr" in name}


def test_a_language_model_is_a_variant_of_its_file(write, tmp_path):
    (tmp_path / "llm.yaml").write_text("model: owner/name\nprompt: zero_shot\n")
    ablation = read_ablation(
        write(tmp_path, variants={"trained": {}, "asked": {"language_model": "llm.yaml"}})
    )
    assert set(ablation.language_models) == {"asked"}
    assert ablation.language_models["asked"].model == "owner/name"


def test_values_of_one_key_name_their_variants(write, tmp_path):
    path = write(
        tmp_path,
        grid={
            "model.lora": [None, {"text_encoder": {"r": 4}}],
        },
        seeds=[3],
    )
    assert list(read_ablation(path, out="x").variants) == ["null", '{"text_encoder": {"r": 4}}']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"grids": {}},
            r"test.yaml: 'grids' is no key; did you mean grid\?; accepted: base, settings, grid, variants",
        ),
        (
            {"grid": {"model.fusoin": ["x"]}},
            r"variant 'x': 'model.fusoin' is no setting; did you mean model.fusion\?",
        ),
        (
            {"settings": {"modle.fusion": "x"}},
            r"settings: 'modle.fusion' is no setting; did you mean model.fusion\?",
        ),
        ({"settings": {"seed_everything": 3}}, r"'seed_everything' is no setting"),
        ({"settings": {"trainer.default_root_dir": "x"}}, r"'trainer.default_root_dir' is no setting"),
        ({"grid": {"model.fusion": "film"}}, r"grid model.fusion: 'film'; accepted: a list"),
        ({"grid": {"model.fusion": ["film", "film"]}}, r"two variants are called 'film'"),
        ({"grid": {}}, r"neither grid nor variants"),
        ({"grid": {"a": {"b": "film"}}}, r"grid a 'b': 'film'; accepted: a mapping"),
        ({"variants": {"a": {"grid": ["film"]}}}, r"variant 'a': grid \['film'\]; accepted: a mapping"),
        ({"variants": {"a": {"grid": {"x": [1]}}}}, r"variant 'a': grid 'x' is no axis; accepted: model.fus"),
        (
            {"variants": {"a": {"grid": {"model.fusion": ["gated"]}}}},
            r"variant 'a': grid model.fusion \['gated'\]; accepted: a list of some of film, concat",
        ),
        (
            {"variants": {"a": {"test_transcript": "human"}}},
            r"variant 'a, film': test_transcript 'human'; accepted: text, asr_text",
        ),
        (
            {"variants": {"a": {"test_transcript": "text"}}, "evaluation": {"condition": "asr"}},
            r"test_transcript 'text' and evaluation condition 'asr' contradict each other",
        ),
        ({"settings": {"language_model": "x"}}, r"settings: 'language_model' is no setting"),
        (
            {"variants": {"a": {"language_model": "x.yaml"}}},
            r"variant 'a, film': model.fusion is of a training, and a language_model has none; accepted: set",
        ),
        (
            {"grid": None, "variants": {"a": {"language_model": "x.yaml"}}},
            r"variant 'a': language_model .*x.yaml: no such file; accepted: the YAML file",
        ),
        ({"unavailable": True}, r"unavailable True; accepted: fail, skip"),
        ({"reference": "gated"}, r"reference 'gated' is no variant; accepted: film, concat"),
        ({"seeds": [0, 0]}, r"seeds \[0, 0\] repeat one"),
        ({"seeds": ["a"]}, r"seeds \['a'\]; accepted: a list of integers"),
        ({"base": "no.yaml"}, r"base no.yaml: no such file"),
        (
            {"evaluation": {"metrics": 1}},
            r"evaluation 'metrics' is no key; did you mean metric\?; accepted: metric, condition",
        ),
        (
            {"evaluation": {"metric": "bleu"}},  # of all rows together: no difference can be drawn again
            r"metric 'bleu' does not exist; accepted: accuracy, macro_f1, macro_f1_present, .*uar, rouge1",
        ),
        (
            {"evaluation": {"also": ["meteor"]}},
            r"also 'meteor' does not exist; accepted: accuracy, macro_f1, macro_f1_present, .*rouge1, .*bleu",
        ),
        (
            {"evaluation": {"also": ["bertscore_f1"]}},
            r"also 'bertscore_f1' needs a text encoder; accepted: with evaluation bertscore: FOLDER",
        ),
        ({"evaluation": {"bertscore": 3}}, r"evaluation bertscore 3; accepted: a text encoder's folder"),
        (
            {"evaluation": {"conditions": ["smell"]}},
            r"conditions 'smell' does not exist; accepted: audio\+text",
        ),
        ({"evaluation": {"cluster": 3}}, r"evaluation cluster 3; accepted: a column of the manifest"),
        ({"evaluation": {"block_rows": 0}}, r"evaluation block_rows 0; accepted: an integer, 1 or more"),
        (
            {"evaluation": {"cluster": "speaker", "block_rows": 9}},
            r"evaluation cluster 'speaker' and block_rows 9 contradict each other; accepted: one or",
        ),
    ],
)
def test_faults_of_a_file_are_named_with_what_is_accepted(write, tmp_path, content, message):
    path = write(tmp_path, **{"grid": {"model.fusion": ["film", "concat"]}, **content})
    with pytest.raises(ValueError, match=message):
        read_ablation(path)


def test_one_condition_needs_no_list(write, tmp_path):
    path = write(tmp_path, variants={"a": {}}, evaluation={"conditions": "asr", "also": ["rougeL", "uar"]})
    evaluation = read_ablation(path).evaluation
    assert (evaluation.conditions, evaluation.also) == (("asr",), ("rougeL", "uar"))
    assert (evaluation.metric, evaluation.condition) == ("macro_f1", "own")


def test_the_shipped_file_compares_every_fusion():
    assert set(read_ablation(SHIPPED / "fusions.yaml").variants) == set(tuple(FUSION_CLASSES))


def test_the_shipped_files_of_official_rows_draw_neighbours_together():
    rationales, languages = (
        read_ablation(SHIPPED / f"official_{name}.yaml") for name in ("rationales", "languages")
    )
    assert {"permuted", "template"} < set(rationales.variants), "both of the controls"
    assert rationales.evaluation.block_rows == 57 and languages.evaluation.block_rows == 2 * 57
