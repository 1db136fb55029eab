"""The dialect `forms`: plain pages, and clients that fill in forms without one."""

import re
import socket
import subprocess
from hashlib import sha256
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

from onceseen.bundled import samples
from onceseen.testing.asking import form, post, problem
from onceseen.testing.browser import Browser
from onceseen.testing.pictures import colour_model, flat, picture
from onceseen.testing.running import RunningServer, command, environment, eventually

NASTY = "<script>alert(1)</script>&lt;'\u202e.png"
SEVEN = next(file for file in samples()["digits"] if file.name.startswith("7"))
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


OPEN = {"meta", "link", "img", "input"}  # these need no end


class Page(HTMLParser):
    """What stands on a page: its text, and each tag with its attributes; a tag that is not closed fails."""

    def __init__(self, text):
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in OPEN:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def send(server, path, *files, field=None, status=200, **headers):
    """The page, after redirects, that answers files (name, bytes) in the form of a path."""
    field = field or {"/predict": "photo", "/upload": "file"}[path.partition("?")[0]]
    parts = [(field, each) for each in files]
    answer = server.http.post(path, files=parts, headers={**BROWSER, **headers}, follow_redirects=True)
    assert answer.status_code == status, answer.text
    return page(answer)


def page(answer):
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    found = Page(answer.text)
    assert found.all("script") == []
    assert not any(name.startswith("on") or name == "style" for _, given in found.tags for name in given)
    assert all(image.get("alt") is not None for image in found.all("img"))
    return found


# -- the pages ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "field"), [("/upload", "file"), ("/predict", "photo")])
def test_a_form_has_its_field_with_a_label_and_says_which_model_answers(server, path, field):
    shown = page(server.http.get(path))
    (entry,) = shown.all("input")
    assert (entry["type"], entry["name"], "multiple" in entry) == ("file", field, True)
    assert {"for": entry["id"]} in shown.all("label")
    (sent,) = shown.all("form")
    assert sent == {"class": "ask", "method": "post", "action": path, "enctype": "multipart/form-data"}
    assert "The model digits:1 answers" in shown.text
    assert {"href": f"{path}?model=colours"} in shown.all("a")
    home = Page(re.sub(r"<br>", "", server.http.get("/").text))
    assert {"href": path} in home.all("a")


@pytest.mark.parametrize("path", ["/upload", "/predict"])
def test_pictures_are_shown_with_answer_score_and_time(server, path):
    shown = send(server, path, ("seven.png", SEVEN.read_bytes()), ("broken.png", b"no image"))
    assert [entry["alt"] for entry in shown.all("img")] == ["", "seven.png"]
    assert re.search(r"seven\.png ✓ 7 0\.\d{3} Other answers", shown.text), shown.text
    assert re.search(r"\d\.\d{4} s by digits:1, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", shown.text), shown.text
    assert "broken.png ✗ No answer: this is text, not an image" in shown.text
    assert "1 answered, 1 failed." in shown.text
    assert len(shown.all("time")) == 2
    (meter,) = shown.all("meter")
    assert float(meter["value"]) > 0.5
    for entry in shown.all("img"):
        assert server.http.get(entry["src"]).status_code == 200


def test_an_upload_is_a_page_to_reload_and_to_link(server):
    answer = server.http.post("/upload", files=[("file", ("../../x.png", SEVEN.read_bytes()))])
    assert answer.status_code == 303
    place = answer.headers["location"]
    assert re.fullmatch(r"/uploads/[0-9a-f-]{36}", place)
    first, again = (server.http.get(place, headers=BROWSER) for _ in range(2))
    assert (first.status_code, first.text) == (200, again.text)
    assert "✓ 7" in page(first).text
    other = server.http.post("/upload", files=[("file", ("../../x.png", flat((1, 2, 3))))]).headers["location"]
    assert other != place
    assert server.http.get(place).text == first.text


