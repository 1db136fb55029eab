"""All settings: a flag, an environment variable `ONCESEEN_...` and a key of `onceseen.toml`, in this order of precedence.

Read once at the top and frozen; nothing below sees the environment. A contradiction or an unknown key refuses to start.
"""

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from onceseen.errors import SettingsError

CLIENT_VARIABLES = {"ONCESEEN_SERVER", "ONCESEEN_CONFIG"}
"""Variables that the command line reads itself."""

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def default_data() -> Path:
    """`$XDG_DATA_HOME/onceseen`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "onceseen"


class Settings(BaseSettings):
    """What a server and its workers are told."""

    model_config = SettingsConfigDict(env_prefix="ONCESEEN_", frozen=True, extra="forbid")

    data: Path = Field(default_factory=default_data, description="the data directory")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=0, description="worker processes that `up` starts"
    )
    database: str = Field("", description="URL of the record; empty: SQLite in the data directory")
    blobs: str = Field("", description="URL of the blob store; empty: pack files in the data directory")
    signal: str = Field("", description="URL of the signal; empty: inside the server")
    api_key: str = Field("", description="key that every request must carry; needed on any address but loopback")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="host names that clients may use, besides loopback and IP addresses"
    )
    samples: bool = Field(default=True, description="classify the sample images at the first start")
    quiet: bool = Field(default=False, description="log warnings only")
    max_pixels: int = Field(100_000_000, gt=0, description="pixels of one image")
    max_image_bytes: int = Field(256_000_000, gt=0, description="bytes of one image")
    max_items: int = Field(1_000_000, gt=0, description="items of one submission")
    max_submission_bytes: int = Field(16_000_000_000, gt=0, description="bytes of one submission")
    archive_ratio: float = Field(200.0, gt=1, description="how many times larger an archive may unpack")
    lease_seconds: float = Field(5.0, ge=1, description="silence after which a worker counts as frozen")
    max_deaths: int = Field(3, ge=1, description="workers that one image may kill before it is a dead letter")

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            return value  # pydantic says what is wrong
        return tuple(part.strip().lower() for part in parts if part.strip())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before the environment; files are merged in by `load`."""
        return init_settings, env_settings


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Flags (None: not given) over the environment over the file over the defaults.

    Raises:
        SettingsError: an unknown key, a wrong value, or values that contradict each other; says the cure.
    """
    _check_environment()
    given = {name: value for name, value in flags.items() if value is not None}
    from_file = {
        name: value for name, value in _read_file(config).items() if f"ONCESEEN_{name.upper()}" not in os.environ
    }
    try:
        settings = Settings(**(from_file | given))
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from error
    check(settings)
    return settings


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
    for name in ("database", "blobs", "signal"):
        url = getattr(settings, name)
        if url:
            scheme = url.partition(":")[0]
            raise SettingsError(
                f"`{name}` = {url!r}: the driver for {scheme!r} is not built yet; leave it out to use the embedded one."
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
    known = {f"ONCESEEN_{name.upper()}" for name in Settings.model_fields} | CLIENT_VARIABLES
    for name in sorted(os.environ):
        if name.startswith("ONCESEEN_") and not name.startswith("ONCESEEN_TEST_") and name not in known:
            raise SettingsError(f"The environment variable {name} is no setting; known are {', '.join(sorted(known))}.")


def _read_file(config: Path | None) -> dict[str, Any]:
    file = config or (Path(os.environ["ONCESEEN_CONFIG"]) if "ONCESEEN_CONFIG" in os.environ else None)
    if file is None:
        file = Path("onceseen.toml")
        if not file.is_file():
            return {}
    try:
        table = tomllib.loads(file.read_text())
    except FileNotFoundError as error:
        raise SettingsError(f"The settings file {file} does not exist.") from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {file} cannot be read: {error}") from error
    unknown = sorted(set(table) - set(Settings.model_fields))
    if unknown:
        raise SettingsError(f"{file}: {unknown[0]!r} is no setting; known are {', '.join(Settings.model_fields)}.")
    return table


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    return f"The setting `{name}` = {first.get('input')!r} is refused: {first['msg']}."
