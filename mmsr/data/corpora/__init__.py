"""Published corpora as manifests: an adapter and evaluation protocols for each.

    corpus on disk ─► adapter ─► Utterance ─► convert ─► manifest.csv, corpus.json, left_out.csv (audio/)

| name | source of its labels |
|---|---|
| sentiment-reasoning | the paper's spreadsheets, or its Hub dataset with audio |
| emodb, ravdess, iemocap | acted emotions, by file name or annotation sheet; folds by speaker |
| meld, cmu-mosi, cmu-mosei, slue-voxceleb | tables of the official splits |
| folder | a folder for each label |

A new corpus is one function and one line in `CORPORA` (or `CORPORA["mine"] = ...` in your own code). For
recordings named `anna_happy_3.wav`:

    def _read_mine(source: Source) -> Iterator[Utterance]:
        for path in source.recordings():
            speaker, emotion, _ = path.stem.split("_")
            yield Utterance(id=path.stem, where=source.name(path), audio=path, label=emotion, speaker=speaker)

    MINE = Corpus(name="mine", read=_read_mine, layout="SPEAKER_EMOTION_N.wav", home="our server", protocols={
        "emotion": Protocol(name="mine", labels=("happy", "sad"), metrics=("uar",), source="doi:...")})

`Source` counts the rows that are read: each has to be yielded, or left out with a reason.
"""

from mmsr.data.corpora.conversion import Conversion, convert
from mmsr.data.corpora.folders import FOLDER
from mmsr.data.corpora.healthcare import SENTIMENT_REASONING
from mmsr.data.corpora.multimodal import MELD, MOSEI, MOSI, SLUE_VOXCELEB
from mmsr.data.corpora.source import Corpus, CorpusError, LeftOut, Protocol, Segment, Source, Utterance
from mmsr.data.corpora.speech_emotion import EMODB, IEMOCAP, RAVDESS

__all__ = [
    "CORPORA",
    "Conversion",
    "Corpus",
    "CorpusError",
    "LeftOut",
    "Protocol",
    "Segment",
    "Source",
    "Utterance",
    "convert",
]

#: Every corpus that `mmsr data convert --from` knows.
CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (SENTIMENT_REASONING, EMODB, RAVDESS, IEMOCAP, MELD, MOSI, MOSEI, SLUE_VOXCELEB, FOLDER)
}