@pytest.mark.parametrize("field", ["photo", "file", "images"])
def test_clients_that_name_the_field_otherwise_are_answered(server, field):
    for path in ("/upload", "/predict"):
        assert "✓ 7" in send(server, path, ("x.png", SEVEN.read_bytes()), field=field, accept="*/*").text


def test_a_client_that_asks_for_json_gets_it(server):
    files = [("photo", ("seven.png", SEVEN.read_bytes())), ("photo", ("broken.png", b"no"))]
    answer = server.http.post("/predict", files=files, headers={"accept": "application/json"})
    assert answer.status_code == 200
    found = answer.json()
    assert set(found) == {"digit", "score", "seconds", "page", "items"}
    assert (found["digit"], [item["state"] for item in found["items"]]) == ("7", ["succeeded", "failed"])
    assert 0.5 < found["score"] <= 1
    assert 0 < found["seconds"] < 10
    assert server.http.get(found["page"], headers={"accept": "application/json"}).json() == found
    answer = server.http.post("/predict", files=files[1:], headers={"accept": "application/json"})
    found = answer.json()
    assert (answer.status_code, found["digit"], found["score"], found["seconds"]) == (200, None, None, None)
    assert found["items"][0]["error"]["kind"] == "unreadable-image"


def test_what_others_wrote_is_text(server, tmp_path):
    server.add_model(colour_model(tmp_path / "m", "tags", labels=["<i>red</i>", "a&b", "x'y>"]))
    shown = send(server, "/predict?model=tags", (NASTY, flat((200, 3, 4))))
    assert "<i>red</i>" in shown.text
    assert shown.all("i") == []
    assert "<script>alert(1)</script>&lt;" in shown.text
    server.http.delete("/v1/models/tags:1")
    for path in ("/predict?model=<script>", "/upload?model=%22%3E%3Cscript%3E", "/uploads/<script>"):
        answer = server.http.get(path, headers=BROWSER)
        assert answer.status_code in (400, 404)
        assert "<script>" in page(answer).text


# -- what is wrong is said on the page ------------------------------------------------------------------------------------------


EMPTY = form(('name="photo"; filename=""', b""))
FORM = "multipart/form-data; boundary=BOUNDARY"


@pytest.mark.parametrize("path", ["/upload", "/predict"])
@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (EMPTY, FORM, 400, "No picture was chosen; choose a file first"),
        (form(), FORM, 400, "No picture was chosen"),
        (form(('name="other"; filename="x"', b"x")), FORM, 400, "into the field 'photo'"),
        (form(('name="photo"', b"x"), end=False), FORM, 400, "ends before its closing boundary"),
        (b"--nonsense", FORM, 400, "multipart"),
        (EMPTY, "multipart/form-data", 400, "no boundary"),
        (b"photo=", "application/x-www-form-urlencoded", 400, "multipart/form-data"),
        (b"", "", 400, "multipart/form-data"),
        (picture(1), "image/png", 400, "multipart/form-data"),
    ],
)
def test_nothing_chosen_and_broken_forms_are_answered_with_a_sentence(server, path, body, kind, status, words):
    before = server.get("/v1/jobs", limit=1)["items"]
    answer = post(server, body, kind, path)
    assert answer.status_code == status
    shown = page(answer)
    assert words in shown.text
    assert len(shown.all("form")) == 1
    assert len([given for given in shown.all("p") if given.get("role") == "alert"]) == 1
    assert words in problem(post(server, body, kind, path, accept="application/json"), status, "invalid-request")
    assert server.get("/v1/jobs", limit=1)["items"] == before


def test_a_form_that_breaks_off_leaves_nothing(server):
    pictures = [picture(62_000 + n) for n in range(600)]
    body = form(*((f'name="photo"; filename="{n}"', data) for n, data in enumerate(pictures)), end=False)
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: {len(body) + 9}\r\n\r\n"
    )
    first = f"/v1/images/{sha256(pictures[0]).hexdigest()}"
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname or "", place.port or 0)) as connection:
        connection.sendall(head.encode() + body)
        eventually(lambda: server.http.get(first).status_code == 200)
    eventually(lambda: server.http.get(first).status_code == 404)


