"""What the demo corpus says and what it means: grammar, voices, and the rule that gives the label.

An utterance is *words* (a sentence whose evidence phrase is a complaint, a neutral fact or praise) spoken in
a *manner* of voice. ``RULE`` maps the two to a label and a reason; the rationale puts the reason, the quoted
phrase and the manner into the utterance's language. Sentences are all lower case, short, and made of

    opener + subject + evidence phrase + tail          (Chinese: opener + tail + subject + evidence phrase)

where only the evidence phrase carries feeling: openers, subjects and tails are shared by all three valences.
Nothing here is measured from people: it is a toy world with a known answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Valence = Literal["negative", "neutral", "positive"]
Manner = Literal["even", "upset", "cheerful", "weary"]
Kind = Literal["words", "voice", "conflict"]

LABELS: tuple[Valence, ...] = ("negative", "neutral", "positive")
MANNERS: tuple[Manner, ...] = ("even", "upset", "cheerful", "weary")

#: (valence of the words, manner of the voice) -> (label, reason). An upset voice is always negative (praise
#: becomes sarcasm) and a complaint stays a complaint (a cheerful one is a bitter joke); a weary voice takes
#: the warmth out of praise; a cheerful voice turns a plain fact into good news.
RULE: dict[tuple[Valence, Manner], tuple[str, str]] = {
    ("negative", "even"): ("negative", "complaint"),
    ("negative", "upset"): ("negative", "complaint"),
    ("negative", "cheerful"): ("negative", "bitter joke"),
    ("negative", "weary"): ("negative", "complaint"),
    ("neutral", "even"): ("neutral", "report"),
    ("neutral", "upset"): ("negative", "annoyance"),
    ("neutral", "cheerful"): ("positive", "delight"),
    ("neutral", "weary"): ("neutral", "indifference"),
    ("positive", "even"): ("positive", "satisfaction"),
    ("positive", "upset"): ("negative", "sarcasm"),
    ("positive", "cheerful"): ("positive", "delight"),
    ("positive", "weary"): ("neutral", "politeness"),
}

#: kind -> its cells with their shares of the kind (each kind is a third of the rows). The shares were chosen
#: by enumeration so that neither modality alone gets far, that its best guess leads the runner-up by half in
#: every cell, and that the most accurate guess also has the highest macro-F1: see
#: ``mmsr.data.corpora.demo.corpus.ceilings``.
DESIGN: dict[Kind, dict[tuple[Valence, Manner], int]] = {
    "words": {("negative", "even"): 4, ("neutral", "even"): 4, ("positive", "even"): 6},
    "voice": {("neutral", "upset"): 3, ("neutral", "cheerful"): 6, ("neutral", "weary"): 5},
    "conflict": {("positive", "upset"): 3, ("positive", "weary"): 2, ("negative", "cheerful"): 9},
}

#: split -> voice variants of espeak-ng. A variant (formants, base pitch, breath) is heard in one split only,
#: in whatever language, so a test voice is new to a model trained on all five languages.
VARIANTS: dict[str, tuple[str, ...]] = {
    "train": ("m1", "f1", "m3", "f3", "m8", "f4"),
    "dev": ("m2", "f5"),
    "test": ("m7", "f2"),
}


@dataclass(frozen=True, kw_only=True)
class Topic:
    """Subjects that take the same predicates, and those predicates (the evidence phrases) by valence."""

    subjects: tuple[str, ...]
    phrases: dict[Valence, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language: its espeak-ng accents, its grammar, and the words of its rationales."""

    accents: tuple[str, ...]
    sentence: str
    openers: tuple[str, ...]
    tails: tuple[str, ...]
    topics: tuple[Topic, ...]
    rationale: str
    reasons: dict[str, str]
    voices: dict[Manner, str]

    def phrases(self, valence: Valence) -> list[str]:
        """Return the evidence phrases of one valence, over all topics."""
        return [phrase for topic in self.topics for phrase in topic.phrases[valence]]


