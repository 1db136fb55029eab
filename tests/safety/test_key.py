"""The key of a server is compared in constant time, and stands in no log, error or page."""

import ast
import inspect

import pytest

from onceseen.server import guard
from onceseen.testing.asking import raw
from onceseen.testing.running import RunningServer

KEY = "k3y-that-nobody-may-see-9f2c"


def test_no_comparison_of_secrets_but_in_constant_time():
    tree = ast.parse(inspect.getsource(guard))
    secrets = {"_key", "_session", "given", "key"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
            names = {
                name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "") for name in ast.walk(node)
            }
            assert not names & secrets, ast.unparse(node)
    assert inspect.getsource(guard).count("hmac.compare_digest(") == 3


@pytest.fixture(scope="module")
def locked():
    with RunningServer(workers=1, settings={"ONCESEEN_API_KEY": KEY}) as running:
        yield running
        running.stop()


def test_the_key_is_said_nowhere(locked):
    texts = []
    for path in ("/", "/v1/jobs", "/v1/nothing", "/metrics", "/openapi.json", "/v1/jobs?x=1", "/healthz/ready"):
        texts.append(locked.http.get(path).text)
        wrong = locked.http.get(path, headers={"authorization": f"Bearer {KEY}x", "accept": "text/html"})
        texts.append(wrong.text + str(wrong.headers))
    texts.append(locked.http.post("/session", data={"key": KEY}).text)
    texts.append(raw(locked, f"GET / HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\nbroken\r\n\r\n".encode()).decode())
    texts += [locked.log(), *locked.processes().values()]
    files = [file for file in locked.data.rglob("*") if file.is_file()]
    texts += [file.read_bytes().decode("latin-1") for file in files]
    assert len(files) > 5
    assert not [text[:300] for text in texts if KEY in text]
