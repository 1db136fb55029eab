"""The search grammar: what it reads, what it prints, what it says to what it cannot read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceseen.domain.query import JOB_WORDS, MAX_LENGTH, MAX_TERMS, MAX_VALUE, STATES, WORDS, Query, Term, parse
from onceseen.errors import InvalidRequest

LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
VALUES = st.one_of(
    st.text(LETTERS, min_size=1, max_size=20),
    st.text('ab -:"\\%_<>=\t', min_size=1, max_size=10),
    st.sampled_from(["-", '"', "\\", "state:failed", "-a", ":", "http://x/y?z=1", 'a\\"b', "\u2028", "é b"]),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
COMPARED = st.sampled_from(["<", "<=", ">", ">="])
EQUALS, SIGNS = st.just("="), st.booleans()
HEX = "0123456789abcdef"


def terms() -> st.SearchStrategy[Term]:
    """Any term that there is, as `parse` makes it."""
    words = st.sampled_from(["name", "label", "worker", "text"])
    owners = VALUES.filter(lambda value: value.lower() != "me")
    return st.one_of(
        st.builds(Term, words, VALUES, EQUALS, SIGNS),
        st.builds(Term, st.just("owner"), owners, EQUALS, SIGNS),
        st.builds(Term, st.just("state"), st.sampled_from(STATES), EQUALS, SIGNS),
        st.builds(Term, st.just("found"), st.booleans(), EQUALS, SIGNS),
        st.builds(Term, st.just("model"), st.from_regex(r"[A-Za-z0-9._-]+(:[A-Za-z0-9._-]+)?", fullmatch=True).filter(
            lambda ref: len(ref) <= MAX_VALUE), EQUALS, SIGNS),
        st.builds(Term, st.sampled_from(["score", "risk"]), FLOATS, COMPARED | EQUALS, SIGNS),
        st.builds(Term, st.just("age"), st.integers(0, 999_999_999), COMPARED, SIGNS),
        st.builds(Term, st.just("job"), st.text(HEX, min_size=1, max_size=32), EQUALS, SIGNS),
        st.builds(Term, st.just("digest"), st.text(HEX, min_size=1, max_size=64), EQUALS, SIGNS),
    )  # fmt: skip


@given(st.lists(terms(), max_size=MAX_TERMS))
def test_what_is_printed_is_read_as_the_same(found):
    query = Query(tuple(found))
    assert parse(str(query)) == query


@given(
    st.one_of(
        st.text(st.characters()), st.text('ab:-"\\ <>=.0159eyshmdw', max_size=60), st.text().map(lambda t: f"score:{t}")
    )
)
def test_whatever_is_asked_is_read_or_refused_with_a_sentence(text):
    try:
        query = parse(text)
    except InvalidRequest:
        return
    assert parse(str(query)) == query


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n ", []),
        ("state:failed", [Term("state", "failed")]),
        ("STATE:Failed Found:YES", [Term("state", "failed"), Term("found", True)]),
        ("model:vgg16:3 -model:digits", [Term("model", "vgg16:3"), Term("model", "digits", negated=True)]),
        ("score:<0.6 risk:>=.8", [Term("score", 0.6, "<"), Term("risk", 0.8, ">=")]),
        ("score:0.5 score:-1e-3", [Term("score", 0.5), Term("score", -0.001)]),
        ('score:"<= 1"', None),
        ("age:<1h age:>=2D", [Term("age", 3600, "<"), Term("age", 172_800, ">=")]),
        ("job:0199-AB digest:AB12", [Term("job", "0199ab"), Term("digest", "ab12")]),
        ("owner:me owner:you", [Term("owner", "local"), Term("owner", "you")]),
        ('label:"Egyptian cat"', [Term("label", "Egyptian cat")]),
        ('name:"a \\"b\\" \\\\ \\n"', [Term("name", 'a "b" \\ \\n')]),
        ('refused "connection lost"', [Term("text", "refused"), Term("text", "connection lost")]),
        ('-weak -"very weak"', [Term("text", "weak", negated=True), Term("text", "very weak", negated=True)]),
        ('"state:failed" 12:30 a.b:c', [Term("text", "state:failed"), Term("text", "12:30"), Term("text", "a.b:c")]),
        ("worker:w2", [Term("worker", "w2")]),
    ],
)  # fmt: skip
def test_a_query_is_read_like_this(text, expected):
    if expected is None:
        with pytest.raises(InvalidRequest):
            parse(text)
    else:
        assert parse(text) == Query(tuple(expected))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scroe:1", ["`scroe`", "did you mean `score`?", "state, model"]),
        ("Lable:x", ["did you mean `label`?"]),
        ("http://x", ["`http` is no word", "quote"]),
        ("text:x", ["`text` is no word"]),
        ("score:abc", ["`score:abc`", "number"]),
        ("score:nan", ["number"]),
        ("score:1e999", ["number"]),
        ("risk:1_0", ["`risk:1_0`"]),
        ("state:done", ["`state:done`", "queued, running, pending, succeeded, failed, cancelled"]),
        ("age:<1y", ["`age:<1y`", "s, m, h, d or w"]),
        ("age:1h", ["< or >"]),
        ("age:<1.5h", ["whole number"]),
        ("found:maybe", ["yes and no"]),
        ("job:xyz", ["id"]),
        ("digest:" + "a" * 65, ["64"]),
        ("model:a:b:c", ["NAME:VERSION"]),
        ("name:", ["after `name:`"]),
        ("-", ["empty"]),
        ('""', ["empty"]),
        ('name:"x', ["not closed"]),
        ('name:a"b', ["quote"]),
        ('"a"b', ["quote"]),
        ('x "a", b', ["quote"]),
        ("a\0b", ["character"]),
        ("a\ud800b", ["character"]),
        ("a" * (MAX_VALUE + 1), [str(MAX_VALUE)]),
        ("a " * (MAX_TERMS + 1), [str(MAX_TERMS)]),
        ("a " * MAX_LENGTH, ["characters"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_is_known(text, said):
    with pytest.raises(InvalidRequest) as caught:
        parse(text)
    for part in said:
        assert part in caught.value.message


def test_of_jobs_only_some_words_can_be_asked():
    assert parse("state:failed model:m owner:me age:<1d job:01 name:x y", JOB_WORDS).terms[-1] == Term("text", "y")
    for word in set(WORDS) - set(JOB_WORDS):
        with pytest.raises(InvalidRequest, match=f"`{word}` cannot be asked here; what can is state, model"):
            parse(f"{word}:<1", JOB_WORDS)
    with pytest.raises(InvalidRequest, match="did you mean `owner`"):
        parse("onwer:me", JOB_WORDS)


def test_the_longest_query_can_be_printed_and_read_again():
    query = Query(tuple(Term("label", '"' * MAX_VALUE, negated=True) for _ in range(MAX_TERMS)))
    assert parse(str(query)) == query


def test_a_filter_may_be_added_as_a_term():
    assert Query().also("score", ">=0.5").also("model", "m:1") == parse("score:>=0.5 model:m:1")
    with pytest.raises(InvalidRequest):
        Query().also("model", "a b")
