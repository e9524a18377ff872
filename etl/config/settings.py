"""Reads the settings of the environment and of `.env`, secrets from files and commands too."""

import shlex
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from etl.config.mistakes import shown
from etl.errors import ConfigError

_COMMAND_SECONDS: Final = 30
_LARGEST_SECRET_BYTES: Final = 65_536
_SHORTEST_HASH_KEY_BYTES: Final = 16
_SECRETS: Final = ("USERTESTING_CLIENT_ID", "USERTESTING_CLIENT_SECRET", "ETL_HASH_KEY")


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


LowerCase: Final = BeforeValidator(_lower)


class Settings(BaseSettings):
    """The settings that the contract names; empty ones count as not set."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, frozen=True)

    client_id: SecretStr | None = Field(
        default=None, validation_alias="USERTESTING_CLIENT_ID", description="Client id."
    )
    client_secret: SecretStr | None = Field(
        default=None, validation_alias="USERTESTING_CLIENT_SECRET", description="Client secret."
    )
    api_url: str | None = Field(
        default=None, validation_alias="USERTESTING_API_URL", description="Base of the API."
    )
    token_url: str | None = Field(
        default=None, validation_alias="USERTESTING_TOKEN_URL", description="Token endpoint."
    )
    hash_key: SecretStr | None = Field(
        default=None,
        validation_alias="ETL_HASH_KEY",
        description="The key under which `columns: {…: {hash: …}}` are hashed.",
    )
    state_dir: Path | None = Field(
        default=None, validation_alias="ETL_STATE_DIR", description="Where state is kept."
    )
    log_format: Annotated[Literal["auto", "console", "json"], LowerCase] = Field(
        default="auto", validation_alias="ETL_LOG_FORMAT", description="How logs look."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], LowerCase] = Field(
        default="info", validation_alias="ETL_LOG_LEVEL", description="Which logs are shown."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `read_settings` gives and nothing else: it has merged the sources."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def read_dotenv(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return the variables of `.env` in the folder, and a warning if others read its secrets."""
    path = folder / ".env"
    if not path.is_file():
        return {}, []
    try:
        told = dotenv_values(path, interpolate=False, encoding="utf-8")
        open_to_others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"It cannot be read: {reason}.", where=str(path)) from None
    found = {name: value for name, value in told.items() if value is not None}
    secret = any(value and name.endswith(("SECRET", "HASH_KEY")) for name, value in found.items())
    return found, [_readable(path)] if secret and open_to_others else []


def read_settings(
    layers: Sequence[Mapping[str, str]], folder: Path
) -> tuple[Settings, list[str], list[str]]:
    """Return the settings, the mistakes found in them, and warnings.

    The first layer that sets something wins: a command named in the environment is over a
    value in `.env`. Mistakes name the variable and never show what a secret holds.
    """
    mistakes: list[str] = []
    warnings: list[str] = []
    values: dict[str, str] = {}
    for alias in (str(field.validation_alias) for field in Settings.model_fields.values()):
        found = next((layer[alias] for layer in layers if layer.get(alias)), None)
        if found is not None:
            values[alias] = found
    for name in _SECRETS:
        values.pop(name, None)
        secret = _secret(name, layers, folder, mistakes, warnings)
        if secret is not None:
            values[name] = secret
    try:
        return Settings.model_validate(values), mistakes, warnings
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0])
            accepted = str(problem["msg"]).removeprefix("Input should be ")
            secret_like = name in _SECRETS or name.startswith("USERTESTING_")
            is_what = "is not accepted" if secret_like else f"is {shown(values[name])}"
            mistakes.append(f"{name}: {is_what}; accepted: {accepted}")
            del values[name]  # the others are read all the same, so that all mistakes are told
        return Settings.model_validate(values), mistakes, warnings


def hash_key_mistakes(key: SecretStr | None, told: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the key of a pipeline that hashes, unless `told` says it."""
    accepted = "accepted: 16 bytes or more that nobody can guess, as `openssl rand -hex 32` prints"
    if key is None:
        if not any(complaint.startswith("ETL_HASH_KEY") for complaint in told):
            yield (
                "ETL_HASH_KEY is not set, and a pipeline hashes columns; set it in the environment "
                f"or in .env, and keep a copy; {accepted}"
            )
    elif len(hash_key_bytes(key)) < _SHORTEST_HASH_KEY_BYTES:
        yield f"ETL_HASH_KEY is too short; {accepted}"


def hash_key_bytes(key: SecretStr) -> bytes:
    """Return the key as the bytes that the environment or the file held."""
    return key.get_secret_value().encode(errors="surrogateescape")


def _secret(
    name: str,
    layers: Sequence[Mapping[str, str]],
    folder: Path,
    mistakes: list[str],
    warnings: list[str],
) -> str | None:
    """Return a secret from its variable, else from its file, else from its command."""
    for layer in layers:
        if layer.get(name):
            return layer[name]
        if place := layer.get(f"{name}_FILE"):
            return _from_file(f"{name}_FILE", folder / place, mistakes, warnings)
        if command := layer.get(f"{name}_COMMAND"):
            return _from_command(f"{name}_COMMAND", command, mistakes)
    return None


def _readable(path: Path) -> str:
    return f"{path} can be read by others: run `chmod 600 {path}`."


def _from_file(variable: str, path: Path, mistakes: list[str], warnings: list[str]) -> str | None:
    try:
        with path.open("rb") as file:
            value = file.read(_LARGEST_SECRET_BYTES).decode("utf-8").rstrip("\r\n")
            open_to_others = file.fileno() >= 0 and path.stat().st_mode & (
                stat.S_IRWXG | stat.S_IRWXO
            )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        mistakes.append(f"{variable}: {path} cannot be read: {reason}")
        return None
    if open_to_others:
        warnings.append(_readable(path))
    if not value:
        mistakes.append(f"{variable}: {path} is empty")
    return value or None


def _from_command(variable: str, command: str, mistakes: list[str]) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - the user's own setting, without a shell
            shlex.split(command),
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        value = done.stdout.decode("utf-8").rstrip("\r\n")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        mistakes.append(f"{variable}: the command failed ({type(error).__name__})")
        return None
    if not value:
        mistakes.append(f"{variable}: the command printed nothing")
    return value or None
