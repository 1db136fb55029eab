"""The page of the dialects: its examples run as they stand, in order, and it names every address."""

import re
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text()


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def sh(run, text):
    done = run(["bash", "-euo", "pipefail", "-c"], text)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_examples_run_as_pasted(run):
    models, forms, scan = blocks("sh")
    assert "scan: digits" in sh(run, models)
    shown = sh(run, forms)
    assert shown.startswith("1\n")
    assert "<title>2 pictures - Onceseen</title>" in shown
    assert '{"digit":"7","score":0.' in shown
    found = sh(run, scan)
    assert '"filename":"seven.png"' in found
    assert re.search(r'"matched_names":\[.*"again.png",.*"seven.png"', found)
    assert '"label":"7"' in found
    (code,) = blocks("python")
    done = run([sys.executable, "-c"], code)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "'3.png'" in line]


def test_every_address_stands_on_the_page():
    from onceseen.server import forms, scan

    for route in [*forms.router.routes, *scan.router.routes]:
        address = re.sub(r"{job}", "JOB", re.sub(r"{name:path}", "NAME", re.sub(r"{digest}", "HASH", route.path)))
        for method in route.methods:
            assert f"`{method} {address}`" in PAGE, (method, address)
