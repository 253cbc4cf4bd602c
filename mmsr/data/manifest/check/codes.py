"""The kinds of issues of `mmsr data check`: code -> severity, meaning, remedy.

Codes are stable over versions, since `--allow` and programs use them.
"""

from typing import Literal, NamedTuple


class Code(NamedTuple):
    """A kind of issue."""

    severity: Literal["error", "warning"]
    meaning: str
    remedy: str


CODES: dict[str, Code] = {
    # the file
    "not-utf-8": Code("error", "a line is not UTF-8", "save the file as UTF-8"),
    "table-empty": Code("error", "the file has no rows", "add rows"),
    "column-missing": Code("error", "a needed column is not there", "add it, or name it by --columns"),
    "column-twice": Code("error", "a column is in the header, or in a JSON object, twice", "rename one"),
    "column-misspelt": Code("error", "a column's name is almost one of ours", "rename it, or use --columns"),
    "ragged-row": Code(
        "error",
        "a row has more or fewer values than the header, or is no JSON object",
        "quote cells with commas",
    ),
    "quote-stray": Code(
        "error",
        "a quote in a csv or tsv has no pair, or merges rows",
        'double it, and quote the cell: "a ""b"""',
    ),
    "formula-uncomputed": Code(
        "error", "a cell of an xlsx has a formula, and no program has computed it", "save it in Excel"
    ),
    "cell-error": Code("error", "a cell of an xlsx holds an error, such as #N/A", "correct the formula"),
    "cells-merged": Code("error", "cells of an xlsx are merged, so all but one are empty", "unmerge them"),
    "text-nul": Code("error", "NUL characters: a torn file, or another encoding", "make the file again"),
    "row-blank": Code("warning", "a row is blank, and left out", "delete it"),
    "row-empty": Code("error", "neither audio nor text", "give at least one of the two"),
    "row-duplicate": Code("warning", "a row is there again under another id", "keep one"),
    "value-no-text": Code("error", "a value is a list, an object or bytes", "write text"),
    "text-surrogate": Code(
        "error", "a \\u escape is half of a character", "write both halves, or the character itself"
    ),
    "value-missing": Code("error", "a required value is not there", "fill it in"),
    "id-twice": Code("error", "two rows have the same id", "give each row its own"),
    "whitespace": Code("warning", "a name has spaces around it, so it is another name", "strip it"),
    # labels, languages, splits
    "label-misspelt": Code("error", "a label is another one but for case or spaces", "write it as named"),
    "label-unknown": Code("error", "a label is not in the label set", "correct it, or give --labels"),
    "label-missing": Code("warning", "a row has no label where others of its split have", "label it"),
    "label-conflict": Code("warning", "the same utterance has two labels", "decide for one"),
    "rationale-without-label": Code(
        "warning", "a rationale explains no label, so is not learned", "label it"
    ),
    "language-unknown": Code("warning", "no ISO 639 code", "write vi, en, zh, de, fr, ..."),
    "language-script": Code("warning", "the text is not in the language's script", "correct the language"),
    "asr-words-invalid": Code(
        "error", "asr_words is no list of words with times", "make it by mmsr transcribe --timestamps word"
    ),
    "soft-label-invalid": Code(
        "error",
        "soft_label is no probability or number of votes of each label",
        'write {"negative": 0.7, "neutral": 0.3}, beside the label',
    ),
    "split-misspelt": Code("error", "a split's name is almost train, dev or test", "write it as named"),
    "split-unknown": Code(
        "warning", "a split is not train, dev or test", "rename it, or name it when training"
    ),
    "split-missing": Code("warning", "a row is in no split where others are", "mmsr data split"),
    "split-absent": Code("warning", "the manifest has splits, but none of train, dev or test", "add rows"),
    # leaks between splits
    "speaker-missing": Code(
        "warning",
        "recordings without a speaker, so a voice in two splits is not seen",
        "fill in the column speaker, or mmsr data split --by block",
    ),
    "speaker-in-two-splits": Code("error", "a speaker is in two splits", "mmsr data split --by speaker"),
    "text-in-two-splits": Code("error", "a sentence is in two splits", "mmsr data split --keep-texts"),
    "texts-scripted": Code("warning", "most sentences are in two splits", "never judge by the text alone"),
    "audio-in-two-splits": Code("error", "the same audio is in two splits", "keep one"),
    # balance
    "class-absent": Code("error", "a split has no row of a label", "mmsr data split --by stratified"),
    "class-rare": Code("warning", "a label has less than 1 % of a split", "mmsr data split --by stratified"),
    "language-absent": Code("warning", "a split lacks a language that another has", "--stratify language"),
    # text
    "text-replacement": Code("error", "letters were lost (U+FFFD)", "export again from the source as UTF-8"),
    "text-mojibake": Code("error", "UTF-8 was read as another encoding", "write the text as shown"),
    "text-control": Code("warning", "control or invisible characters", "delete them"),
    "text-form": Code("warning", "Unicode normal forms are mixed", "normalise to NFC"),
    "text-wordless": Code("warning", "no letter and no digit", "leave it empty if nothing is said"),
    "text-short": Code("warning", "a single letter", "check the transcript"),
    # audio
    "duration-no-number": Code("error", "a duration is no number of seconds", "seconds, 0 or more"),
    "duration-wrong": Code(
        "error", "a duration is not the audio's length", "correct it, or leave it empty: it is measured then"
    ),
    "audio-missing": Code("error", "the file does not exist", "correct the path, relative to the manifest"),
    "audio-unreadable": Code(
        "error",
        "the file or archive member is there and cannot be read",
        "check permissions and password, or make the archive again",
    ),
    "audio-empty": Code("error", "the file has 0 bytes", "export it again"),
    "audio-corrupt": Code("error", "holds no audio that can be decoded", "convert it to wav or flac"),
    "audio-truncated": Code("error", "ends before its header says", "copy or export it again"),
    "audio-zero-length": Code("error", "has no samples", "export it again"),
    "audio-too-long": Code("error", "longer or larger than what is decoded", "cut it, or check its header"),
    "audio-nan": Code("error", "NaN or infinite samples", "export it again"),
    "audio-scale": Code("error", "samples far beyond full scale", "divide integers by their full scale"),
    "audio-integer-range": Code(
        "warning", "integer samples of another range than their type's", "give floats in [-1, 1]"
    ),
    "audio-silent": Code("error", "no sample above -60 dB of full scale", "record again, or leave out"),
    "audio-clipped": Code(
        "warning",
        "more than .1 % of the samples at full scale or in flat tops, or pressed peaks",
        "record at a lower level",
    ),
    "audio-dc-offset": Code("warning", "the samples' mean is not zero", "subtract it, or high-pass at 20 Hz"),
    "audio-length-stated": Code(
        "warning", "the header states another length, and the whole file is read", "export it again"
    ),
    "audio-joined": Code("warning", "several streams in one file, all of them read", "check what was joined"),
    "audio-channel-silent": Code("warning", "a channel is silent, and left out", "export the other alone"),
    "audio-channels-cancel": Code(
        "warning", "channels cancel each other, and one is read", "invert one, or export one alone"
    ),
    "audio-times-backwards": Code(
        "warning", "times run backwards, and go on from the last sample", "check what was joined"
    ),
    "audio-gap": Code("warning", "missing packets are read as silence", "record or copy it again"),
    "audio-short": Code("warning", "shorter than .1 s", "check the segmentation"),
    "audio-long": Code("warning", "longer than an utterance", "cut it into utterances"),
    "audio-duplicate": Code("warning", "the same bytes as another row's audio", "keep one"),
    "speech-too-fast": Code("warning", "more words than can be said in that time", "check text and segment"),
    "speech-too-slow": Code("warning", "much more time than the words take", "check text and segment"),
}
