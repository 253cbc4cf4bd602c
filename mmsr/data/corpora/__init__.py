"""Published corpora as manifests: an adapter and evaluation protocols for each.

    corpus on disk ─► adapter ─► Utterance ─► convert ─► manifest.csv, corpus.json, left_out.csv (audio/)

| name | source of its labels |
|---|---|
| sentiment-reasoning | the paper's spreadsheets, or its Hub dataset with audio |
| emodb, ravdess, iemocap | acted emotions, by file name or annotation sheet; folds by speaker |
| meld, cmu-mosi, cmu-mosei, slue-voxceleb | tables of the official splits |
| folder | a folder for each label |

A new corpus is one function and one entry in `CORPORA`; CONTRIBUTING.md has an example.
`Source` counts the rows that are read: each has to be yielded, or left out with a reason.
"""

from mmsr.data.corpora.folders import FOLDER
from mmsr.data.corpora.healthcare import SENTIMENT_REASONING
from mmsr.data.corpora.multimodal import MELD, MOSEI, MOSI, SLUE_VOXCELEB
from mmsr.data.corpora.source import Corpus
from mmsr.data.corpora.speech_emotion import EMODB, IEMOCAP, RAVDESS

#: Every corpus that `mmsr data convert --from` knows.
CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (SENTIMENT_REASONING, EMODB, RAVDESS, IEMOCAP, MELD, MOSI, MOSEI, SLUE_VOXCELEB, FOLDER)
}
