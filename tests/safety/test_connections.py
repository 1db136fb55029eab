"""What comes over a connection and is no honest request: too slow, too much, not HTTP, or two things at once."""

import contextlib
import json
import os
import signal
import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from onceseen.bench.procfs import pss_mb
from onceseen.server.http import KEPT_BODY, MAX_HEAD, MAX_HEADERS, MAX_URL
from onceseen.testing.asking import problem, raw
from onceseen.testing.pictures import picture
from onceseen.testing.running import eventually

READ_TIMEOUT = 1.5
HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
GET = b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connected(server, timeout=15.0):
    place = urlsplit(server.url)
    return socket.create_connection((place.hostname, place.port), timeout=timeout)


def answer_of(connection):
    """Status and problem document, or status and text, until the other side closes."""
    found = b""
    while part := connection.recv(65536):
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), found
    return int(head.split()[1]), json.loads(body) if b"problem+json" in head else body


def status_of(connection):
    """Status of the next answer of a connection that goes on."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(65536)
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1])


def statuses(found):
    return [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:]]


# -- slow --------------------------------------------------------------------------------------------------------------


def trickle(connection, data, every=0.2):
    """Send bytes one by one until the other side has had enough; how long it had patience."""
    began = time.monotonic()
    connection.settimeout(0.01)
    for place in range(len(data)):
        try:
            connection.sendall(data[place : place + 1])
        except OSError:
            break
        try:
            if connection.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            pass
        time.sleep(every)
    connection.settimeout(5)
    return time.monotonic() - began


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET / HT",
        HEAD,
        HEAD + b"Content-Length: 10000\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n",
    ],
)
def test_who_stops_sending_is_told_so_and_let_go(server, start):
    with connected(server) as connection:
        began = time.monotonic()
        connection.sendall(start)
        status, document = answer_of(connection)
        assert (status, document["code"]) == (408, "too-slow")
        assert READ_TIMEOUT * 0.9 < time.monotonic() - began < READ_TIMEOUT + 3


@pytest.mark.parametrize("start", [b"", HEAD + b"Content-Length: 10000\r\n\r\n"])
def test_who_sends_one_byte_after_another_is_let_go_as_well(server, start):
    with connected(server) as connection:
        connection.sendall(start)
        assert trickle(connection, HEAD * 2 if not start else bytes(10_000)) < READ_TIMEOUT + 3
        assert answer_of(connection)[0] == 408


def test_two_hundred_slow_clients_do_not_stop_the_others(server):
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(server)) for _ in range(200)]
        for number, connection in enumerate(slow):
            connection.sendall(HEAD[: number % 30 + 1] if number % 2 else HEAD + b"Content-Length: 5000\r\n\r\nx")
        for number in range(5):
            began = time.monotonic()
            assert server.submit(picture(number + 7000), wait=20)["succeeded"] == 1
            assert time.monotonic() - began < 3
        assert {answer_of(connection)[0] for connection in slow} == {408}


def test_a_connection_between_two_requests_may_rest(server):
    with connected(server) as connection:
        for _ in range(2):
            connection.sendall(GET)
            assert status_of(connection) == 200
            time.sleep(READ_TIMEOUT + 1)


def test_a_blank_line_between_two_requests_is_no_way_to_stay_for_ever(server):
    with connected(server) as connection:
        connection.sendall(GET)
        assert status_of(connection) == 200
        connection.sendall(b"\r\n")
        assert answer_of(connection)[0] == 408


def test_a_server_that_was_frozen_blames_no_client(server):
    with connected(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 5000\r\n\r\nxx")
        time.sleep(0.3)
        os.kill(server.server_pid, signal.SIGSTOP)
        try:
            time.sleep(READ_TIMEOUT + 1.5)
        finally:
            os.kill(server.server_pid, signal.SIGCONT)
        time.sleep(0.7)  # it has looked at its connections since
        connection.sendall(bytes(4998))
        assert status_of(connection) == 201


# -- much --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * MAX_URL), 414, "url-too-long"),
        (b"GET /?q=%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 5_000_000), 414, "url-too-long"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"x" * MAX_HEAD), 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"x" * 5_000_000), 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * MAX_HEADERS + b"\r\n", 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 500_000, 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n%s: y\r\n\r\n" % (b"x" * 5_000_000), 431, "head-too-large"),
    ],
)
def test_a_head_of_any_size_is_refused_early(server, head, status, code):
    with connected(server) as connection:
        with contextlib.suppress(OSError):  # it does not listen to the end
            connection.sendall(head)
        found, document = answer_of(connection)
        assert (found, document["code"]) == (status, code)


def test_a_url_and_a_head_just_below_the_limits_are_read(server):
    path = b"/healthz/live?" + b"x" * (MAX_URL - 20)
    data = b"GET %s HTTP/1.1\r\nHost: localhost\r\nX: %s\r\nConnection: close\r\n\r\n" % (path, b"x" * (MAX_HEAD // 2))
    assert statuses(raw(server, data)) == [200]


class Endless:
    """A body that never ends, and counts how much of it was taken."""

    def __init__(self, part=b"x" * 100_000, most=4_000_000_000):
        self.sent, self._part, self._most = 0, part, most

    def __iter__(self):
        while self.sent < self._most:
            self.sent += len(self._part)
            yield self._part


def refused(server, body, headers, path="/v1/jobs"):
    """(status, code) of an upload that is refused while it is being sent."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        answer = client.post(path, content=body, headers=headers)
    return answer.status_code, answer.json()["code"]


