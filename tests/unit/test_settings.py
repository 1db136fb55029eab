"""Settings: where a value comes from, what is refused, and the file and page that are made from the class."""

import os
import re
import tomllib
from pathlib import Path

import pytest
import typer

from onceseen.cli.config import markdown, template
from onceseen.cli.main import Verbs, app
from onceseen.errors import SettingsError
from onceseen.settings import Settings, as_toml, data_directory, facts, gather, load, masked

ROOT = Path(__file__).parents[2]
OTHER = {
    "data": "elsewhere", "host": "localhost", "port": 81, "workers": 7, "samples": False, "quiet": True, "api_key": "k3y",
    "allowed_hosts": ["a.example"], "max_pixels": 5, "max_image_bytes": 6, "max_items": 7, "max_submission_bytes": 8,
    "archive_ratio": 9.5, "max_wait": 1.5, "lease_seconds": 2.5, "max_deaths": 4,
    "read_timeout": 3.5, "decode_seconds": 4.5, "worker_memory": 9,
    "fetch_allow": ["10.0.0.0/8", "a.example"], "fetch_seconds": 3.5, "fetch_redirects": 2,
    "fetch_tries": 9, "fetch_connections": 3,
}  # fmt: skip
NOT_BUILT = {"database", "blobs", "signal"}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ONCESEEN_")]:
        monkeypatch.delenv(name)
    return tmp_path


def as_text(value):
    return ",".join(value) if isinstance(value, list) else str(value)


def test_the_example_values_name_every_setting_and_none_is_a_default():
    assert set(OTHER) | NOT_BUILT == set(Settings.model_fields)
    default = load()
    assert [name for name, value in OTHER.items() if str(getattr(default, name)) == str(value)] == []


@pytest.mark.parametrize("name", OTHER)
def test_each_setting_is_a_key_a_variable_and_a_flag_in_this_order(place, monkeypatch, name):
    wanted = load(**{name: as_text(OTHER[name])})
    (place / "onceseen.toml").write_text(f"{name} = {as_toml(tuple(v) if isinstance(v := OTHER[name], list) else v)}")
    file, origins = gather(None, {})
    assert (getattr(file, name), origins) == (getattr(wanted, name), {name: "file onceseen.toml"})
    monkeypatch.setenv(f"ONCESEEN_{name.upper()}", as_text(OTHER[name]))
    (place / "onceseen.toml").write_text(f"{name} = 'refused if it were read' # {name}")
    variable, origins = gather(None, {})
    assert (getattr(variable, name), origins) == (getattr(wanted, name), {name: f"environment ONCESEEN_{name.upper()}"})
    monkeypatch.setenv(f"ONCESEEN_{name.upper()}", "refused if it were read")
    flag, origins = gather(None, {name: as_text(OTHER[name])})
    assert (getattr(flag, name), origins) == (getattr(wanted, name), {name: f"flag --{name.replace('_', '-')}"})


def test_up_and_server_and_show_have_a_flag_for_every_setting():
    group = typer.main.get_command(app)
    assert isinstance(group, Verbs)
    up, server, config = (group.get_command(None, name) for name in ("up", "server", "config"))
    show = config.commands["show"]
    flags = {option for command in (up, show) for parameter in command.params for option in parameter.opts}
    assert {fact.flag for fact in facts()} <= flags
    assert {parameter.name for parameter in up.params} == set(Settings.model_fields) | {"config"}
    assert {parameter.name for parameter in server.params} == set(Settings.model_fields) - {"workers"} | {"config"}


def test_an_empty_variable_is_not_given(place, monkeypatch):
    monkeypatch.setenv("ONCESEEN_PORT", "")
    monkeypatch.setenv("ONCESEEN_CONFIG", "")
    (place / "onceseen.toml").write_text("port = 82")
    assert load().port == 82


def test_the_data_directory_is_found_without_the_rest_being_right(place, monkeypatch):
    (place / "onceseen.toml").write_text('data = "here"\nhost = "0.0.0.0"')
    assert data_directory() == Path("here")
    monkeypatch.setenv("ONCESEEN_DATA", "there")
    assert data_directory() == Path("there")
    assert data_directory(Path("flag")) == Path("flag")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"host": "0.0.0.0"}, "ONCESEEN_API_KEY"),
        ({"api_key": " key"}, "openssl rand"),
        ({"api_key": "schlüssel"}, "printable ASCII"),
        ({"allowed_hosts": "http://a.example"}, "names alone"),
        ({"allowed_hosts": "a.example,b.example:80"}, "'b.example:80'"),
        ({"fetch_allow": "a.example,http://b.example"}, "'http://b.example'"),
        ({"fetch_allow": "*"}, "`fetch_allow`: '*'"),
        ({"max_wait": -1}, "`max_wait` = -1 (flag --max-wait)"),
        ({"max_pixels": 0}, "flag --max-pixels"),
        ({"database": "postgresql://me:secret@db/x"}, "not built yet"),
    ],
)
def test_what_contradicts_itself_is_refused_with_the_cure(given, says):
    with pytest.raises(SettingsError, match=re.escape(says)) as caught:
        load(**given)
    assert "secret" not in str(caught.value)


def test_a_wrong_value_says_where_it_stands(place, monkeypatch):
    (place / "onceseen.toml").write_text("port = 'many'")
    with pytest.raises(SettingsError, match=r"`port` = 'many' \(file onceseen.toml\)"):
        load()
    monkeypatch.setenv("ONCESEEN_PORT", "more")
    with pytest.raises(SettingsError, match=r"environment ONCESEEN_PORT"):
        load()


@pytest.mark.parametrize("name", ["ONCESEEN_PROT", "ONCESEEN_", "ONCESEEN_port", "ONCESEEN_TESTING"])
def test_an_unknown_variable_is_refused(monkeypatch, name):
    monkeypatch.setenv("ONCESEEN_TEST_ANYTHING", "1")
    load()
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=f"{name} is no setting; known are .*ONCESEEN_PORT"):
        load()


def test_secrets_are_masked():
    assert masked("api_key", "key") == "********"
    assert masked("api_key", "") == ""
    assert masked("database", "postgresql://me:secret@db:5432/x") == "postgresql://me:********@db:5432/x"
    assert masked("database", "postgresql://me@db/x") == "postgresql://me@db/x"
    assert "k3y" not in repr(load(api_key="k3y"))


# -- the file ----------------------------------------------------------------------------------------------------------------


def test_the_file_holds_every_setting_as_a_comment_and_uncommented_it_is_the_defaults(place):
    text = template()
    assert tomllib.loads(text) == {}
    assert all(str(fact.field.description) in " ".join(text.replace("\n# ", " ").split()) for fact in facts())
    plain = re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert list(tomllib.loads(plain)) == list(Settings.model_fields)
    before = load()
    (place / "onceseen.toml").write_text(plain)
    settings, origins = gather(None, {})
    assert settings == before
    assert set(origins) == set(Settings.model_fields)


def test_a_data_directory_with_odd_characters_is_named_in_the_file(place):
    odd = Path('a "b"\\c')
    (place / "onceseen.toml").write_text(template(odd))
    assert load().data == odd


# -- the page ----------------------------------------------------------------------------------------------------------------


def test_the_page_has_the_table_that_the_settings_make():
    page = (ROOT / "docs" / "settings.md").read_text()
    assert markdown() in page, "docs/settings.md is stale; its table is what `onceseen config table` prints"
