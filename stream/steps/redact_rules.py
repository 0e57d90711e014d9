"""What redaction looks for: one rule a kind of secret or personal datum, in RE2's syntax.

What a rule hides, no signal can see. So a rule takes what looks like its kind and no more: a text that merely claims to
be a key (`-----BEGIN PRIVATE KEY-----` and then sentences) stays visible.

References
----------
Prefixes of keys: their issuers' documentation. Luhn's formula: ISO/IEC 7812-1, annex B. IBAN: ISO 13616, check digits
by ISO 7064. Numbers' lengths: ITU-T E.164.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

PLACEHOLDER = re.compile(rb"\[[A-Z_]{2,12}(?::[0-9a-f]{12})?\]")
"""What redaction leaves behind: `[EMAIL]`, or `[EMAIL:0123456789ab]` in ids."""

_DIGITS = bytes(range(48, 58))
_NOT_DIGITS = bytes(byte for byte in range(256) if byte not in _DIGITS)
_SECRET_MAX = 512
_PASSWORD_MAX = 128
_EMAIL_MAX = 320


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of thing to replace.

    `accept` sees the whole text and the span of the match's last group (or of all of it), and may refuse.
    """

    kind: str
    pattern: str
    accept: Callable[[bytes, int, int], bool] | None = None
    group: int = 0
    secret: bool = True
    """Whether the policy `secrets` replaces it too."""

    @property
    def placeholder(self) -> bytes:
        """What stands in its place."""
        return f"[{self.kind.upper()}]".encode()


