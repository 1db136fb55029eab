"""What is tried again, for how long, and what a refusal becomes; a pipe that plays a script stands for the network."""

import json
from collections.abc import AsyncGenerator

import pytest

from onceseen import errors
from onceseen.client import retry
from onceseen.client.calls import Calls
from onceseen.client.pipes import Answer, Call, Lost, run
from onceseen.client.records import Stats
from onceseen.errors import KeyReused, NotFound, OnceseenError, ServerError, ServerUnreachable, TooBusy, UnknownModel


def problem(status, code="", detail="because", **headers):
    body = {"detail": detail, "code": code} if code else {"message": "nginx"}
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode())


OK = Answer(200, {}, b'{"a": 1}')
LOST = Lost("refused")


class Script:
    """Answers in turn, the last one for ever; sleeping is what makes time pass."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls: list[Call] = []
        self.slept: list[float] = []
        self.time = 1000.0

    async def send(self, call):
        self.calls.append(call)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Lost):
            raise answer
        return answer

    async def lines(self, call) -> AsyncGenerator[str | Answer, None]:
        self.calls.append(call)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Lost | Answer):
            if isinstance(answer, Lost):
                raise answer
            yield answer
            return
        for line in answer:
            if isinstance(line, Lost):
                raise line
            yield line

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds

    async def close(self):
        self.answers = [LOST]


@pytest.fixture
def calls(monkeypatch):
    def make(*answers, total=120.0, first=10.0):
        script = Script(*answers)
        monkeypatch.setattr(retry, "monotonic", lambda: script.time)
        return Calls(script, "http://there", total, first), script

    return make


def read(made):
    return run(made.read(dict[str, int], "GET", "/x"))


@pytest.mark.parametrize(
    "first",
    [
        LOST,
        problem(429, "too-busy"),
        problem(503, "database-away"),
        problem(502),
        problem(504),
        problem(408),
        problem(409, "key-in-flight", retry_after="0"),
    ],
)
def test_what_may_get_better_is_asked_again(calls, first):
    made, script = calls(first, first, first, OK)
    assert read(made) == {"a": 1}
    assert len(script.calls) == 4
    assert 0 < script.slept[0] <= 0.1
    assert script.slept[2] > script.slept[0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(400, "unknown-model"), UnknownModel),
        (problem(404, "not-found"), NotFound),
        (problem(409, "model-exists"), errors.ModelExists),
        (problem(413, "too-large"), errors.PayloadTooLarge),
        (problem(422, "idempotency-key-reused"), None),
        (problem(401, "unauthorised"), errors.Unauthorised),
        (problem(403, "forbidden"), errors.Forbidden),
        (problem(500, "internal-error"), ServerError),
        (problem(507, "storage-full"), errors.StorageFull),
        (problem(404), ServerError),
        (problem(301), ServerError),
        (problem(418, "of-a-newer-server"), ServerError),
    ],
)
def test_what_cannot_get_better_is_raised_at_once_with_the_servers_sentence(calls, answer, kind):
    made, script = calls(answer, OK)
    with pytest.raises(kind or OnceseenError) as caught:
        read(made)
    assert len(script.calls) == 1
    assert caught.value.status == answer.status
    document = json.loads(answer.content)
    if answer.status == 401:
        assert "ONCESEEN_API_KEY" in caught.value.message
    elif "code" in document:
        assert (caught.value.message, caught.value.code) == ("because", document["code"])
    else:
        assert str(answer.status) in caught.value.message


def test_an_error_of_one_call_leaves_the_kind_as_it_was():
    error = retry.problem(problem(418, "odd"), "http://there")
    assert (error.code, error.status) == ("odd", 418)
    assert (ServerError.code, ServerError.status) == ("server-error", 502)
    assert retry.KINDS[KeyReused.code] is KeyReused


def test_retry_after_is_waited_for_and_one_beyond_the_total_is_not(calls):
    made, script = calls(problem(429, "too-busy", retry_after="7"), OK)
    assert read(made) == {"a": 1}
    assert script.slept == [7.0]
    made, script = calls(problem(429, "too-busy", retry_after="500"), OK)
    with pytest.raises(TooBusy):
        read(made)
    assert script.slept == []


def test_it_ends_after_the_total_time_from_the_first_failure(calls):
    made, script = calls(OK, LOST, total=60.0)
    read(made)
    script.time += 1000  # a long upload: what counts is the time after its failure
    with pytest.raises(ServerUnreachable, match="http://there cannot be reached"):
        read(made)
    assert 50 < sum(script.slept) <= 60
    assert max(script.slept) <= retry.LONGEST


def test_a_server_that_never_answered_is_given_up_sooner(calls):
    made, script = calls(LOST, first=3.0)
    with pytest.raises(ServerUnreachable):
        read(made)
    assert sum(script.slept) <= 3.0


def test_a_deletion_that_is_repeated_and_finds_nothing_was_done(calls):
    made, script = calls(LOST, problem(404, "not-found"))
    run(made.remove("/v1/jobs/x"))
    assert [call.method for call in script.calls] == ["DELETE", "DELETE"]
    made, _ = calls(problem(404, "not-found"))
    with pytest.raises(NotFound):
        run(made.remove("/v1/jobs/x"))


def test_an_answer_that_is_not_onceseens_is_said(calls):
    made, _ = calls(Answer(200, {}, b"<html>"))
    with pytest.raises(ServerError, match="http://there"):
        run(made.read(Stats, "GET", "/v1/stats"))


def event(seq):
    return [f"id: {seq}", f'data: {{"seq": {seq}, "kind": "job.created", "subject": "a"}}', ""]


def test_events_go_on_after_the_last_one_that_came(calls):
    made, script = calls(
        ["retry: 1000", "", *event(4), *event(5), "id: 6", LOST],
        LOST,
        problem(503, "database-away", retry_after="1"),
        [": alive", "", "event: reset", "id: 9", "data: {}", "", *event(10)],
        problem(401, "unauthorised"),
    )
    found = []

    async def collect():
        async for each in made.events(3, "a"):
            found.append((each.seq, each.kind))  # noqa: PERF401  (what came before the error counts)

    with pytest.raises(errors.Unauthorised):
        run(collect())
    assert found == [(4, "job.created"), (5, "job.created"), (9, "reset"), (10, "job.created")]
    assert [call.query.get("after") for call in script.calls] == [3, 5, 5, 5, 10]
    assert all(call.query["job"] == "a" for call in script.calls)
