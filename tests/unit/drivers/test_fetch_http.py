"""Nothing is sent to an address that was not checked, and nothing but a bare GET; a resolver and a connector that record."""

import asyncio
import shutil
import socket
import ssl
import subprocess

import httpcore2
import pytest

from onceseen.domain.addresses import Allowance
from onceseen.drivers.fetch_http import CONNECT_SECONDS, FetchHttp, Limits, lookup
from onceseen.errors import FetchFailed, FetchRefused, TooLarge
from onceseen.ports.fetcher import FetchLater
from onceseen.testing.image_server import image_server
from onceseen.testing.pictures import picture

PUBLIC = "93.184.216.34"


class Connector(httpcore2.AsyncNetworkBackend):
    """Records where somebody wants to go. Goes to loopback alone: to `port`, whatever the address, when it is given."""

    def __init__(self, port=None):
        self.asked = []
        self._port = port

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.asked.append((host, port))
        if self._port is None:
            raise httpcore2.ConnectError("recorded")
        return await httpcore2.AnyIOBackend().connect_tcp("127.0.0.1", self._port, timeout)


class Names:
    """A resolver: each name's answers, one after another, the last one for ever."""

    def __init__(self, **answers):
        self._answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        answers = self._answers.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]


def fetch(url, names=None, connector=None, allow=(), tls=None, **limits):
    """One fetch by a fetcher of its own."""

    async def run():
        fetcher = FetchHttp(Allowance(allow), Limits(**limits), names or Names(), connector or Connector(), tls)
        try:
            return await fetcher.fetch(url)
        finally:
            await fetcher.close()

    return asyncio.run(run())


def fetch_from(server, path, **more):
    """From a server on loopback, which is allowed, by the system's own connections."""
    more.setdefault("allow", ["127.0.0.1"])
    return fetch(server.url + path, connector=httpcore2.AnyIOBackend(), **more)


@pytest.fixture(scope="module")
def server():
    with image_server() as running:
        yield running


# -- where nobody may go -------------------------------------------------------------------------------------------------

TRICKS = [
    *("http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.0.0.1/"),
    *("http://0177.0.0.1/", "http://017700000001/", "http://127.0.0.1./", "http://0/", "http://0.0.0.0/"),
    *("http://10.0.0.1/", "http://192.168.0.1/", "http://172.16.0.1/", "http://100.64.0.1/", "http://224.0.0.1/"),
    *("http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://0xa9fea9fe/", "http://168.63.129.16/"),
    *("http://[::1]/", "http://[::]/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/"),
    *("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/", "http://[64:ff9b::7f00:1]/"),
    *(
        "http://[2002:7f00:1::]/",
        "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
        "http://[fd00:ec2::254]/",
        "http://[ff02::1]/",
    ),
    *(
        "http://user@pictures.test/",
        "http://user:secret@pictures.test/",
        "http://pictures.test@10.0.0.1/",
        "http://@pictures.test/",
    ),
    *("http://10.0.0.1\\@pictures.test/", "http://pictures.test\\.evil.test/", "http://a@b@pictures.test/"),
    *("http://pictures.test:22/", "http://pictures.test:25/", "http://pictures.test:0/", "http://pictures.test:99999/"),
    *("http://pictures.test:-1/", "http://pictures.test:80@10.0.0.1/", "http://pictures.test:x/"),
    *(
        "ftp://pictures.test/",
        "file:///etc/passwd",
        "gopher://pictures.test/",
        "javascript:alert(1)",
        "data:image/png;base64,AA==",
    ),
    *("//pictures.test/", "pictures.test/a.png", "/a.png", "", " ", "http:", "http://", "http:///a", "https://:443/"),
    *(
        "http://pictures.test/\r\nHost: 10.0.0.1",
        "http://pictures.test\x00.evil/",
        "http://[::1",
        "http://]/",
        "http://\ud800/",
    ),
    *(
        "http://%31%32%37.0.0.1/",
        "http://127.0.0.1%00.pictures.test/",
        "http://exa mple.test/",
        "http://a..b/",
        "\u202ehttp://x/",
    ),
    "http://pictures.test/" + "x" * 8000,
]


@pytest.mark.parametrize("url", TRICKS)
def test_a_url_of_a_bad_form_is_refused_before_anybody_is_asked(url):
    names, connector = Names(pictures_test=[[PUBLIC]]), Connector()
    with pytest.raises(FetchRefused) as refused:
        fetch(url, names, connector)
    assert (names.asked, connector.asked) == ([], [])
    assert "secret" not in refused.value.message
    with pytest.raises(FetchRefused):
        FetchHttp(Allowance(), Limits()).check(url)


@pytest.mark.parametrize("url", ["http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://localhost。/"])
def test_letters_that_look_like_an_address_lead_nowhere(url):
    names, connector = Names(localhost=[["127.0.0.1"]]), Connector()
    with pytest.raises((FetchRefused, FetchFailed)):
        fetch(url, names, connector)
    assert connector.asked == []