def test_an_image_of_two_gigabytes_is_refused_by_its_length(server):
    began, body = time.monotonic(), Endless(most=2_000_000_000)
    headers = {"content-type": "image/png", "content-length": "2000000000"}
    assert refused(server, body, headers) == (413, "too-large")
    assert body.sent < 200_000_000
    assert time.monotonic() - began < 10


def test_an_endless_image_is_refused_at_its_limit_and_read_no_further(server):
    for _ in range(3):
        body = Endless()
        assert refused(server, body, {"content-type": "image/png"}) == (413, "too-large")
        assert body.sent < 256_000_000 + 200_000_000
        eventually(lambda: (pss_mb([server.server_pid]) or 0) < 400)  # two bodies that stay would be more


@pytest.mark.parametrize(
    "path", ["/v1/models/colours:1/promote", "/v1/nothing", "/v1/jobs?model=nobody", "/v1/jobs?x=1"]
)
def test_a_body_that_nobody_asked_for_is_not_read_to_its_end(server, path):
    began, body = time.monotonic(), Endless()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        answer = client.post(path, content=body, headers={"content-type": "image/png"})
    assert answer.status_code in (200, 400, 404)
    assert answer.headers["connection"] == "close"
    assert body.sent < 300_000_000
    assert time.monotonic() - began < 10


def test_a_refused_body_of_ordinary_size_leaves_the_connection_open(server):
    with connected(server) as connection:
        for _ in range(3):
            connection.sendall(
                b"POST /v1/jobs?x=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % KEPT_BODY
            )
            time.sleep(0.1)
            connection.sendall(bytes(KEPT_BODY))
            assert status_of(connection) == 400
        connection.sendall(GET)
        assert status_of(connection) == 200


def test_a_client_that_asks_before_it_sends_is_refused_before_it_sends(server):
    head = HEAD + b"Content-Length: 2000000000\r\nExpect: 100-continue\r\n\r\n"
    with connected(server) as connection:
        connection.sendall(head)
        status, document = answer_of(connection)
        assert (status, document["code"]) == (413, "too-large")


# -- not HTTP, or two things at once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n folded\x00\r\n\r\n",
        b"G\xc3\xa9T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1e3\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxx",
        HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nxxxxx",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nxxxxxGET /",
    ],
)  # fmt: skip
def test_what_is_no_clean_http_is_refused_once_and_the_connection_ends(server, data):
    found = raw(server, data + GET, read_for=READ_TIMEOUT + 4)
    assert len(statuses(found)) <= 1  # never an answer to what was hidden behind it
    assert not statuses(found) or 400 <= statuses(found)[0] < 500, found


def test_two_hosts_are_none(server):
    assert statuses(raw(server, GET.replace(b"\r\n\r\n", b"\r\nHost: evil.example\r\nConnection: close\r\n\r\n"))) == [
        403
    ]
    assert statuses(raw(server, b"GET /healthz/live HTTP/1.1\r\nConnection: close\r\n\r\n")) == [403]


def test_requests_may_come_before_their_answers_and_garbage_ends_the_row(server):
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert statuses(raw(server, GET * 49 + last, read_for=10)) == [200] * 50
    assert statuses(raw(server, GET * 3 + b"garbage\r\n\r\n" + GET, read_for=5)) in (
        [200, 200, 200],
        [200, 200, 200, 400],
    )


def test_an_old_client_gets_one_answer(server):
    found = raw(server, b"GET /healthz/live HTTP/1.0\r\nHost: localhost\r\n\r\n", read_for=5)
    assert statuses(found) == [200]
    assert b"connection: close" in found


def test_a_client_that_hangs_up_half_way_leaves_nothing_behind(server):
    before = server.get("/v1/jobs", limit=1)["items"]
    for data in (
        HEAD + b"Content-Length: 5000\r\n\r\nxx",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nxxxxx\r\n",
        b"GET /",
    ):
        with connected(server) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert server.get("/v1/jobs", limit=1)["items"] == before


def test_a_client_that_wants_another_protocol_is_answered_in_this_one(server):
    ask = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    for upgrade in (ask, b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"):
        with connected(server) as connection:
            connection.sendall(GET.replace(b"\r\n\r\n", b"\r\n") + upgrade)
            assert status_of(connection) == 200


def test_an_answer_that_nobody_takes_is_not_kept(server):
    """A picture of 30 MB, asked for twenty times by somebody who does not read."""
    digest = server.submit([("big.bin", b"no image" + bytes(30_000_000))], wait=20)["items"][0]["digest"]
    before = pss_mb([server.server_pid])
    with ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(connected(server))
            connection.sendall(GET.replace(b"/healthz/live", f"/v1/images/{digest}/content".encode()))
        assert server.submit(picture(7100), wait=20)["succeeded"] == 1
    eventually(lambda: pss_mb([server.server_pid]) < before + 100, timeout=15)


def test_problem_documents_are_whole(server):
    answer = server.http.get("/healthz/live", headers={f"x-{n}": "y" for n in range(MAX_HEADERS)})
    assert "100" in problem(answer, 431, "head-too-large")
