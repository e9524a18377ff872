"""What is known while a file is put together: mistakes, variables, who uses what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from etl.config.columns import KnownTable
from etl.config.interpolation import Unset, interpolated
from etl.config.mistakes import Mistake, shown
from etl.config.settings import Settings
from etl.config.yaml_source import KeyPath, Plain, Source


@dataclass(frozen=True, slots=True)
class SandboxCredentials:
    """Where the sandbox of this run is, and what it accepts."""

    api_url: str
    token_url: str
    client_id: str
    client_secret: str


@dataclass(slots=True)
class Loading:
    """A file on its way to a Config; collects the mistakes of all its parts."""

    source: Source
    variables: Mapping[str, str]
    settings: Settings
    folder: Path
    state_dir: Path
    tables: Mapping[str, KnownTable] = field(default_factory=dict)
    sandbox: SandboxCredentials | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    named: dict[str, list[KeyPath]] = field(default_factory=dict)  # connections, by whom
    used: set[str] = field(default_factory=set)  # those of the pipelines that run
    unfilled: set[KeyPath] = field(default_factory=set)
    brought: dict[KeyPath, tuple[str, str]] = field(default_factory=dict)  # as written, filled

    def __post_init__(self) -> None:
        self.mistakes += self.source.mistakes
        self.unfilled |= {mistake.key_path for mistake in self.source.mistakes}

    def mistake(self, path: KeyPath, what: str) -> None:
        """Note a mistake at a key path, unless its value is not known or told already.

        What a variable holds may be a secret: the variable is shown in its place. An unknown
        key is one whatever its value.
        """
        if path in self.unfilled and not what.startswith("unknown key"):
            return
        if path in self.brought:
            written, filled = self.brought[path]
            what = what.replace(shown(filled), f"{shown(written)} (filled in)", 1)
        line, column = self.source.place(path)
        self.mistakes.append(Mistake(self.source.path, line, column, path, what))

    def filled(self, value: Plain, path: KeyPath, *, runs: bool) -> Plain:
        """Fill in the variables of every text below a key path.

        For what does not run they stay: they may be unset here, and are not looked at.
        """
        if isinstance(value, dict):
            return {key: self.filled(item, (*path, key), runs=runs) for key, item in value.items()}
        if isinstance(value, list):
            return [
                self.filled(item, (*path, place), runs=runs) for place, item in enumerate(value)
            ]
        if not isinstance(value, str) or "${" not in value:
            return value
        if runs:
            return self._filled_text(value, path)
        self.unfilled.add(path)
        return value

    def _filled_text(self, value: str, path: KeyPath) -> str:
        try:
            filled = interpolated(value, self.variables)
        except Unset as unset:
            name = str(unset)
            what = (
                f"${{{name}}} is not set; set it, or write ${{{name}:-default}}"
                if name
                else "`${` begins no variable; accepted: ${NAME} or ${NAME:-default}"
            )
            self.mistake(path, what)
            self.unfilled.add(path)
            return value
        self.brought[path] = (value, filled)
        return filled
