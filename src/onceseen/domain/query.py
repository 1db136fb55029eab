r"""The one search grammar: `state:failed model:vgg16:3 score:<0.6 -label:weak age:<1h "connection refused"`.

Terms are ANDed; `-` before one negates it (and then also takes what has no value at all); values may be quoted, with `\"` and
`\\` inside; the case of A to Z is ignored, other letters are compared as they are written. Words:

    state   queued, running, pending (both), succeeded, failed, cancelled
    model   NAME, or NAME:VERSION                owner   of the job; `me`
    score   risk    <0.6 <=0.6 >0.6 >=0.6 0.6    found   yes, no
    label   the whole label, or words of it in a row (parted by spaces, commas, underscores)
    worker  the begin of its id, or its host     job     digest    the begin of the id, of the image's SHA-256
    name    the begin of the name                age     <1h, >2d: since it was submitted; s m h d w
    text    bare words and quoted phrases: somewhere in the name, the label, the reason of a failure or its kind

Pure: what a query finds is SQL's business (drivers/sql/search.py).
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from onceseen.errors import InvalidRequest

WORDS = ("state", "model", "score", "risk", "found", "owner", "label", "worker", "age", "job", "digest", "name", "text")
JOB_WORDS = ("state", "model", "owner", "age", "job", "name", "text")
"""What can be asked of jobs; `text` is their name."""
STATES = ("queued", "running", "pending", "succeeded", "failed", "cancelled")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}  # seconds

MAX_TERMS, MAX_VALUE = 30, 255
MAX_LENGTH = 20_000
"""Of a whole query: enough for what MAX_TERMS of MAX_VALUE characters are printed as."""

_TOKEN = re.compile(
    r'\s*+(?P<minus>-?)(?:(?P<word>[A-Za-z_]+):)?(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s"]+))?(?!\S)', re.DOTALL
)
_BARE_VALUE = re.compile(r'[^\s"]+')
_BARE_TEXT = re.compile(r'(?!-)(?![A-Za-z_]+:)[^\s"]+')
_COMPARED = re.compile(r"(<=|>=|<|>|)(.*)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9._-]+(:[A-Za-z0-9._-]+)?")


class Term(NamedTuple):
    """One condition.

    Attributes:
        word: one of WORDS.
        value: text; a float for score and risk; seconds for age; a bool for found; lower-case hex for job and digest.
        op: `=`, or for score, risk and age also `<`, `<=`, `>`, `>=`.
        negated: it must not hold.
    """

    word: str
    value: str | float | int | bool
    op: str = "="
    negated: bool = False

    def __str__(self) -> str:
        minus = "-" if self.negated else ""
        if self.word == "text":
            return minus + _quoted(str(self.value), _BARE_TEXT)
        if self.word == "found":
            shown = "yes" if self.value else "no"
        elif self.word == "age":
            shown = self.op + _span(int(self.value))
        elif self.word in ("score", "risk"):
            shown = ("" if self.op == "=" else self.op) + repr(float(self.value))
        else:
            shown = _quoted(str(self.value), _BARE_VALUE)
        return f"{minus}{self.word}:{shown}"


@dataclass(frozen=True)
class Query:
    """All of the terms must hold; without terms, everything is found. `parse(str(query)) == query`."""

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return " ".join(str(term) for term in self.terms)

    def also(self, word: str, value: str) -> "Query":
        """This query and one term more.

        Raises:
            InvalidRequest: the value is none for the word.
        """
        return Query((*self.terms, Term(word, *_read(word, value))))


def parse(text: str, words: Sequence[str] = WORDS, me: str = "local") -> Query:
    """Read a query.

    Args:
        text: as people write it; may be empty.
        words: those that make sense where it is asked.
        me: whom `owner:me` means.

    Raises:
        InvalidRequest: what is wrong, which value, and what is known instead.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidRequest(f"The query has {len(text):,} characters; at most {MAX_LENGTH:,} are read.")
    terms: list[Term] = []
    place = 0
    text = text.strip()
    while place < len(text):
        if len(terms) == MAX_TERMS:
            raise InvalidRequest(f"The query has more than {MAX_TERMS} terms; leave some out.")
        found = _TOKEN.match(text, place)
        if found is None:
            raise InvalidRequest(
                f"A quote is not closed, or stands inside a word, at {text[place:].lstrip()[:40]!r}; "
                'write WORD:"VALUE", and \\" for a quote in a value.'
            )
        place = found.end()
        word = (found["word"] or "text").lower()
        _check_word(word, words, spelled=bool(found["word"]))
        quoted = found["quoted"]
        value = found["bare"] or "" if quoted is None else re.sub(r'\\(["\\])', r"\1", quoted)
        if word == "owner" and value.lower() == "me":
            value = me
        terms.append(Term(word, *_read(word, value), negated=bool(found["minus"])))
    return Query(tuple(terms))