INSIDE = ["127.0.0.1", "10.0.0.5", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "169.254.169.254"]


@pytest.mark.parametrize("found", [*([address] for address in INSIDE), [PUBLIC, "10.0.0.5"]])
def test_a_name_that_leads_to_a_private_address_is_refused(found):
    names, connector = Names(pictures_test=[found]), Connector()
    with pytest.raises(FetchRefused, match=r"pictures\.test leads to .*fetch_allow"):
        fetch("http://pictures.test/a.png", names, connector)
    assert connector.asked == []


def test_the_connection_goes_to_the_very_address_that_was_checked():
    names, connector = Names(pictures_test=[[PUBLIC], ["127.0.0.1"]]), Connector()
    with pytest.raises(FetchLater):
        fetch("http://pictures.test:8080/a.png", names, connector)
    assert names.asked == ["pictures.test"]  # once: what a second lookup says cannot win
    assert connector.asked == [(PUBLIC, 8080)]


def test_the_other_addresses_of_a_host_are_tried():
    names, connector = Names(pictures_test=[["2606:2800:220:1::1", PUBLIC]]), Connector()
    with pytest.raises(FetchLater):
        fetch("https://pictures.test/a.png", names, connector)
    assert connector.asked == [("2606:2800:220:1::1", 443), (PUBLIC, 443)]


@pytest.mark.parametrize(
    "target",
    [
        *("http://127.0.0.1/", "http://10.0.0.1/a.png", "http://[::1]/", "http://2130706433/", "file:///etc/passwd"),
        *(
            "http://inside.test/a.png",
            "//inside.test/a.png",
            "http://user:pw@pictures.test/",
            "http://pictures.test:22/",
        ),
    ],
)
def test_each_redirect_is_checked_like_the_first_url(server, target):
    names = Names(pictures_test=[[PUBLIC]], inside_test=[["10.0.0.5"]])
    connector = Connector(server.server_port)
    with pytest.raises(FetchRefused):
        fetch(f"http://pictures.test/to/{target}", names, connector)
    assert connector.asked == [(PUBLIC, 80)]


def test_a_name_that_changes_between_redirects_is_checked_anew(server):
    names = Names(first_test=[[PUBLIC]], pictures_test=[[PUBLIC], ["127.0.0.1"]])
    connector = Connector(server.server_port)
    with pytest.raises(FetchRefused, match="leads to 127"):
        fetch("http://pictures.test/to/http://first.test/to/https://pictures.test/", names, connector)
    assert len(connector.asked) == 2


def test_what_the_owner_allows_is_fetched(server):
    assert fetch_from(server, "/5.png") == picture(5)
    assert fetch_from(server, "/5.png", allow=["127.0.0.0/8"]) == picture(5)
    names = Names(inside_test=[["127.0.0.1"]])
    url = f"http://inside.test:{server.server_port}/6.png"
    assert fetch(url, names, httpcore2.AnyIOBackend(), allow=["inside.test"]) == picture(6)
    with pytest.raises(FetchRefused):
        fetch_from(server, "/5.png", allow=["10.0.0.0/8", "localhost"])


# -- what is sent ----------------------------------------------------------------------------------------------------------


