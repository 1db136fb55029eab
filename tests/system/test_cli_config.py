import json

from onceseen.testing.pictures import picture
from onceseen.testing.running import RunningServer


def test_init_writes_a_file_that_up_reads_and_never_replaces_one_by_itself(onceseen, tmp_path):
    done = onceseen("config", "init", "--data", "beamtime")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "onceseen.toml"
    assert 'data = "beamtime"' in file.read_text()
    file.write_text(file.read_text().replace("#port = 8000", "port = 9123"))
    again = onceseen("config", "init")
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert "port = 9123" in file.read_text()
    shown = onceseen("config", "show", "--max-items", "5", "--json", ONCESEEN_API_KEY="a-secret", ONCESEEN_WORKERS="3")
    facts = json.loads(shown.stdout)
    assert facts["data"] == {"value": "beamtime", "from": "file onceseen.toml"}
    assert facts["port"] == {"value": 9123, "from": "file onceseen.toml"}
    assert facts["workers"] == {"value": 3, "from": "environment ONCESEEN_WORKERS"}
    assert facts["max_items"] == {"value": 5, "from": "flag --max-items"}
    assert facts["host"] == {"value": "127.0.0.1", "from": "default"}
    assert facts["api_key"] == {"value": "********", "from": "environment ONCESEEN_API_KEY"}
    assert "a-secret" not in shown.stdout + shown.stderr
    assert onceseen("config", "init", "--force").returncode == 0
    assert "#port = 8000" in file.read_text()


def test_init_takes_a_place_and_says_when_it_cannot_write(onceseen, tmp_path):
    (tmp_path / "conf").mkdir()
    assert onceseen("config", "init", "conf").returncode == 0
    assert onceseen("config", "init", "conf/other.toml").returncode == 0
    assert {file.name for file in (tmp_path / "conf").iterdir()} == {"onceseen.toml", "other.toml"}
    done = onceseen("config", "init", "nowhere/x.toml")
    assert done.returncode == 2
    assert "nowhere/x.toml" in done.stderr
    shown = onceseen("config", "show", "--config", "conf/other.toml")
    assert shown.returncode == 0
    assert "100_000_000" in shown.stdout


def test_show_refuses_what_up_refuses(onceseen):
    done = onceseen("config", "show", "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "ONCESEEN_API_KEY" in done.stderr
    assert done.stdout == ""


def test_verbs_find_the_data_directory_of_the_settings_file(onceseen, server, tmp_path):
    (tmp_path / "onceseen.toml").write_text(f"data = {json.dumps(str(server.data))}")
    done = onceseen("models", "list", "--json")
    assert done.returncode == 0, done.stderr
    assert "colours" in done.stdout


def test_a_wait_ends_at_the_limit_of_the_settings():
    with RunningServer(verb="server", settings={"ONCESEEN_MAX_WAIT": "0.1"}) as server:
        answer = server.http.post("/v1/jobs?model=digits&wait=50", content=picture(1), timeout=20)
        assert answer.json()["items"][0]["state"] == "queued"
        server.stop()
