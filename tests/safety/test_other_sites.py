"""A page of another site, in a real browser, against a server on this machine without a key."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from onceseen.testing.browser import Browser
from onceseen.testing.pictures import picture
from onceseen.testing.running import eventually

FORM = """<form method="post" enctype="{kind}" action="{url}/v1/jobs?model=colours&name=evil">
<input name="images" value="GIF89a"><input name="key" value="x"></form>"""
POSTS = """Promise.all([
  fetch("{url}/v1/jobs?name=evil", {{method: "POST", mode: "no-cors", body: "GIF89a"}}),
  fetch("{url}/v1/jobs?name=evil", {{method: "POST", mode: "no-cors", body: new FormData()}}),
  fetch("{url}/v1/jobs?name=evil", {{method: "POST", mode: "no-cors", credentials: "include", body: new Blob(["x"])}}),
  fetch("{url}/v1/dead-letters/purge", {{method: "POST", mode: "no-cors", body: "{{}}"}}),
  fetch("{url}/v1/models/digits:1", {{method: "DELETE"}}).catch(() => 0),
  fetch("{url}/v1/models/defaults/v1?model=digits", {{method: "PUT"}}).catch(() => 0),
]).then(() => navigator.sendBeacon("{url}/v1/jobs?name=evil", "GIF89a"))"""
READ = """fetch("{url}/v1/jobs").then((answer) => answer.text()).catch(() => "kept from us")"""
IMAGES = """Promise.all(["/v1/jobs", "/latest", "/v1/jobs?model=colours&wait=1", "/metrics"].map((path) =>
  new Promise((done) => {{ const image = new Image(); image.onload = image.onerror = done; image.src = "{url}" + path; }})))"""


SITES = [("127.0.0.1", "localhost"), ("localhost", "localhost"), ("evil.example", "127.0.0.1")]


@pytest.fixture(scope="module")
def evil():
    """Another site on this machine; what it serves is in `pages`."""
    pages = {"/": "<!doctype html><title>evil</title>"}

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            body = pages.get(self.path, "").encode()
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield site.server_port, pages
        site.shutdown()


@pytest.fixture(scope="module")
def browser(server):
    names = "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP images.evil.example 127.0.0.1"
    with Browser(more=[names]) as running:
        yield running


def state(server):
    """Everything that another site might want to change."""
    models = [[model[key] for key in ("name", "version", "stage")] for model in server.get("/v1/models")["items"]]
    return server.get("/v1/jobs", limit=100)["items"], models, server.get("/v1/models/defaults")


@pytest.mark.parametrize("kind", ["multipart/form-data", "text/plain", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize(
    ("site", "target"), [("127.0.0.1", "localhost"), ("localhost", "localhost"), ("evil.example", "127.0.0.1")]
)
def test_a_form_of_another_site_posts_nothing(server, evil, browser, site, target, kind):
    port, pages = evil
    url = f"http://{target}:{urlsplit(server.url).port}"
    pages["/form"] = FORM.format(kind=kind, url=url)
    before = state(server)
    browser.open(f"http://{site}:{port}/form")
    browser.run("document.forms[0].submit()")
    text = eventually(
        lambda: browser.run("location.pathname == '/v1/jobs' && document.body && document.body.innerText")
    )
    assert '"code":"forbidden"' in text.replace(" ", "")
    assert state(server) == before


@pytest.mark.parametrize(
    ("site", "target"), [("127.0.0.1", "localhost"), ("localhost", "localhost"), ("evil.example", "127.0.0.1")]
)
def test_a_script_of_another_site_changes_and_reads_nothing(server, evil, browser, site, target):
    url = f"http://{target}:{urlsplit(server.url).port}"
    before = state(server)
    browser.open(f"http://{site}:{evil[0]}/")
    browser.run(POSTS.format(url=url))
    browser.run(IMAGES.format(url=url))
    assert browser.run(READ.format(url=url)) == "kept from us"
    server.submit(picture(8800), wait=20)  # whatever they sent has arrived before
    assert state(server)[1:] == before[1:]
    assert not [job for job in state(server)[0] if job["name"] == "evil"]


def test_a_name_that_is_bound_to_this_machine_later_opens_nothing(server, browser):
    browser.open(f"http://images.evil.example:{urlsplit(server.url).port}/")
    text = browser.run("document.body.innerText")
    assert "allowed_hosts" in text
    answer = browser.run("fetch('/v1/jobs').then((answer) => answer.status)")
    assert answer == 403


@pytest.mark.parametrize(
    "data",
    [
        b"<!doctype html><title>x</title><script>document.title = 'run'; fetch('/v1/jobs')</script>",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>document.title = "run"</script></svg>',
        b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><script>document.title="run"</script></html>',
        b"GIF89a/*<script>document.title = 'run'</script>*/=1;",
        b"%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>",
    ],
)
def test_what_was_stored_is_shown_and_never_run(server, browser, data):
    item = server.submit([("page.html", data)], wait=20)["items"][0]
    path = f"/v1/images/{item['digest']}/content"
    answer = server.http.get(path)
    assert answer.content == data
    assert answer.headers["content-type"].partition(";")[0] in ("text/plain", "application/octet-stream")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    if answer.headers["content-type"].startswith("text/plain"):
        browser.open(server.url + path)
        assert browser.run("document.title") != "run"
        assert browser.run("document.body.innerText").strip()[:6] == data.decode()[:6]
        assert browser.run("document.scripts.length") == 0


def test_our_own_page_still_posts(server, browser):
    browser.open(f"{server.url}/")
    script = "fetch('/v1/jobs?model=colours', {method: 'POST', body: 'GIF89a', headers: {'content-type': 'image/gif'}})"
    assert browser.run(f"{script}.then((answer) => answer.status)") == 201
