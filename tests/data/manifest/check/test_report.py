import json

from mmsr.data.manifest.check.report import as_json, counts, summary, write_page
from mmsr.data.manifest.check.table import check_manifest


def test_json_has_every_fault_and_the_terminal_the_first(faulty):
    found = json.loads(json.dumps(as_json(faulty)))
    assert len(found["faults"]) == len(faulty.issues) == found["errors"] + found["warnings"]
    assert set(found["faults"][0]) == {"file", "row", "column", "code", "severity", "message"}
    assert found["counts"]["rows"] == len(faulty.table) and found["counts"]["label"]["positive"] >= 4
    text = summary(faulty, shown=1)
    assert "error label-unknown (2): a label is not in the label set -> correct it, or give --labels" in text
    assert "... and 1 more (all with --json)" in text
    assert all(code in text for code in {fault.code for fault in faulty.issues})


def test_a_short_corpus_has_seconds(faulty):
    seconds = counts(faulty)["seconds"]
    assert 0 < seconds < 100 and f" with audio ({seconds:.0f} s)" in summary(faulty)
    assert "0.00 hours" not in summary(faulty)


def test_the_page_shows_counts_and_faults_and_loads_nothing(faulty, tmp_path):
    write_page(faulty, tmp_path / "new" / "check.html")
    html = (tmp_path / "new" / "check.html").read_text(encoding="utf-8")
    for code in {fault.code for fault in faulty.issues}:
        assert f"<code>{code}</code>" in html
    assert html.count("<svg") == 2 and html.count("<rect") == 48
    assert "<script" not in html and "http" not in html and "src=" not in html
    assert "negatve" in html and "<td>–</td>" in html
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "check.html"]


def test_the_page_escapes_what_a_manifest_says(changed, clean, tmp_path):
    path = changed(clean, lambda place, row: row | {"label": "<script>alert(1)</script>"})
    write_page(check_manifest(path, audio=False), tmp_path / "check.html")
    assert "<script" not in (tmp_path / "check.html").read_text(encoding="utf-8")