@pytest.mark.parametrize("name", ["nothing", "01a1ff0a-42e6-7000-abb9-a90674369b1e", "..%2f..%2fx", "%00", "ü"])
def test_an_upload_that_is_not_there_is_said_on_a_page(server, name):
    answer = server.http.get(f"/uploads/{name}", headers=BROWSER)
    assert answer.status_code == 404
    if "%2f" not in name:
        assert "Not found" in page(answer).text
        problem(server.http.get(f"/uploads/{name}", headers={"accept": "application/json"}), 404, "not-found")


def test_a_deleted_upload_is_gone(server):
    place = server.http.post("/upload", files=[("file", ("x.png", picture(61_000)))]).headers["location"]
    assert server.http.delete(place.replace("/uploads/", "/v1/jobs/")).status_code == 204
    assert server.http.get(place).status_code == 404


def test_many_pictures_have_pages(server):
    files = [("file", (f"{n:03}.png", picture(61_100 + n))) for n in range(120)]
    place = server.http.post("/upload", files=files).headers["location"]
    job = place.rpartition("/")[2]
    server.wait_job(job)
    found, href = [], place
    while href:
        shown = page(server.http.get(href))
        assert "120 pictures" in shown.text
        found += [entry["alt"] for entry in shown.all("img") if entry["alt"]]
        nexts = [given["href"] for given in shown.all("a") if "after=" in given["href"]]
        href = nexts[0] if nexts else ""
    assert found == [f"{n:03}.png" for n in range(120)]
    for after in ("-5", str(10**30)):
        assert server.http.get(place, params={"after": after}).status_code == 200


def test_only_files_of_pages_are_static(server):
    for name in ("home.html", "forms.html", "..%2fhome.py"):
        problem(server.http.get(f"/static/{name}"), 404, "not-found")
    assert server.http.get("/static/forms.css").headers["content-type"] == "text/css; charset=utf-8"


# -- models, keys, waiting -----------------------------------------------------------------------------------------------------


def test_the_model_is_the_dialect_s_own_unless_one_is_named(server):
    green = ("g.png", flat((3, 190, 3)))
    assert "by colours:1" in send(server, "/predict?model=colours", green).text
    assert "by digits:1" in send(server, "/predict", green).text
    assert server.http.put("/v1/models/defaults/forms", params={"model": "colours"}).status_code == 200
    try:
        assert "✓ green" in send(server, "/upload", green).text
    finally:
        assert server.http.put("/v1/models/defaults/forms", params={"model": "digits"}).status_code == 200
    shown = send(server, "/predict?model=nobody", green, status=400)
    assert "There is no model 'nobody'" in shown.text
    assert {"href": "/predict?model=digits"} in shown.all("a")


def test_with_a_key_the_pages_ask_for_it_once_and_without_workers_they_look_again():
    settings = {"ONCESEEN_API_KEY": "a-long-key-for-forms", "ONCESEEN_MAX_WAIT": "0.3"}
    with RunningServer(verb="server", settings=settings) as server:
        server.http.headers.pop("authorization")
        for path in ("/upload", "/predict", "/uploads/x"):
            asked = server.http.get(path, headers=BROWSER)
            assert (asked.status_code, "API key" in asked.text) == (401, True)
            problem(server.http.post(path, files={"photo": b"x"}), 401, "unauthorised")
        opened = server.http.post("/session", data={"key": "a-long-key-for-forms"})
        assert opened.status_code == 303  # its cookie is kept by the client
        shown = send(server, "/predict", ("seven.png", SEVEN.read_bytes()), status=202)
        assert "No worker is connected" in shown.text
        assert "seven.png ○ Waits for a worker." in shown.text
        (refresh,) = [given["content"] for given in shown.all("meta") if given.get("http-equiv") == "refresh"]
        seconds, place = refresh.split(";url=")
        assert 0 < int(seconds) < 30
        waiting = server.http.get(place, headers=BROWSER)
        assert waiting.status_code == 202
        assert [given["content"] for given in page(waiting).all("meta") if "http-equiv" in given] == [refresh]
        found = server.http.get(place, headers={"accept": "application/json"})
        assert (found.status_code, found.json()["digit"]) == (202, None)
        server.stop()


