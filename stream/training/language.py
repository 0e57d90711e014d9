"""In which language something is said, as far as a slice needs it: by script, and Latin script by its little words.

No model and no table of n-grams: traffic is sliced by it, nothing is decided about a session. Text that mixes languages
is of the one with most characters; what has no letters has none.
"""

from __future__ import annotations

import re
from collections import Counter

NONE = "none"
"""Of text without letters."""
OTHER_LATIN = "other latin"
_WORDS_MIN = 2
"""Little words of a language before it is believed."""
_SCRIPTS = {
    name: re.compile(f"[{ranges}]")
    for name, ranges in {
        "japanese": "\u3040-\u30ff\u31f0-\u31ff",
        "korean": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
        "chinese": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
        "cyrillic": "\u0400-\u052f",
        "greek": "\u0370-\u03ff\u1f00-\u1fff",
        "arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufeff",
        "hebrew": "\u0590-\u05ff",
        "indic": "\u0900-\u0dff",
        "thai": "\u0e00-\u0e7f",
        "latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    }.items()
}
_DENSE = ("chinese", "japanese", "korean")
"""They put into a character what Latin script puts into three."""
_LITTLE_WORDS = {
    "english": "the and of to is that for with you this are have what not from your be it on please",
    "italian": "il di che è per un una non sono della con le si del mi vorrei grazie ho anche dal alle",
    "german": "der die und das ist nicht ein eine zu mit den ich für auf sie von dem bitte auch wie",
    "french": "le les et des est une dans pour que qui vous pas je sur avec ce au du sont nous",
    "spanish": "el los y que en las por una con para es se del está como más pero su al gracias",
    "portuguese": "o os e que em uma para com não é do da se por mais como mas ao você obrigado",
    "dutch": "de het een en van ik niet dat met op voor zijn naar er maar ook aan je wat heb",
}
_LANGUAGES = {language: frozenset(words.split()) for language, words in _LITTLE_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """The language of `text`, or the script where a script serves several.

    >>> language_of("What is the weather in Rome?"), language_of("你好，我想订一张票"), language_of("{}")
    ('english', 'chinese', 'none')
    >>> language_of("Vorrei un treno per Roma, grazie"), language_of("これは漢字です"), language_of("Привет")
    ('italian', 'japanese', 'cyrillic')
    """
    counts = {script: len(found) for script, letters in _SCRIPTS.items() if (found := letters.findall(text))}
    if not counts:
        return NONE
    # Japanese is written with Chinese characters too; kana give it away.
    if counts.get("japanese", 0) * 10 >= counts.get("chinese", 0) > 0:
        counts["japanese"] += counts.pop("chinese")
    script = max(counts, key=lambda name: (counts[name] * (3 if name in _DENSE else 1), name))
    return _latin(text) if script == "latin" else script


def _latin(text: str) -> str:
    words = Counter(_WORD.findall(text.lower()))
    said = {language: sum(words[word] for word in little) for language, little in _LANGUAGES.items()}
    best = max(said, key=lambda name: (said[name], name))
    return best if said[best] >= _WORDS_MIN else OTHER_LATIN
