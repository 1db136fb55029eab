"""Imports that stay light: what a script or a verb does not need is not loaded."""

import subprocess
import sys

import pytest

from onceseen.testing.running import environment

HEAVY = {"numpy", "fastapi", "sqlalchemy", "onnxruntime", "PIL", "uvicorn", "simplejpeg"}


def loaded(code):
    """The top-level modules that a program loads."""
    program = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_package_alone_loads_nothing():
    assert not loaded("import onceseen") & (HEAVY | {"httpx2", "msgspec", "typer"})


def test_the_client_loads_no_numpy_and_no_server():
    names = loaded("from onceseen import AsyncClient, Client, __version__\nClient('http://127.0.0.1:1').close()")
    assert not names & (HEAVY | {"pydantic", "structlog", "typer"})
    assert "httpx2" in names


@pytest.mark.parametrize("arguments", ["--version", "--help", "jobs --help", "classify --help", "models --help"])
def test_help_and_version_load_no_model_library(arguments):
    code = (
        f"sys.argv = ['onceseen', *{arguments!r}.split()]\nfrom onceseen.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
    )
    assert not loaded(code) & (HEAVY | {"httpx2", "pydantic_settings", "structlog"})


def test_a_verb_that_asks_a_server_loads_no_numpy():
    code = (
        "sys.argv = ['onceseen', 'jobs', '--server', 'http://127.0.0.1:1']\nfrom onceseen.cli.main import main\n"
        "import onceseen.cli.remote as remote\nremote.FIRST_SECONDS = 0.0\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 2\n"
    )
    assert not loaded(code) & HEAVY


def test_an_unknown_name_is_an_attribute_error():
    import onceseen

    with pytest.raises(AttributeError, match="Nobody"):
        _ = onceseen.Nobody
