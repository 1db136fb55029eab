"""All settings: a flag, an environment variable `ONCESEEN_...` and a key of `onceseen.toml`, in this order of precedence.

Read once at the top and frozen; nothing below sees the environment. A contradiction or an unknown key refuses to start.
"""

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from onceseen.domain.addresses import Allowance
from onceseen.errors import SettingsError

CLIENT_VARIABLES = {"ONCESEEN_SERVER", "ONCESEEN_CONFIG"}
"""Variables that the command line reads itself."""
FILE = "onceseen.toml"
"""Looked for in the working directory, unless `--config` or ONCESEEN_CONFIG names another."""

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
DRIVERS, ACCESS, RUNNING, LIMITS = "Drivers", "Access", "Running", "Limits"


def default_data() -> Path:
    """`$XDG_DATA_HOME/onceseen`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "onceseen"


def _setting(group: str, default: Any, description: str, shown: str = "", **rules: Any) -> Any:
    """A field; `shown` is its default in words, where it depends on the machine. Secrets are marked by repr=False."""
    how = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**how, description=description, json_schema_extra={"group": group, "shown": shown}, **rules)


class Settings(BaseModel):
    """What a server and its workers are told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = _setting(RUNNING, default_data, "the data directory", "$XDG_DATA_HOME/onceseen")
    host: str = _setting(RUNNING, "127.0.0.1", "address to listen on")
    port: int = _setting(RUNNING, 8000, "port to listen on; 0 takes a free one", ge=0, le=65535)
    workers: int = _setting(
        RUNNING, lambda: os.cpu_count() or 1, "worker processes that `up` starts", "one per core", ge=0
    )
    samples: bool = _setting(RUNNING, True, "classify the sample images at the first start")
    quiet: bool = _setting(RUNNING, False, "log warnings only")
    api_key: str = _setting(
        ACCESS, "", "key that every request must carry; needed on any address but loopback", repr=False
    )
    allowed_hosts: tuple[str, ...] = _setting(
        ACCESS, (), "host names that clients may use, besides loopback and IP addresses; as text, separated by commas"
    )
    fetch_allow: tuple[str, ...] = _setting(
        ACCESS, (), "hosts and networks that URLs may lead to though they are not public; as text, separated by commas"
    )
    database: str = _setting(DRIVERS, "", "URL of the record; empty: SQLite in the data directory")
    blobs: str = _setting(DRIVERS, "", "URL of the blob store; empty: pack files in the data directory")
    signal: str = _setting(DRIVERS, "", "URL of the signal; empty: inside the server")
    max_pixels: int = _setting(LIMITS, 100_000_000, "pixels of one image", gt=0)
    max_image_bytes: int = _setting(LIMITS, 256_000_000, "bytes of one image", gt=0)
    decode_seconds: float = _setting(
        LIMITS, 10.0, "processor time that decoding one image may take, in seconds; 0: any", ge=0
    )
    worker_memory: int = _setting(
        LIMITS,
        0,
        "bytes that a worker may take beyond its models; 0: 10 for each of `max_pixels` and 3 for each of `max_image_bytes`",
        ge=0,
    )
    max_items: int = _setting(LIMITS, 1_000_000, "items of one submission", gt=0)
    max_submission_bytes: int = _setting(LIMITS, 16_000_000_000, "bytes of one submission", gt=0)
    archive_ratio: float = _setting(LIMITS, 200.0, "how many times larger an archive may unpack", gt=1)
    max_wait: float = _setting(LIMITS, 60.0, "seconds that a request may wait for its job's end", ge=0)
    read_timeout: float = _setting(
        LIMITS, 10.0, "seconds in which the head of a request, or the next 1,000 bytes of its body, must come", gt=0
    )
    fetch_seconds: float = _setting(LIMITS, 20.0, "seconds for the image of one URL, with all redirects", gt=0)
    fetch_redirects: int = _setting(LIMITS, 5, "redirects of one URL", ge=0)
    fetch_tries: int = _setting(LIMITS, 4, "tries of one URL that does not answer, before its item fails", ge=1)
    fetch_connections: int = _setting(LIMITS, 16, "URLs that are fetched at once", ge=1, le=1000)
    lease_seconds: float = _setting(LIMITS, 5.0, "seconds of silence after which a worker counts as frozen", ge=1)
    max_deaths: int = _setting(LIMITS, 3, "workers that one image may kill before it is a dead letter", ge=1)

    @field_validator("allowed_hosts", "fetch_allow", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            return value  # pydantic says what is wrong
        return tuple(part.strip().lower() for part in parts if part.strip())


class Fact(NamedTuple):
    """One setting as pages and the command line show it."""

    name: str
    field: FieldInfo
    group: str
    default: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return variable_of(self.name)

    @property
    def flag(self) -> str:
        """Its flag."""
        return f"--{self.name.replace('_', '-')}"


def facts() -> list[Fact]:
    """Every setting, in the order of the class."""
    found = []
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        found.append(Fact(name, field, str(extra["group"]), str(extra["shown"]) or as_toml(field.default)))
    return found


def as_toml(value: Any) -> str:
    """A value as onceseen.toml holds it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if value >= 1_000_000 else str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(as_toml(part) for part in value)}]"
    if isinstance(value, float):
        return repr(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"ONCESEEN_{name.upper()}"


def masked(name: str, value: Any) -> Any:
    """A value that may be shown: no key, no password inside a URL."""
    if value and not Settings.model_fields[name].repr:
        return "********"
    if isinstance(value, str) and "@" in value:
        parts = urlsplit(value)
        if parts.password:
            return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":********@")))
    return value


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Flags (None: not given) over the environment over the file over the defaults.

    Raises:
        SettingsError: an unknown key, a wrong value, or values that contradict each other; says the cure.
    """
    return gather(config, flags)[0]


def gather(config: Path | None, flags: Mapping[str, Any]) -> tuple[Settings, dict[str, str]]:
    """What holds, and for each setting that is not its default where it comes from.

    Raises:
        SettingsError: as `load`.
    """
    values, origins = _given(config, flags)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(_sentence(error, origins)) from error
    check(settings)
    return settings, origins


def data_directory(flag: Path | None = None) -> Path:
    """The data directory that a verb means which needs no other setting."""
    values, _ = _given(None, {"data": flag})
    return Path(values.get("data") or default_data())


def _given(config: Path | None, flags: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    _check_environment()
    file, table = _read_file(config)
    values: dict[str, Any] = {}
    origins = {}
    for fact in facts():
        variable = os.environ.get(fact.variable)
        if flags.get(fact.name) is not None:
            values[fact.name], origins[fact.name] = flags[fact.name], f"flag {fact.flag}"
        elif variable:  # an empty one is not given
            values[fact.name], origins[fact.name] = variable, f"environment {fact.variable}"
        elif fact.name in table:
            values[fact.name], origins[fact.name] = table[fact.name], f"file {file}"
    return values, origins


def check(settings: Settings) -> None:
    """Refuse what contradicts itself or is not safe.

    Raises:
        SettingsError: says the cure.
    """
    if not is_loopback(settings.host) and not settings.api_key:
        raise SettingsError(
            f"Listening on {settings.host} would let everybody in: set ONCESEEN_API_KEY to a long random text, "
            "or use --host 127.0.0.1."
        )
    key = settings.api_key
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise SettingsError(
            "The `api_key` cannot be sent in a header: use printable ASCII without blanks at its ends, "
            "for example what `openssl rand -hex 32` prints."
        )
    for host in settings.allowed_hosts:
        if any(mark in host for mark in "/:@*"):
            raise SettingsError(
                f"`allowed_hosts` holds {host!r}: give names alone, without scheme, port and wildcards."
            )
    try:
        Allowance(settings.fetch_allow)
    except ValueError as error:
        raise SettingsError(
            f"`fetch_allow`: {error}; give names like images.example, or networks like 10.0.0.0/8."
        ) from error
    for name in ("database", "blobs", "signal"):
        url = getattr(settings, name)
        if url:
            scheme = url.partition(":")[0]
            raise SettingsError(
                f"`{name}` = {masked(name, url)!r}: the driver for {scheme!r} is not built yet; "
                "leave it out to use the embedded one."
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_environment() -> None:
    known = {variable_of(name) for name in Settings.model_fields} | CLIENT_VARIABLES
    for name in sorted(os.environ):
        if name.startswith("ONCESEEN_") and not name.startswith("ONCESEEN_TEST_") and name not in known:
            raise SettingsError(f"The environment variable {name} is no setting; known are {', '.join(sorted(known))}.")


def _read_file(config: Path | None) -> tuple[Path, dict[str, Any]]:
    named = config or (Path(os.environ["ONCESEEN_CONFIG"]) if os.environ.get("ONCESEEN_CONFIG") else None)
    file = named or Path(FILE)
    if named is None and not file.is_file():
        return file, {}
    try:
        table = tomllib.loads(file.read_text())
    except FileNotFoundError as error:
        raise SettingsError(
            f"The settings file {file} does not exist; `onceseen config init {file}` writes one."
        ) from error
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise SettingsError(f"The settings file {file} cannot be read: {error}") from error
    unknown = sorted(set(table) - set(Settings.model_fields))
    if unknown:
        raise SettingsError(f"{file}: {unknown[0]!r} is no setting; known are {', '.join(Settings.model_fields)}.")
    return file, table


def _sentence(error: ValidationError, origins: Mapping[str, str]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    value = masked(name, first.get("input"))
    return f"The setting `{name}` = {value!r} ({origins.get(name, 'default')}) is refused: {first['msg']}."