def test_limits_are_said_on_the_page():
    settings = {"ONCESEEN_MAX_IMAGE_BYTES": "2000", "ONCESEEN_MAX_SUBMISSION_BYTES": "9000", "ONCESEEN_MAX_ITEMS": "3"}
    with RunningServer(workers=1, settings=settings) as server:
        shown = send(server, "/predict", ("large.png", bytes(2001)), ("7.png", picture(1)))
        assert "large.png ✗ No answer: The image has more than 2,000 bytes" in shown.text
        shown = send(server, "/upload", *[("x.png", bytes(1900))] * 3, ("y.png", bytes(9000)), status=413)
        assert "9,000 bytes" in shown.text
        shown = send(server, "/predict", *[("x.png", picture(n)) for n in range(4)], status=413)
        assert "more than 3 images" in shown.text
        chunks = iter([form(('name="photo"; filename="x"', bytes(9000)), end=False)] * 2)
        answer = server.http.post("/predict", content=chunks, headers={"content-type": FORM})
        assert (answer.status_code, "9,000 bytes" in answer.text) == (413, True)
        jobs = server.get("/v1/jobs")["items"]
        assert [job["total"] for job in jobs] == [2]
        server.stop()


# -- in a real browser without JavaScript --------------------------------------------------------------------------------------


class Plain(Browser):
    """A browser that runs no script of a page; what it is asked here comes from outside of the page."""

    def __enter__(self):
        super().__enter__()
        self._call("Emulation.setScriptExecutionDisabled", value=True)
        self._call("DOM.enable")
        return self

    def load(self, url):
        self._call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def until(self, condition, timeout=20.0):
        return eventually(lambda: self.run(f"document.body && ({condition})"), timeout, 0.05)

    def choose(self, *files):
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def press(self):
        """The button, as a person does."""
        place = self.run(
            "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
            "(document.querySelector('button').getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_the_forms_work_in_a_browser_without_javascript(server, tmp_path, width, dark):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with Plain(width, 900, dark=dark) as browser:
        browser.load(server.url)
        assert "Without JavaScript" in browser.run("document.body.innerText")
        for path, place in (("/predict", "/predict"), ("/upload", "/uploads/")):
            browser.load(server.url + path)
            browser.choose(SEVEN, broken)
            browser.press()
            browser.until("document.querySelectorAll('.result').length === 2")
            assert place in browser.run("location.pathname")
            text = browser.run("document.body.innerText")
            assert "✓ 7" in text
            assert "No answer: this is text, not an image" in text
            browser.until("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            background = browser.run("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(15, 18, 22)") is dark
        browser.screenshot(tmp_path / "forms.png")
        assert browser.complaints == []


def test_a_waiting_page_looks_again_by_itself():
    with RunningServer(verb="server", settings={"ONCESEEN_MAX_WAIT": "0.2"}) as server, Plain() as browser:
        browser.load(server.url + "/predict")
        browser.choose(SEVEN)
        browser.press()
        browser.until("document.body.innerText.includes('No worker is connected')")
        browser.until("location.pathname.startsWith('/uploads/')")
        joining = command("worker", "--server", str(server.data), "--quiet", "-n", "1")
        with subprocess.Popen(joining, env=environment()) as worker:
            browser.until("document.body.innerText.includes('✓ 7')", 60)
            worker.terminate()
            assert worker.wait(20) == 0
        assert browser.run("document.querySelector('meta[http-equiv=refresh]')") is None
        server.stop()