LANGUAGES: dict[str, Language] = {
    "vi": Language(
        accents=("vi", "vi-vn-x-south", "vi-vn-x-central"),
        sentence="{opener} {subject} {phrase} {tail}",
        openers=("", "dạ", "vâng", "à", "thì"),
        tails=("", "hôm nay", "tuần này", "lần này", "như đã nói"),
        topics=(
            Topic(
                subjects=("đầu gối tôi", "lưng tôi", "vai bà ấy", "tay ông ấy"),
                phrases={
                    "negative": (
                        "đau hơn trước nhiều",
                        "lại sưng rất to",
                        "yếu đi rõ rệt",
                        "đau suốt cả đêm",
                        "nhức không chịu nổi",
                    ),
                    "neutral": (
                        "vừa được chụp phim",
                        "được đo hai lần",
                        "đang được khám",
                        "có ghi trong phiếu",
                        "được băng một lớp",
                    ),
                    "positive": (
                        "đã đỡ đau nhiều",
                        "lành hẳn rồi",
                        "khỏe lại như xưa",
                        "cử động rất tốt",
                        "hết sưng hoàn toàn",
                    ),
                },
            ),
            Topic(
                subjects=("cô y tá", "bác sĩ mới", "anh dược sĩ", "chị điều dưỡng"),
                phrases={
                    "negative": (
                        "quá thô lỗ",
                        "bỏ mặc chúng tôi",
                        "làm mất hồ sơ",
                        "phát nhầm thuốc",
                        "nói năng khó nghe",
                    ),
                    "neutral": (
                        "đến lúc chín giờ",
                        "mặc áo màu xanh",
                        "ngồi ở bên trái",
                        "gọi từ phòng bên",
                        "làm đến bốn giờ",
                    ),
                    "positive": (
                        "hết sức tận tình",
                        "giúp chúng tôi nhiều",
                        "giải thích rất rõ",
                        "chăm sóc thật chu đáo",
                        "vô cùng tử tế",
                    ),
                },
            ),
        ),
        rationale='{reason}: "{phrase}" {voice}',
        reasons={
            "complaint": "phàn nàn",
            "bitter joke": "đùa chua chát",
            "annoyance": "bực tức",
            "sarcasm": "mỉa mai",
            "report": "kể lại",
            "indifference": "thờ ơ",
            "politeness": "xã giao",
            "satisfaction": "hài lòng",
            "delight": "vui mừng",
        },
        voices={
            "even": "giọng bình thản",
            "upset": "giọng gay gắt",
            "cheerful": "giọng vui vẻ",
            "weary": "giọng mệt mỏi",
        },
    ),
    "en": Language(
        accents=("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-029"),
        sentence="{opener} {subject} {phrase} {tail}",
        openers=("", "well", "so", "doctor", "you know"),
        tails=("", "today", "this week", "this time", "as i said"),
        topics=(
            Topic(
                subjects=("my knee", "my back", "her shoulder", "his arm"),
                phrases={
                    "negative": (
                        "feels much worse",
                        "hurts so badly",
                        "is swollen again",
                        "burns like fire",
                        "keeps getting weaker",
                    ),
                    "neutral": (
                        "was measured twice",
                        "was x-rayed once",
                        "is being examined",
                        "is on the form",
                        "was photographed briefly",
                    ),
                    "positive": (
                        "feels much better",
                        "has healed nicely",
                        "is strong again",
                        "works like new",
                        "stopped hurting completely",
                    ),
                },
            ),
            Topic(
                subjects=("the nurse", "the new doctor", "our therapist", "the pharmacist"),
                phrases={
                    "negative": (
                        "was terribly rude",
                        "ignored us completely",
                        "made serious mistakes",
                        "lost all my papers",
                        "mixed up the pills",
                    ),
                    "neutral": (
                        "came at noon",
                        "wore a blue coat",
                        "is here until four",
                        "called about the form",
                        "has a new desk",
                    ),
                    "positive": (
                        "was wonderfully kind",
                        "helped us greatly",
                        "listened very patiently",
                        "explained everything clearly",
                        "did excellent work",
                    ),
                },
            ),
        ),
        rationale='{reason}: "{phrase}" in {voice}',
        reasons={
            "complaint": "complaint",
            "bitter joke": "bitter joke",
            "annoyance": "annoyance",
            "sarcasm": "sarcasm",
            "report": "report",
            "indifference": "indifference",
            "politeness": "politeness",
            "satisfaction": "satisfaction",
            "delight": "delight",
        },
        voices={
            "even": "an even voice",
            "upset": "an upset voice",
            "cheerful": "a cheerful voice",
            "weary": "a weary voice",
        },
    ),
    "zh": Language(
        accents=("cmn",),
        sentence="{opener}{tail}{subject}{phrase}",
        openers=("", "嗯", "那个", "您看", "是这样"),
        tails=("", "今天", "这周", "这次", "昨天"),
        topics=(
            Topic(
                subjects=("我的膝盖", "我的后背", "她的肩膀", "他的手臂"),
                phrases={
                    "negative": ("疼得特别厉害", "又肿起来了", "越来越没力", "整夜都在疼", "比以前更糟"),
                    "neutral": ("拍过一张片子", "量了两次", "正在做检查", "写在表格上", "做过登记"),
                    "positive": ("感觉好多了", "恢复得很好", "完全不疼了", "又有力气了", "活动很灵活"),
                },
            ),
            Topic(
                subjects=("这位护士", "新来的医生", "那位药师", "我们的理疗师"),
                phrases={
                    "negative": ("态度真差", "根本不理人", "弄丢了病历", "给错了药", "说话太粗鲁"),
                    "neutral": ("九点钟来", "穿着蓝色外套", "坐在左边", "在隔壁楼上班", "四点钟下班"),
                    "positive": ("特别有耐心", "帮了大忙", "讲得很清楚", "照顾得真周到", "非常和气"),
                },
            ),
        ),
        rationale='{reason}："{phrase}"，{voice}',
        reasons={
            "complaint": "抱怨",
            "bitter joke": "苦笑",
            "annoyance": "恼火",
            "sarcasm": "讽刺",
            "report": "陈述",
            "indifference": "冷淡",
            "politeness": "客套",
            "satisfaction": "满意",
            "delight": "高兴",
        },
        voices={"even": "语气平稳", "upset": "语气激动", "cheerful": "语气欢快", "weary": "语气疲惫"},
    ),
    "de": Language(
        accents=("de",),
        sentence="{opener} {subject} {phrase} {tail}",
        openers=("", "also", "nun", "ja", "so"),
        tails=("", "glaube ich", "wie gesagt", "soweit ich weiß", "sage ich mal"),
        topics=(
            Topic(
                subjects=("mein knie", "mein rücken", "ihre schulter", "sein arm"),
                phrases={
                    "negative": (
                        "ist viel schlimmer",
                        "schmerzt ganz furchtbar",
                        "ist wieder geschwollen",
                        "wird immer schwächer",
                        "brennt wie feuer",
                    ),
                    "neutral": (
                        "wurde zweimal gemessen",
                        "wurde kurz geröntgt",
                        "wird gerade untersucht",
                        "steht im formular",
                        "bekommt einen verband",
                    ),
                    "positive": (
                        "ist viel besser",
                        "heilt sehr gut",
                        "tut nicht mehr weh",
                        "ist wieder kräftig",
                        "bewegt sich ganz leicht",
                    ),
                },
            ),
            Topic(
                subjects=("die schwester", "die neue ärztin", "der pfleger", "der apotheker"),
                phrases={
                    "negative": (
                        "war schrecklich unhöflich",
                        "ignoriert uns völlig",
                        "macht schlimme fehler",
                        "hat alles verwechselt",
                        "schreit uns an",
                    ),
                    "neutral": (
                        "kommt um neun",
                        "trägt einen kittel",
                        "sitzt links am fenster",
                        "rief kurz an",
                        "arbeitet bis vier",
                    ),
                    "positive": (
                        "war sehr freundlich",
                        "hat uns toll geholfen",
                        "erklärt alles bestens",
                        "hört geduldig zu",
                        "leistet großartige arbeit",
                    ),
                },
            ),
        ),
        rationale='{reason}: "{phrase}" mit {voice}',
        reasons={
            "complaint": "klage",
            "bitter joke": "galgenhumor",
            "annoyance": "ärger",
            "sarcasm": "sarkasmus",
            "report": "bericht",
            "indifference": "gleichgültigkeit",
            "politeness": "höflichkeit",
            "satisfaction": "zufriedenheit",
            "delight": "freude",
        },
        voices={
            "even": "ruhiger stimme",
            "upset": "aufgebrachter stimme",
            "cheerful": "fröhlicher stimme",
            "weary": "müder stimme",
        },
    ),
    "fr": Language(
        accents=("fr", "fr-be", "fr-ch"),
        sentence="{opener} {subject} {phrase} {tail}",
        openers=("", "alors", "eh bien", "donc", "voilà"),
        tails=("", "aujourd'hui", "cette semaine", "cette fois", "comme je disais"),
        topics=(
            Topic(
                subjects=("mon genou", "mon dos", "son bras", "son pied"),
                phrases={
                    "negative": (
                        "va bien plus mal",
                        "fait terriblement mal",
                        "enfle encore davantage",
                        "perd toute sa force",
                        "brûle comme du feu",
                    ),
                    "neutral": (
                        "figure sur la fiche",
                        "a été mesuré",
                        "est en cours d'examen",
                        "apparaît sur la radio",
                        "reçoit un bandage",
                    ),
                    "positive": (
                        "va beaucoup mieux",
                        "ne fait plus mal",
                        "guérit très bien",
                        "bouge sans effort",
                        "retrouve sa force",
                    ),
                },
            ),
            Topic(
                subjects=("l'infirmière", "la pharmacienne", "la kiné", "la secrétaire"),
                phrases={
                    "negative": (
                        "est très impolie",
                        "nous ignore complètement",
                        "a perdu mon dossier",
                        "se trompe toujours",
                        "nous parle très mal",
                    ),
                    "neutral": (
                        "arrive à neuf heures",
                        "porte une blouse bleue",
                        "travaille au premier étage",
                        "part à seize heures",
                        "est assise à gauche",
                    ),
                    "positive": (
                        "est vraiment adorable",
                        "nous aide énormément",
                        "explique tout clairement",
                        "écoute avec patience",
                        "fait un travail formidable",
                    ),
                },
            ),
        ),
        rationale='{reason} : "{phrase}", voix {voice}',
        reasons={
            "complaint": "plainte",
            "bitter joke": "humour noir",
            "annoyance": "agacement",
            "sarcasm": "sarcasme",
            "report": "constat",
            "indifference": "indifférence",
            "politeness": "politesse",
            "satisfaction": "satisfaction",
            "delight": "joie",
        },
        voices={"even": "calme", "upset": "fâchée", "cheerful": "enjouée", "weary": "lasse"},
    ),
}