def luhn(digits: bytes) -> bool:
    """Whether the decimal `digits` satisfy Luhn's formula.

    >>> luhn(b"4111111111111111"), luhn(b"4111111111111112")
    (True, False)
    """
    odd = sum(digits[-1::-2]) - 48 * len(digits[-1::-2])
    doubled = sum((2 * (digit - 48)) // 10 + (2 * (digit - 48)) % 10 for digit in digits[-2::-2])
    return (odd + doubled) % 10 == 0


def is_card(digits: bytes) -> bool:
    """Whether `digits` may be a payment card's number: an issuer's first digits, their length, Luhn.

    >>> is_card(b"4111111111111111"), is_card(b"1795304824372000")
    (True, False)
    """
    n = len(digits)
    head = int(digits[:4])
    issued = (
        (digits[0] == 52 and n in (13, 16, 19))  # Visa
        or (n == 16 and (5100 <= head <= 5599 or 2221 <= head <= 2720))  # Mastercard
        or (n == 15 and digits[:2] in (b"34", b"37"))  # American Express
        or (14 <= n <= 19 and (3000 <= head <= 3059 or digits[:2] in (b"36", b"38", b"39")))  # Diners
        or (16 <= n <= 19 and (3528 <= head <= 3589 or head == 6011 or digits[:2] in (b"62", b"64", b"65", b"81")))
        or (12 <= n <= 19 and digits[:2] in (b"50", b"56", b"57", b"58", b"63", b"67"))  # Maestro
    )
    return issued and luhn(digits)


def _alone(text: bytes, start: int, end: int) -> bool:
    """Whether nothing hangs on to the number, by way of a `.`, `-`, `/` or `_` either: decimals, UUIDs, dates, ids."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    joined = len(before) == 2 and before[1] in b".-/_+" and (chr(before[0]).isalnum() or before[0] > 127)
    follows = len(after) == 2 and after[0] in b".-/_" and after[1] in _DIGITS
    return not joined and not follows and not before[-1:].isalnum() and not after[:1].isalnum()


def _card(text: bytes, start: int, end: int) -> bool:
    return _alone(text, start, end) and is_card(text[start:end].translate(None, _NOT_DIGITS))


def is_iban(text: bytes) -> bool:
    """Whether `text` has the check digits of an IBAN.

    >>> is_iban(b"GB82 WEST 1234 5698 7654 32"), is_iban(b"GB83WEST12345698765432")
    (True, False)
    """
    letters = text.translate(None, b" -").decode()
    if not 15 <= len(letters) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in letters[4:] + letters[:4])) % 97 == 1


def _iban(text: bytes, start: int, end: int) -> bool:
    return is_iban(text[start:end])


def _ip(text: bytes, start: int, end: int) -> bool:
    """Whether it is an address, and no version, decimal or clock time."""
    found, before, after = text[start:end], text[max(0, start - 8) : start].lower(), text[end : end + 2]
    if before.endswith((b"version ", b"version:", b"ver ", b"ver. ", b"v.")) or before[-1:].isalnum():
        return False
    goes_on = after[:1] in (b".", b":") if b":" in found else after[:1] == b"."
    if before[-1:] in (b".", b"-") or (goes_on and after[1:].isalnum()) or not _may_be_ip(found):
        return False
    try:
        ip_address(found.decode())
    except ValueError:
        return False
    return True


def _may_be_ip(found: bytes) -> bool:
    """What needs no parsing to be none: 8 MiB of `1:` would have a minute of it."""
    colons = found.count(b":")
    return not colons or found.count(b"::") == 1 or colons == 7 or (colons == 6 and b"." in found)


def _phone(text: bytes, start: int, end: int) -> bool:
    digits = text[start:end].translate(None, _NOT_DIGITS)
    return 8 <= len(digits) <= 15 and _alone(text, start, end)


def _national(text: bytes, start: int, end: int) -> bool:
    return 9 <= len(text[start:end].translate(None, _NOT_DIGITS)) <= 13 and _alone(text, start, end)


def _named_phone(text: bytes, start: int, end: int) -> bool:
    return 7 <= len(text[start:end].translate(None, _NOT_DIGITS)) <= 15


def _password(text: bytes, start: int, end: int) -> bool:
    value = text[start:end]
    if len(value) > _PASSWORD_MAX or value[0] in b"$<%{*" or PLACEHOLDER.match(value):
        return False
    return value.strip(b".,;:!?)]}*") != b""


def _told_password(text: bytes, start: int, end: int) -> bool:
    value = text[start:end].rstrip(b".,;:!?)")
    return _password(text, start, end) and not value.isalpha() and any(byte in _DIGITS for byte in value)


def _email(_: bytes, start: int, end: int) -> bool:
    return end - start <= _EMAIL_MAX


def _secret(text: bytes, start: int, end: int) -> bool:
    value = text[start:end]
    if len(value) > _SECRET_MAX:
        return False
    return any(byte in _DIGITS for byte in value) and any(chr(byte).isalpha() for byte in value)


_QUOTE = r"""["'\\]{0,4}"""
_IS_BARE = rf"{_QUOTE}\s{{0,3}}(?:[:=]|=>|:=)\s{{0,3}}"
_IS = _IS_BARE + _QUOTE
_PASS = r"(?i:pass(?:word|wd|phrase|code|wort)|\bpwd|kennwort|contraseña|密码|пароль)[\w-]{0,12}"
_B64 = r"[A-Za-z0-9+/]"
_LETTERS = r"\p{Latin}\p{Greek}\p{Cyrillic}"
"""Of scripts that put spaces between words: in others an address would swallow the sentence before it."""
_EOL = r"(?:\s|\\[nrt]){1,8}"

RULES: tuple[Rule, ...] = (
    Rule(
        "private_key",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        rf"(?:{_EOL}[A-Z][A-Za-z-]{{2,20}}: [A-Za-z0-9,./ -]{{1,80}})*"  # Proc-Type, DEK-Info
        rf"(?:{_EOL}{_B64}{{16,}})*(?:{_EOL}{_B64}{{0,76}}={{0,2}})?"
        rf"(?:{_EOL}=[A-Za-z0-9+/]{{4}})?"
        rf"{_EOL}-----END [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----",
    ),
    Rule(
        "private_key",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----" rf"(?:{_EOL}{_B64}{{40,}}={{0,2}})+",
    ),
    Rule("jwt", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+)?"),
    Rule(
        "api_key",
        r"\b(?:sk-(?:proj|ant|or|svcacct|admin)-[A-Za-z0-9_-]{16,}|sk-[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{32,}"
        r"|(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}"  # AWS
        r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}"
        r"|xox[abeposr]-[A-Za-z0-9-]{10,}|xapp-[0-9A-Za-z-]{20,}"  # Slack
        r"|AIza[0-9A-Za-z_-]{35}|ya29\.[0-9A-Za-z_-]{20,}|GOCSPX-[0-9A-Za-z_-]{20,}"  # Google
        r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{32,}|dckr_pat_[A-Za-z0-9_-]{20,}"
        r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,}"
        r"|(?:SK|AC)[0-9a-f]{32}|[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"  # Twilio, Telegram
        r"|do[opr]_v1_[0-9a-f]{64}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|dapi[0-9a-f]{32}|ATATT3[A-Za-z0-9_=-]{20,}"
        r"|lin_api_[A-Za-z0-9]{32,}|ntn_[A-Za-z0-9]{32,}|hv[bs]\.[A-Za-z0-9_-]{24,}|gsk_[A-Za-z0-9]{32,}"
        r"|xai-[A-Za-z0-9]{32,}|pplx-[A-Za-z0-9]{32,}|r8_[A-Za-z0-9]{32,}|NRAK-[A-Z0-9]{27}|gl(?:sa|c)_[A-Za-z0-9_=+/-]{32,}"
        r"|key-[0-9a-f]{32}|AGE-SECRET-KEY-1[0-9A-Z]{58}|LTAI[A-Za-z0-9]{16,24})",
    ),
    Rule("api_key", r"https://hooks\.slack\.com/services/([A-Za-z0-9/_-]{20,})", group=1),
    Rule("password", r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s:/@\"'\[\]]{1,64}:([^\s/@\"'\[\]]{3,128})@", _password, 1),
    Rule(
        "token",
        r"(?i:\bauthorization" + _IS + r"(?:bearer|basic|token|digest)\s{1,3})([A-Za-z0-9._~+/=-]{8,})",
        group=1,
    ),
    Rule("token", r"(?i:\bbearer\s{1,3})([A-Za-z0-9._~+/=-]{16,})", _secret, 1),
    Rule("password", _PASS + _IS_BARE + r"""["']([^"'\\\n]{4,64})["']""", _password, 1),
    Rule(
        "password",
        _PASS + _IS + r"""([^\s"'\\,;]{4,})""",
        _password,
        1,
    ),
    Rule(
        "password",
        r"(?i:\b(?:password|passphrase|passcode)\s{1,3}(?:is|was)\s{1,3})[\"'`]?([^\s\"'`,;]{4,})",
        _told_password,
        1,
    ),
    Rule(
        "secret",
        r"(?i:secret|token|api[_-]?key|access[_-]?key|auth[_-]?key|private[_-]?key|account[_-]?key|credential)s?(?:[_-][\w-]{0,24})?"
        + _IS
        + r"([A-Za-z0-9_./+=~-]{8,})",
        _secret,
        1,
    ),
    Rule(
        "email",
        rf"[{_LETTERS}0-9._%+'-]+(?:@|%40|\\u0040)(?:[{_LETTERS}0-9-]+\.)+[{_LETTERS}]{{2,24}}",
        _email,
        secret=False,
    ),
    Rule("iban", r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?\b", _iban, secret=False),
    Rule("ip", r"\b\d{1,3}(?:\.\d{1,3}){3}\b", _ip, secret=False),
    Rule("ip", r"(?i:\b[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,7}(?:[0-9a-f.]{0,16}[0-9a-f])?)", _ip, secret=False),
    Rule("card", r"\b\d(?:[ -]?\d){11,18}\b", _card, secret=False),
    Rule("phone", r"(?:\+|\b00)\(?[1-9]\d{0,2}\)?[ .()/-]{0,3}(?:\d[ .()/-]{0,2}){5,13}\d\b", _phone, secret=False),
    Rule("phone", r"(?:\b1[ .-])?(?:\([2-9]\d{2}\) ?|\b[2-9]\d{2}[ .-])\d{3}[ .-]\d{4}\b", _phone, secret=False),
    Rule("phone", r"\b0\d{2,4}[ /-]\d{2,4}(?:[ -]?\d{2,4}){1,3}\b", _national, secret=False),
    Rule(
        "phone",
        r"(?i:\b(?:phone|tel|telephone|telefon|telefono|mobile|mobil|cell|handy|fax|whatsapp)"
        r"(?:[ _]?(?:number|num|no|nr)\b)?)"
        r"""[.]?["'\\]{0,4}\s{0,2}[:=#]?\s{0,2}(?:is |at |on )?["'\\]{0,4}(\(?\+?\d[\d ()./-]{5,18}\d)\b""",
        _named_phone,
        1,
        secret=False,
    ),
)
"""In the order in which they are applied: what holds another (a password that is an e-mail address) comes first."""

_PRIVATE = r"pass(?:word|wd|phrase|code|wort)|\bpwd\b|secret|api[_-]?key|access[_-]?key|private[_-]?key|credential"
_PHONE_NAME = r"(?:phone|telephone|mobile|fax|whatsapp|\btel|\bcell)(?:[_-]?(?:number|no|nr))?"

SECRET_NAME = re.compile(_PRIVATE, re.IGNORECASE)
"""Names of JSON fields whose text is a secret whatever it looks like."""

PHONE_NAME = re.compile(_PHONE_NAME + r"\b", re.IGNORECASE)
"""Names of JSON fields whose number is a telephone's."""

JSON_ONLY: tuple[str, ...] = (
    rf'(?i:"[^"]{{0,40}}(?:{_PRIVATE})[^"]{{0,40}}"\s*:)',
    rf'(?i:"[^"]{{0,40}}{_PHONE_NAME}"\s*:\s*[0-9])',
    r"\\u[0-9a-fA-F]",
)
"""What makes a JSON text worth parsing though no rule finds anything in it as it stands."""
