"""Sounds that transcripts name: "[BLANK_AUDIO]", "(laughs)", "*coughs*", "(Âm nhạc)", "【音乐】", notes.

Recognisers that learned from subtitles write them, and so do people. What is in square or angle brackets is
never spoken. Round brackets and the like may hold spoken words, "two (or three) days": they are an annotation
where they name a sound.
"""

import re

_NOTES = "♩♪♫♬♭♮♯🎵🎶🎼"

# Beginnings of words: en, de, fr, es and pt, it, nl, pl, tr and id, vi, ru and uk.
_SOUNDS = r"""
    music\b|melod|instrumental|applau|clap|cheer(?:s|ing)?\b|laugh|chuckl|giggl|cough|sneez|sniff
    sigh(?:s|ing)?\b|gasp|groan|moan|scream|shout|yell(?:s|ing)\b|cr(?:y|ies|ying)\b|sob(?:s|bing)?\b
    weep|whimper|breath|inhal|exhal|yawn|snor|hum(?:s|ming)\b|whistl|sing(?:s|ing)\b|whisper|mumbl|murmur|crosstalk|chatter
    nois|silen|no\ audio
    no\ speech|no\ sound|blank\b|inaudib|unintelligib|indistinct|background|speak(?:s|ing)\ in\b
    foreign\ language
    static\b|beep|buzz|click|ring(?:s|ing)\b|knock|footstep|thunder|bark(?:s|ing)\b|pause\b|sounds?\ of\b
    lip\ ?smack|clears?\ throat|clearing\ throat|unk\b|spn\b|sil\b
    musik|beifall|gelächter|lach(?:t|en|end)?\b|hust|niest\b|seufz|stöhn|schluchz|weint\b|räusper
    klatsch|stille\b
    schweig|geräusch|rauschen|unverständlich|atmet\b|hintergrund|klingel
    musique|rires?\b|rit\b|rient\b|tou(?:x|sse)|éternu|soupir|gémi|pleur|sanglot|respir|bruit|incompréhensib
    sonnerie|chuchot
    música|aplaus|ris(?:as?|os?)\b|ríe|ri(?:endo|ndo)\b|tos(?:e|se|iendo)?\b|estornud|espirr|suspir
    gemido|llora
    chor(?:a|o|ando)\b|ruido|ruído|barulho|ininteligib|incompreens|sussurr
    musica|risat|tossisce|starnut|sospir|piang|rumor[ei]\b|incomprensib
    muziek|gelach|lacht\b|hoest|niest|zucht|stilte|geluid|geruis|onverstaanb
    muzyk|brawa|oklask|śmie|kaszl|kicha|westchn|wzdych|cisza|szum|płacz|niezrozumia
    müzik|alkış|kahkaha|gülüş|öksür|hapşır|sessizlik|gürültü|tepuk\ tangan|tertawa|batuk|bersin
    âm\ nhạc|nhạc|vỗ\ tay|cười|ho\b|hắt\ hơi|thở|im\ lặng|yên\ lặng|tiếng\ (?:ồn|động|ho\b|chuông)
    tạp\ âm|khóc
    không\ (?:nghe\ )?rõ|không\ nghe\ được|nói\ tiếng\ nước\ ngoài
    музык|музик|аплодис|оплеск|смех|сміх|смеё?тся|сміється|каш(?:ел|ля)|вздох|вздыха|зітха|тишин|тиша|шум
    плач|неразборчив|нерозбірлив
"""
_SOUNDS_UNSPACED = (
    "音乐|音樂|掌声|掌聲|鼓掌|笑|咳|喷嚏|噴嚏|叹气|嘆氣|叹息|嘆息|哭|喘|呼吸|安静|安靜|沉默|静音|靜音|寂静|寂靜|无声|無聲|空白"
    "|噪音|噪声|噪聲|杂音|雜音|听不清|聽不清|背景|铃声|鈴聲|外语|外語|音楽|拍手|歓声|ため息|くしゃみ|沈黙|無音|泣|咳き込"
    "|음악|박수|웃음|웃는|기침|재채기|한숨|침묵|정적|소음|잡음|울음|숨소리"
    "|ดนตรี|เพลง|หัวเราะ|ปรบมือ|ถอนหายใจ|เงียบ|เสียง|ร้องไห้"
    "|موسيقى|تصفيق|ضحك|سعال|تنهد|صمت|ضوضاء|بكاء|موسیقی|خنده|سرفه|סופה|מוזיקה|מוסיקה|צחוק|שיעול|שקט|רעש|מחיאות"
    "|संगीत|ताली|हँसी|हंसी|हंसते|खाँस|खांस|शोर|सन्नाटा|खामोशी"
)
_SOUND = re.compile(
    rf"(?<!\w)(?:{'|'.join(line.strip() for line in _SOUNDS.strip().splitlines())})|{_SOUNDS_UNSPACED}",
    re.IGNORECASE,
)
_MOST_WORDS = 6  # of an annotation; more are a sentence

# Square and angle brackets, and others, whose text may be spoken; each may be doubled, as in "((coughs))".
_BRACKETED = re.compile(
    r"[\[［]+(?P<never>[^\[\]［］]*)[\]］]+|<(?P<tag>[^\s<>][^<>]*)>|[(（]+(?P<round>[^()（）]*)[)）]+"
    r"|\{+(?P<curly>[^{}]*)\}+|【+(?P<lens>[^【】]*)】+|\*+(?P<stars>[^*\n]*[^*\s])\*+"
)
# What a recogniser began when its tokens ran out.
_UNCLOSED = re.compile(r"[\[(（［【][^\])）］】\[(（［【]{0,40}$")


def names_sound(text: str) -> bool:
    """Whether the text of a pair of brackets names a sound, or that nothing is heard; also an empty one."""
    plain = " ".join(text.replace("_", " ").split())
    return not plain or (len(plain.split()) <= _MOST_WORDS and bool(_SOUND.search(plain)))


def annotation_spans(text: str, *, recognised: bool = False) -> list[tuple[int, int]]:
    """The (start, end) of each annotation in a text, in order; also of musical notes.

    Args:
        text: A transcript.
        recognised: It is a recogniser's, which hears no brackets. Then a text that is nothing but brackets is
            an annotation, whatever they say; and one that breaks off inside them ends with an annotation, if
            it begins like one.
    """
    brackets = list(_BRACKETED.finditer(text))
    spans = [match.span() for match in brackets if _is_annotation(match)]
    spans += [match.span() for match in re.finditer(f"[{_NOTES}]+", text)]
    if recognised:
        last = _UNCLOSED.search(text)
        if last is not None and (last.start() == 0 or names_sound(last.group()[1:])):
            spans.append(last.span())
        rest = cut_out(text, [*(match.span() for match in brackets), *spans])
        if not any(character.isalnum() for character in rest):
            return [(0, len(text))] if text else []
    return sorted(spans)


def cut_out(text: str, spans: list[tuple[int, int]], *, filler: str = " ") -> str:
    """The text without some of its spans, with a filler at the place of each."""
    kept, done = [], 0
    for start, end in sorted(spans):
        if end > done:
            kept.append(text[done : max(start, done)])
            done = end
    return filler.join([*kept, text[done:]])


def _is_annotation(match: re.Match[str]) -> bool:
    if match.lastgroup in ("never", "tag"):
        return True
    return names_sound(match[match.lastgroup or 0])
