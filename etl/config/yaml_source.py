"""Reads YAML as plain values, with the place of every key: for messages that point."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from etl.config.mistakes import Mistake
from etl.errors import ConfigError

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"
KeyPath: TypeAlias = tuple[str | int, ...]

_LARGEST_FILE_BYTES: Final = 1_000_000
_MOST_NODES: Final = 20_000
_DEEPEST: Final = 30
_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "timestamp", "map", "seq")
)


@dataclass(slots=True)
class Source:
    """A YAML document as plain values, and where each key path stands (line, column from 1)."""

    path: Path
    value: Plain
    places: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)  # duplicate keys, foreign tags

    def place(self, path: KeyPath) -> tuple[int, int]:
        """Return where a key path stands; for one that is missing, where its parent does."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))


def read_source(path: Path) -> Source:
    """Read a pipelines file; raises ConfigError for what is no readable YAML.

    Duplicate keys and foreign tags are among the source's `mistakes`, to be told with others.
    """
    text = _read(path)
    yaml = YAML(typ="rt", pure=True)
    yaml.version = (1, 2)
    yaml.composer.warn_double_anchors = False  # YAML allows it: the last one counts
    try:
        node = yaml.compose(io.StringIO(text))
    except MarkedYAMLError as error:
        raise _unparsable(path, text, error) from None
    except ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        what = f"not YAML: the character {text[error.position]!a} is not accepted"
        raise ConfigError(str(Mistake(path, line, column, (), what))) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            "It is not YAML that can be read.", where=str(path), advice=str(error)[:200]
        ) from None
    builder = _Builder(path)
    source = Source(path, None, builder.places, builder.mistakes)
    source.value = {} if node is None else builder.build(node, (), 0)
    return source


def _read(path: Path) -> str:
    try:
        if path.is_dir():
            raise ConfigError(
                "It is a folder, not a file.", where=str(path), advice="Name the pipelines file."
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            "There is no pipelines file.",
            where=str(path),
            advice="Run `etl init` to write one, or name it with --config.",
        ) from None
    except OSError as error:
        raise ConfigError(f"It cannot be read: {error.strerror}.", where=str(path)) from None
    if len(data) > _LARGEST_FILE_BYTES:
        raise ConfigError("It is larger than a pipelines file can be (1 MB).", where=str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"It is not UTF-8 text (byte {error.start}).", where=str(path)) from None


def _unparsable(path: Path, text: str, error: MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    lines = text.splitlines()
    shown = lines[line - 1] if 0 < line <= len(lines) else ""
    hint = " (tabs cannot indent YAML: use spaces)" if "\t" in shown[: column + 1] else ""
    if "${" in shown:
        hint += " (quote '${NAME}' where it stands within braces)"
    problem = (error.problem or "it cannot be parsed").strip()
    return ConfigError(str(Mistake(path, line, column, (), f"not YAML: {problem}{hint}")))


class _Builder:
    """Makes plain values of nodes; aliases are followed, within bounds."""

    def __init__(self, path: Path) -> None:
        self.places: dict[KeyPath, tuple[int, int]] = {}
        self.mistakes: list[Mistake] = []
        self._path = path
        self._nodes = 0
        self._yaml = YAML(typ="safe", pure=True)

    def build(self, node: Node, path: KeyPath, depth: int) -> Plain:
        """Return the value of a node at a key path."""
        self._nodes += 1
        if self._nodes > _MOST_NODES or depth > _DEEPEST:
            what = "it is nested or repeated (by aliases) beyond any use"
            place = self.places.get(path[:3], _place(node))
            raise ConfigError(str(Mistake(self._path, *place, path[:3], what)))
        self.places.setdefault(path, _place(node))
        if str(node.tag) not in _TAGS:
            self._mistake(_place(node), path, f"the tag {str(node.tag)!r} is not accepted")
            return None
        if isinstance(node, MappingNode):
            return dict(self._items(node, path, depth))
        if isinstance(node, SequenceNode):
            return [
                self.build(child, (*path, place), depth + 1)
                for place, child in enumerate(node.value)
            ]
        return self._scalar(node)

    def _items(self, node: MappingNode, path: KeyPath, depth: int) -> Iterator[tuple[str, Plain]]:
        seen: dict[str, tuple[int, int]] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, ScalarNode) else "?"
            place = _place(key_node)
            self.places[*path, key] = place
            if key in seen:
                self._mistake(
                    place, (*path, key), f"the key stands twice, first in line {seen[key][0]}"
                )
                continue
            seen[key] = place
            yield key, self.build(value_node, (*path, key), depth + 1)

    def _scalar(self, node: Node) -> Plain:
        try:
            value = self._yaml.constructor.construct_object(node, deep=True)
        except (YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError):
            value = str(
                node.value
            )  # `!!bool maybe`, the 31st of June: text, for the field to refuse
        if value is None or isinstance(value, str | int | float | bool):
            return value
        return str(node.value)  # a date, say: the field decides what it is

    def _mistake(self, place: tuple[int, int], path: KeyPath, what: str) -> None:
        self.mistakes.append(Mistake(self._path, *place, path, what))


def _place(node: Node) -> tuple[int, int]:
    return (node.start_mark.line + 1, node.start_mark.column + 1)
