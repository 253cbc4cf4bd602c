"""What every corpus has: a layout that errors name, and protocols with their sources."""

from pathlib import Path
from typing import Any

import pytest

from mmsr.data.corpora import CORPORA
from mmsr.data.corpora.conversion import convert
from mmsr.data.corpora.source import CorpusError, Source


@pytest.mark.parametrize("name", CORPORA)
def test_a_source_of_another_layout_is_told_what_was_looked_for(
    name: str, root: Path, write: Any, refused: Any
) -> None:
    write(root / "README", "nothing here")
    message = refused(name, root)
    assert str(root) in message and "\n" not in message
    assert CORPORA[name].layout in message and CORPORA[name].home in message
    with pytest.raises(CorpusError, match="is no folder; accepted: "):
        convert(CORPORA[name], root / "nowhere", root.parent / "out")


@pytest.mark.parametrize("name", CORPORA)
def test_every_protocol_is_a_frozen_object_with_its_source(name: str) -> None:
    for protocol in CORPORA[name].protocols.values():
        assert protocol.metrics and protocol.source
        assert set(protocol.label_of.values()) in (set(), set(protocol.labels))
        with pytest.raises(AttributeError):
            protocol.name = "another"  # type: ignore[misc]


def test_a_long_cell_of_a_corpus_is_read(root: Path, write: Any) -> None:
    path = write(root / "t.csv", f'a,b\n1,"{"word " * 50_000}"\n')
    ((number, row),) = Source(root, CORPORA["meld"], "sentiment").table(path, require=["a"])
    assert number == 2 and len(row["b"]) == 249_999
