"""Decides which of an answer's rows land: those that are new, and those that replace others.

A row whose key has landed lands again only where it is to replace what the API has since
answered differently; else it is counted, once, and noted as stale in the test's record.
"""

from array import array
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from etl.client.values import Answer
from etl.ledger.records import Record, session_key
from etl.tables.values import AnyTable, Rows, row_hash

Keys = Mapping[str, Mapping[int, int]]
"""The layer of a key's newest rows, by test and key."""


class Superseded:
    """The rows that those of a batch replace: by table, by test, by what its record calls them.

    Where a table is asked session by session, all rows of a session are replaced together.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._keys: dict[str, dict[str, dict[int, int]]] = {}

    def add(self, table: str, test_id: str, key: int) -> int:
        """Note that all rows of this key so far are replaced; return the layer of the new ones."""
        keys = self._keys.setdefault(table, {}).setdefault(test_id, {})
        keys[key] = keys.get(key, 0) + 1
        return keys[key]

    def of(self, table: str) -> Keys:
        """Return what is replaced of a table."""
        return self._keys.get(table, {})

    def __bool__(self) -> bool:
        """Whether anything is replaced."""
        return bool(self._keys)


@dataclass(slots=True)
class Chosen:
    """The places of the rows that land, by their layer in the batch: 0 unless they replace.

    `edited` counts what the API answers differently now and stays, `replaced` the rows that
    give way.
    """

    layers: dict[int, Sequence[int]] = field(default_factory=dict)
    edited: int = 0
    replaced: int = 0

    @property
    def count(self) -> int:
        """How many rows land."""
        return sum(map(len, self.layers.values()))


class Chooser:
    """Chooses for one batch; `superseded` are the rows that its own replace."""

    def __init__(self) -> None:
        """Begin with nothing replaced."""
        self.superseded = Superseded()

    def of_test(
        self, table: AnyTable, answer: Answer, rows: Rows, record: Record, replacing: Container[int]
    ) -> Chosen:
        """Choose of the rows that are known by their own key, and cover them.

        Those at the places `replacing` may take the place of others.
        """
        covered, stale = record.rows_of(table.name), record.stale_of(table.name)
        if covered.keys().isdisjoint(rows.keys) and len(set(rows.keys)) == len(rows.keys):
            covered.update(zip(rows.keys, rows.hashes, strict=True))
            return Chosen({0: range(len(rows.keys))} if rows.keys else {})
        chosen, layers = Chosen(), dict[int, list[int]]()
        met: dict[int, bool] = {}  # whether it is new
        for place, (key, value) in enumerate(zip(rows.keys, rows.hashes, strict=True)):
            if key in met:
                # Twice in one answer: the first counts.
                chosen.edited += met[key] and value != covered[key]
                continue
            differs = covered.get(key) != value
            met[key] = key not in covered or (table.appends and differs)
            covered[key] = value
            if met[key]:
                layers.setdefault(0, []).append(place)
            elif place in replacing and (differs or key in stale):
                stale.discard(key)
                chosen.replaced += 1
                layer = self.superseded.add(table.name, answer.test_id or "", key)
                layers.setdefault(layer, []).append(place)
            elif differs:
                stale.add(key)
                chosen.edited += 1
        chosen.layers.update(layers)
        return chosen

    def of_session(
        self, table: AnyTable, answer: Answer, rows: Rows, record: Record, replacing: Container[int]
    ) -> Chosen:
        """Choose all rows of a session or none, each key once, and note what it said."""
        key, value = session_key(answer.session_id or ""), _said(table, rows)
        answered = record.answered.setdefault(table.name, {})
        said, stale = record.said.setdefault(table.name, {}), record.stale_of(table.name)
        chosen = Chosen()
        before = answered.get(key)
        if before is not None:
            if said.get(key) == value and key not in stale:
                return chosen
            if 0 not in replacing:
                if key in said and said[key] != value:
                    said[key] = value
                    stale.add(key)
                    chosen.edited = 1
                return chosen
        first = rows.first_of_each_key()
        layer = 0
        if before:
            chosen.replaced = before
            layer = self.superseded.add(table.name, answer.test_id or "", key)
        if first:
            chosen.layers[layer] = first
        answered[key], said[key] = len(first), value
        stale.discard(key)
        return chosen


def _said(table: AnyTable, rows: Rows) -> int:
    """Return the hash of all that a session's answer says for a table."""
    extra = rows.own_extra
    told = (
        "" if extra is None else "\n".join(f"{at}:{more}" for at, more in enumerate(extra) if more)
    )
    version = table.version.to_bytes(4, "big")
    return row_hash(version + array("Q", rows.hashes).tobytes() + told.encode(errors="replace"))