def test_the_host_keeps_its_name_and_nothing_else_is_told(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.heads.clear()
    connector = Connector(server.server_port)
    names = Names(pictures_test=[[PUBLIC]], other_test=[[PUBLIC]])
    assert fetch("http://pictures.test/to/http://other.test:8080/7.png#x", names, connector) == picture(7)
    assert [head["host"] for head in server.heads] == ["pictures.test", "other.test:8080"]
    assert {name for head in server.heads for name in head} == {"host", "accept", "accept-encoding", "user-agent"}
    assert connector.asked == [(PUBLIC, 80), (PUBLIC, 8080)]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of pictures.test that nobody but the test trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    place = tmp_path_factory.mktemp("tls")
    key, certificate = place / "key.pem", place / "certificate.pem"
    subject = ["-subj", "/CN=pictures.test", "-addext", "subjectAltName=DNS:pictures.test"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *subject]
    subprocess.run([*made, "-keyout", key, "-out", certificate, "-days", "2"], check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def safe_server(certificate):
    def secure(server):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        context.sni_callback = lambda _socket, name, _context: server.names.append(name)
        server.names = []
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)

    with image_server(secure) as running:
        yield running


def test_tls_is_asked_for_by_name_at_the_checked_address(safe_server, certificate):
    trusting = ssl.create_default_context(cafile=certificate[0])
    names, connector = Names(pictures_test=[[PUBLIC]]), Connector(safe_server.server_port)
    assert fetch("https://pictures.test/8.png", names, connector, tls=trusting) == picture(8)
    assert connector.asked == [(PUBLIC, 443)]
    assert safe_server.names == ["pictures.test"]


def test_a_certificate_that_is_not_to_be_trusted_is_final(safe_server, certificate):
    names = Names(pictures_test=[[PUBLIC]], other_test=[[PUBLIC]])
    with pytest.raises(FetchFailed, match="certificate") as failed:
        fetch("https://pictures.test/8.png", names, Connector(safe_server.server_port))
    assert not isinstance(failed.value, FetchLater)
    trusting = ssl.create_default_context(cafile=certificate[0])
    with pytest.raises(FetchFailed, match="certificate"):
        fetch("https://other.test/8.png", names, Connector(safe_server.server_port), tls=trusting)


# -- what comes back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/to/9.png", "/to//to//9.png", "/gzip/9.png", "/9.png?a=b&c=%20#part"])
def test_a_picture_comes_as_it_is(server, path):
    path = path.replace("/to/9", "/to//9")
    assert fetch_from(server, path) == picture(9)


@pytest.mark.parametrize(
    "path", ["/status/404", "/status/403", "/status/410", "/status/302", "/status/204", "/html", "/empty", "/loop"]
)
def test_what_will_not_pass_fails_at_once(server, path):
    with pytest.raises(FetchFailed) as failed:
        fetch_from(server, path)
    assert not isinstance(failed.value, FetchLater)
    assert failed.value.code == "fetch-failed"


@pytest.mark.parametrize("path", ["/status/500", "/status/503", "/status/429", "/status/408", "/cut"])
def test_what_may_pass_says_so(server, path):
    with pytest.raises(FetchLater):
        fetch_from(server, path)


def test_a_server_says_when_to_come_back(server, monkeypatch):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 Slow\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def run():
        listening = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        fetcher = FetchHttp(Allowance(["127.0.0.1"]), Limits())
        async with listening:
            with pytest.raises(FetchLater) as later:
                await fetcher.fetch(f"http://127.0.0.1:{port}/")
            await fetcher.close()
        return later.value.after

    assert asyncio.run(run()) == 17


def test_nobody_there_may_pass():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(FetchLater, match=r"127\.0\.0\.1 cannot be connected"):
        fetch(f"http://127.0.0.1:{port}/", connector=httpcore2.AnyIOBackend(), allow=["127.0.0.1"])


def test_a_name_that_is_none_is_final_and_one_that_cannot_be_looked_up_is_not():
    with pytest.raises(FetchFailed) as failed:
        fetch("http://nowhere.test/")
    assert not isinstance(failed.value, FetchLater)

    async def away(_host, _port):
        raise socket.gaierror(socket.EAI_AGAIN, "away")

    with pytest.raises(FetchLater):
        fetch("http://nowhere.test/", away)


@pytest.mark.parametrize("path", ["/huge", "/endless", "/bomb"])
def test_no_more_is_read_than_an_image_may_have(server, path):
    with pytest.raises(TooLarge):
        fetch_from(server, path, max_bytes=9_000_000)
    with pytest.raises(TooLarge):
        fetch_from(server, path, max_bytes=50_000)


def test_the_time_is_of_the_whole(server):
    with pytest.raises(FetchLater, match=r"within 0\.3 seconds"):
        fetch_from(server, "/slow/9.png", seconds=0.3)


@pytest.mark.parametrize(("redirects", "good"), [(2, True), (1, False)])
def test_redirects_are_counted(server, redirects, good):
    path = f"/to/{server.url}/to/{server.url}/10.png"
    if good:
        assert fetch_from(server, path, redirects=redirects) == picture(10)
    else:
        with pytest.raises(FetchFailed, match="more than 1 times"):
            fetch_from(server, path, redirects=redirects)


def test_large_images_wait_for_each_other_and_the_clock_stands_still(server):
    """Two that send without end share room for one; the second has not even begun to count when the first has failed."""

    async def run():
        fetcher = FetchHttp(Allowance(["127.0.0.1"]), Limits(max_bytes=40_000_000, seconds=5))
        try:
            urls = [f"{server.url}/endless"] * 3 + [f"{server.url}/11.png"]
            return await asyncio.gather(*map(fetcher.fetch, urls), return_exceptions=True)
        finally:
            await fetcher.close()

    *endless, small = asyncio.run(run())
    assert [type(error) for error in endless] == [TooLarge] * 3
    assert small == picture(11)


def test_the_systems_resolver_is_asked_in_a_thread_of_its_own():
    async def run():
        assert await lookup("127.0.0.1", 80) == ["127.0.0.1"]
        with pytest.raises(OSError, match=r"."):
            await lookup("x" * 300, 80)
        waiting = asyncio.create_task(lookup("localhost", 80))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())
    assert Limits().seconds > CONNECT_SECONDS
