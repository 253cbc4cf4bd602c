"""Runs are named by their content."""

import pytest

from mmsr.ablation.plan import content_name, own_condition, plan, resolved
from mmsr.ablation.spec import read_ablation
from mmsr.model.configuration import MmsrConfig


def test_values_that_fit_refuses_are_named_with_their_variant(write, tmp_path):
    fixed = {"data.manifest": "m.csv"}
    for change, message in (
        (
            {"model.fusion": "nosuch"},
            "variant 'a' .*fusion='nosuch' does not exist; accepted: cross_attention",
        ),
        ({"model.preset": "huge"}, "variant 'a' .*model.preset"),
    ):
        path = write(tmp_path, settings=fixed, variants={"a": change})
        with pytest.raises(ValueError, match=message):
            plan(read_ablation(path))


def name_of(fingerprint: str = "f", **changes) -> str:
    model = {"preset": "tiny", "fusion": "film", "freeze": ["audio_encoder"]}
    settings = {"model": model, "data": {"manifest": "m.csv"}, "trainer": {"max_epochs": 3}}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        settings[section] = {**settings.get(section, {}), name: value}
    return content_name(resolved(settings), data_fingerprint=fingerprint)


def test_a_name_holds_what_matters_and_neither_order_nor_paths(tmp_path):
    name = name_of()
    turned = {"trainer": {"max_epochs": 3}, "data": {"manifest": "elsewhere/n.csv"}}
    turned["model"] = {"freeze": ["audio_encoder"], "fusion": "film", "preset": "tiny"}
    assert content_name(resolved(turned), data_fingerprint="f") == name
    same = {
        "model__weight_decay": 0.01,
        "trainer__default_root_dir": "x",
        "trainer__enable_progress_bar": False,
    }
    for key, value in same.items():
        assert name_of(**{key: value}) == name, key
    others = {"model__learning_rate": 2e-3, "model__fusion": "concat", "trainer__max_epochs": 4}
    others |= {"model__config": {"dropout": 0.3}, "data__batch_rows": 4, "data__text_column": "asr_text"}
    others |= {"fingerprint": "g", "model__feature_store": "a"}
    names = {name_of(**{key: value}) for key, value in others.items()}
    assert len(names | {name}) == len(others) + 1
    assert name_of(model__feature_store="a") == name_of(model__feature_store="b")


def test_devices_strategy_and_callbacks_are_in_a_name():
    callbacks = [{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}]
    others = {"trainer__devices": 2, "trainer__strategy": "ddp", "trainer__callbacks": callbacks}
    names = {name_of(), *(name_of(**{key: value}) for key, value in others.items())}
    assert len(names) == len(others) + 1
    assert name_of(trainer__devices="2") == name_of(trainer__devices=2)


def test_names_of_earlier_versions_stay(tmp_path):
    """They are folders of finished runs."""
    earlier = "271cc8ea4e7f"
    cost = [{"class_path": "mmsr.training.callbacks.Cost"}]
    for change in (
        {},
        {"trainer__devices": 1},
        {"trainer__accelerator": "cpu"},
        {"trainer__callbacks": cost},
    ):
        assert name_of(**change) == earlier, change


def test_what_is_pretrained_counts_by_its_bytes(tmp_path):
    for folder, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(content)
    for part in ("text", "init_from"):
        a, b, c = (name_of(**{f"model__{part}": str(tmp_path / folder)}) for folder in "abc")
        assert a == b != c


def test_a_checkpoint_is_tested_with_what_its_own_fusion_reads(tmp_path):
    MmsrConfig(fusion="text_only").save_pretrained(tmp_path)
    data = {"text_column": "asr_text"}
    assert own_condition({"model": {"fusion": "cross_attention"}, "data": data}) == "audio+asr"
    pretrained = {"pretrained": str(tmp_path), "fusion": "cross_attention"}
    assert own_condition({"model": pretrained, "data": data}) == "asr"


def test_transcripts_and_seeds_that_change_nothing_share_a_run(write, tmp_path, demo_corpus, language_model):
    for choose in ("none", "random"):
        prompt = "zero_shot" if choose == "none" else "few_shot"
        content = f"model: {language_model}\nprompt: {prompt}\nexamples: {{choose: {choose}}}\n"
        (tmp_path / f"{choose}.yaml").write_text(content)
    transcripts = {"human": {}, "asr": {"test_transcript": "asr_text"}}
    path = write(
        tmp_path,
        settings={"data.manifest": str(demo_corpus)},
        grid={"transcript": transcripts},
        variants={
            "trained": {"model.fusion": "text_only"},
            "zero": {"language_model": "none.yaml"},
            "few": {"language_model": "random.yaml"},
        },
        seeds=[0, 1],
        evaluation={"conditions": ["audio"]},
    )
    rows = dict(zip(read_ablation(path).variants, plan(read_ablation(path)), strict=True))
    names = {name: [run.name for run in row] for name, row in rows.items()}
    for system in ("trained", "zero", "few"):
        assert names[f"{system}, human"] == names[f"{system}, asr"]
    assert [len(set(names[f"{system}, asr"])) for system in ("trained", "zero", "few")] == [2, 1, 2]
    run = rows["trained, asr"][0]
    assert run.condition == "asr" and run.conditions == ["asr", "audio"]
    assert run.answered == ["asr", "audio", "text"]
    few = [run.language_model.examples.seed for run in rows["few, human"]]
    assert few == [0, 1] and rows["few, human"][0].settings == {"data": {"manifest": str(demo_corpus)}}


def test_a_decoder_that_is_prompted_with_the_transcript_reads_it_too():
    model = {"fusion": "audio_only", "config": {"prompt_transcript": True}}
    assert own_condition({"model": model}) == "audio+text"
    assert own_condition({"model": model, "data": {"text_column": "asr_text"}}) == "audio+asr"
    assert own_condition({"model": model}, test_transcript="asr_text") == "audio+asr"
    assert own_condition({"data": {"text_column": "asr_text"}}, test_transcript="text") == "audio+text"
