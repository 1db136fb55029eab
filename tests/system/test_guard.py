import re
import socket
import subprocess
from contextlib import contextmanager

import httpx2 as httpx
import pytest

from onceseen.settings import load
from onceseen.testing.pictures import picture
from onceseen.testing.running import RunningServer, command, environment

KEY = "a-long-random-key-for-tests"


# -- Host, Origin ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "[",
        "127.0.0.1x",
        "%00",
    ],
)
def test_a_host_name_that_is_not_ours_is_refused(server, host):
    for path in ("/", "/v1/jobs", "/healthz/live", "/static/home.js"):
        answer = server.http.get(path, headers={"host": host})
        assert answer.status_code in (400, 403), (path, answer.text)
        if answer.status_code == 403:
            assert answer.json()["code"] == "forbidden"
            assert "allowed_hosts" in answer.json()["detail"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000", "127.0.0.1.", "192.168.1.7:80", socket.gethostname()],
)
def test_names_of_this_machine_and_addresses_are_let_in(server, host):
    if host.endswith("."):
        host = "localhost."
    assert server.http.get("/v1/jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://localhost"},
        {"origin": "garbage"},
        {"origin": "http://[::1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
    ],
)
def test_a_page_of_another_site_may_change_nothing(server, headers):
    before = server.get("/v1/jobs", limit=1)["items"]
    for method, path in (
        ("POST", "/v1/jobs"),
        ("DELETE", "/v1/models/digits:1"),
        ("PUT", "/v1/models/defaults/v1?model=digits"),
    ):
        answer = server.http.request(method, path, content=picture(1), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert server.get("/v1/jobs", limit=1)["items"] == before
    assert server.get("/v1/models/digits:1")


def test_no_page_of_another_site_may_read_either(server):
    answer = server.http.get("/v1/jobs", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403
    preflight = server.http.options(
        "/v1/jobs", headers={"origin": "http://evil.example", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 403
    assert not [name for name in server.http.get("/v1/jobs").headers if name.startswith("access-control-")]


def test_our_own_pages_may_post(server):
    for headers in ({"origin": server.url}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {}):
        answer = server.http.post(
            "/v1/jobs?wait=20", content=picture(2), headers={"content-type": "image/png", **headers}
        )
        assert answer.status_code == 201
        assert answer.headers["location"]


def test_every_answer_has_the_headers_of_a_careful_server(server):
    for path in ("/", "/latest", "/v1/jobs", "/v1/nothing", "/static/home.js", "/openapi.json"):
        headers = server.http.get(path).headers
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert "server" not in headers
    policy = server.http.get("/").headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_names_on_the_home_page_are_text(server):
    server.submit(picture(3), wait=20, filename="<script>alert(1)</script>\"'.png")
    page = server.http.get("/").text + server.http.get("/latest").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


# -- the key -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked():
    """A server with a key."""
    with RunningServer(workers=0, settings={"ONCESEEN_API_KEY": KEY}) as running:
        yield running
        running.stop()


@pytest.fixture
def nobody(locked):
    """A client without the key."""
    with httpx.Client(base_url=locked.url, trust_env=False, timeout=20) as client:
        yield client


def test_every_route_needs_the_key_but_health(locked, nobody):
    routes = [
        (method, re.sub(r"{\w+}", "x", path))
        for path, methods in locked.get("/openapi.json")["paths"].items()
        for method in methods
    ]
    assert len(routes) > 20
    routes += [
        ("get", path)
        for path in (
            "/",
            "/latest",
            "/static/home.js",
            "/openapi.json",
            "/docs",
            "/nothing",
            "/healthz",
            "//healthz/live",
        )
    ]
    routes += [("post", "/v1/jobs"), ("post", "/v1/jobs?wait=1"), ("get", "/session"), ("post", "/healthz/../v1/jobs")]
    for method, path in routes:
        answer = nobody.request(method, path)
        if path.startswith("/healthz/") and ".." not in path:
            assert answer.status_code == 200, (method, path)
            continue
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "unauthorised"


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer x", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer \u00e9", f"Bearer {KEY[:-1]}"]
)
def test_a_wrong_key_opens_nothing(nobody, given):
    assert nobody.get("/v1/jobs", headers={"authorization": given.encode()}).status_code == 401


@pytest.mark.parametrize("given", [f"Bearer {KEY}", f"bearer {KEY}", f"Bearer  {KEY}"])
def test_the_key_opens_everything(nobody, given):
    assert nobody.get("/v1/jobs", headers={"authorization": given}).status_code == 200


def test_a_browser_is_asked_for_the_key_once(locked, nobody):
    asked = nobody.get("/", headers={"accept": "text/html"})
    assert asked.status_code == 401
    assert 'action="/session"' in asked.text
    assert "default-src 'none'" in asked.headers["content-security-policy"]
    assert nobody.get("/static/home.css").status_code == 200
    wrong = nobody.post("/session", data={"key": "wrong"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    right = nobody.post("/session", data={"key": KEY})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert KEY not in cookie
    assert nobody.get("/").status_code == 200  # the client keeps the cookie
    assert nobody.get("/v1/jobs").status_code == 200
    assert nobody.post("/session", data={"key": KEY}, headers={"origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize("cookie", ["x", '"\\351"', '"\\303\\251', "=", "", ";" * 100, "a b", "a,b"])
def test_a_wrong_cookie_opens_nothing(nobody, cookie):
    assert nobody.get("/v1/jobs", headers={"cookie": f"onceseen_session={cookie}"}).status_code == 401


# -- settings ----------------------------------------------------------------------------------------------------------------


@contextmanager
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield door.getsockname()[1]


REFUSALS = [
    (["--host", "0.0.0.0"], {}, ("ONCESEEN_API_KEY", "--host 127.0.0.1")),
    (["--host", "::"], {}, ("ONCESEEN_API_KEY",)),
    ([], {"ONCESEEN_HOST": "192.0.2.1"}, ("ONCESEEN_API_KEY",)),
    ([], {"ONCESEEN_PROT": "9000"}, ("ONCESEEN_PROT", "ONCESEEN_PORT")),
    ([], {"ONCESEEN_MAX_DEATHS": "many"}, ("max_deaths", "many")),
    (["--port", "70000"], {}, ("port", "70000")),
    (["--data", "other"], {"ONCESEEN_MAX_ITEMS": "-1"}, ("max_items", "-1")),
    (["--database", "postgresql://db/x"], {}, ("database", "postgresql", "not built yet")),
    (["--blobs", "s3://bucket"], {}, ("blobs", "s3", "not built yet")),
    (["--signal", "redis://x"], {}, ("signal", "redis", "not built yet")),
    ([], {"ONCESEEN_MAX_PIXELS": "0"}, ("max_pixels",)),
    ([], {"ONCESEEN_LEASE_SECONDS": "0.1"}, ("lease_seconds",)),
    (["--config", "nowhere.toml"], {}, ("nowhere.toml",)),
    (["--data", "/dev/null/x"], {}, ("/dev/null/x", "--data")),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "settings", "says"), REFUSALS)
def test_wrong_settings_refuse_to_start_and_name_the_cure(onceseen, flags, settings, says):
    done = onceseen("server", "--data", "data", "--port", "0", *flags, **settings)
    assert done.returncode == 2, done.stderr
    for word in says:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", ("prot", "port")),
        ("port = 'many'", ("port",)),
        ("port = ", ("onceseen.toml",)),
        ("[server]\nport = 1", ("server",)),
        ("host = '0.0.0.0'", ("ONCESEEN_API_KEY",)),
    ],
)
def test_a_wrong_settings_file_refuses_to_start(onceseen, tmp_path, text, says):
    (tmp_path / "onceseen.toml").write_text(text)
    done = onceseen("up", "--data", "data")
    assert done.returncode == 2, done.stderr
    for word in says:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_flag_goes_before_the_environment_before_the_file(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('port = 1111\nmax_items = 11\nmax_deaths = 2\nallowed_hosts = ["File.example"]')
    code = "import sys; from pathlib import Path; from onceseen.settings import load; s = load(Path(sys.argv[1]), port=3333); "
    code += "print(s.port, s.max_items, s.max_deaths, s.archive_ratio, *s.allowed_hosts)"
    settings = {"ONCESEEN_PORT": "2222", "ONCESEEN_MAX_ITEMS": "22", "ONCESEEN_ALLOWED_HOSTS": "a.example, B.example"}
    env = environment(**settings)
    command_line = [command()[0], "-c", code, str(file)]
    done = subprocess.run(command_line, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3333", "22", "2", "200.0", "a.example", "b.example"]
    assert load(file).allowed_hosts == ("file.example",)


def test_a_settings_file_can_be_named_and_allows_hosts(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('allowed_hosts = ["images.example"]\nmax_items = 2\n')
    with RunningServer(
        workers=0, verb="server", flags=["--config", str(file)], settings={"ONCESEEN_MAX_ITEMS": "3"}
    ) as running:
        assert running.http.get("/v1/jobs", headers={"host": "images.example:80"}).status_code == 200
        images = [(f"{n}", picture(n)) for n in range(4)]
        assert running.submit(images[:3], model="digits")["total"] == 3
        files = [("images", image) for image in images]
        assert running.http.post("/v1/jobs?model=digits", files=files).status_code == 413
        running.stop()


@pytest.mark.parametrize("verb", ["up", "server"])
def test_a_port_in_use_is_refused_with_the_cure(onceseen, verb):
    with taken_port() as port:
        done = onceseen(verb, "--data", "data", "--port", port)
    assert done.returncode == 2
    assert str(port) in done.stderr
    assert "--port 0" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_server_on_one_directory_is_refused_with_the_address_of_the_first(onceseen, server):
    done = onceseen("server", "--data", server.data, "--port", "0")
    assert done.returncode == 2, (done.stderr, server.processes(), server.log())
    assert server.url in done.stderr
    assert "--data" in done.stderr
    assert server.get("/healthz/ready")["workers"] == 2