def _check_word(word: str, words: Sequence[str], *, spelled: bool) -> None:
    if word in words and (spelled is False or word != "text"):
        return
    known = ", ".join(name for name in words if name != "text")
    if word in WORDS and word != "text":
        raise InvalidRequest(f"`{word}` cannot be asked here; what can is {known}, and text.")
    near = get_close_matches(word, [name for name in words if name != "text"], 1)
    meant = f"; did you mean `{near[0]}`?" if near else "."
    raise InvalidRequest(
        f"`{word[:50]}` is no word of a query{meant} Known are {known}; quote text that holds a colon."
    )


def _read(word: str, value: str) -> tuple[str | float | int | bool, str]:
    """The value and the operator that a text means."""
    if not value:
        raise InvalidRequest(
            f"Nothing stands after `{word}:`." if word != "text" else "A `-` or a pair of quotes is empty."
        )
    if len(value) > MAX_VALUE:
        raise InvalidRequest(
            f"A value of `{word}` has {len(value):,} characters; at most {MAX_VALUE} are searched for."
        )
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
        raise InvalidRequest(f"A value of `{word}` holds a character that no text has: {value[:50]!r}.")
    reader = _READERS.get(word)
    return (value, "=") if reader is None else reader(word, value)


def _state(_word: str, value: str) -> tuple[str, str]:
    if value.lower() not in STATES:
        raise InvalidRequest(f"`state:{value[:50]}`: known are {', '.join(STATES)}.")
    return value.lower(), "="


def _found(_word: str, value: str) -> tuple[bool, str]:
    if value.lower() not in ("yes", "no"):
        raise InvalidRequest(f"`found:{value[:50]}`: known are yes and no.")
    return value.lower() == "yes", "="


def _model(_word: str, value: str) -> tuple[str, str]:
    if not _MODEL.fullmatch(value):
        raise InvalidRequest(
            f"`model:{value[:50]}`: a model is NAME or NAME:VERSION, of letters, digits, `.`, `_` and `-`."
        )
    return value, "="


def _figure(word: str, value: str) -> tuple[float, str]:
    op, digits = _compared(value)
    number = float(digits) if _NUMBER.fullmatch(digits) else math.nan
    if not math.isfinite(number):
        raise InvalidRequest(f"`{word}:{value[:50]}`: give a number, or one after <, <=, > or >=: `{word}:>=0.5`.")
    return number, op or "="


def _age(_word: str, value: str) -> tuple[int, str]:
    op, span = _compared(value)
    number, unit = span[:-1], span[-1:].lower()
    if not op or unit not in UNITS or not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise InvalidRequest(f"`age:{value[:50]}`: give < or >, a whole number and s, m, h, d or w: `age:<1h`.")
    return int(number) * UNITS[unit], op


def _hex(word: str, value: str) -> tuple[str, str]:
    digits = value.lower().replace("-", "") if word == "job" else value.lower()
    longest = 32 if word == "job" else 64
    if not re.fullmatch(f"[0-9a-f]{{1,{longest}}}", digits):
        what = "a job's id" if word == "job" else "a SHA-256 in hex"
        raise InvalidRequest(f"`{word}:{value[:80]}`: give the begin of {what}, at most {longest} of 0-9 and a-f.")
    return digits, "="


_READERS: dict[str, Callable[[str, str], tuple[str | float | int | bool, str]]] = {
    "state": _state,
    "found": _found,
    "model": _model,
    "score": _figure,
    "risk": _figure,
    "age": _age,
    "job": _hex,
    "digest": _hex,
}


def _compared(value: str) -> tuple[str, str]:
    found = _COMPARED.fullmatch(value)
    assert found is not None  # it takes every text
    return found[1], found[2]


def _span(seconds: int) -> str:
    unit = max((unit for unit, length in UNITS.items() if seconds % length == 0), key=UNITS.__getitem__)
    return f"{seconds // UNITS[unit]}{unit}"


def _quoted(value: str, bare: re.Pattern[str]) -> str:
    if bare.fullmatch(value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
