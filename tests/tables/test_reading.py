"""How the fields of a table are read: what an upgrade may change, and what a drift does."""

import pyarrow as pa

from etl.tables.json_text import Json
from etl.tables.kinds import ID, TEXT, WHOLE
from etl.tables.reading import Field, Reader, without
from etl.tables.registry import tables
from etl.tables.values import Column
from tests.tables.served import answer, rejected

NAME = Field("name", "name", TEXT, "Its name.")
SIZE = Field("size.cm", "size_cm", WHOLE, "How tall it is.")
LAMPS: list[Json] = [{"id": "a", "name": "Table lamp", "size": {"cm": 40}}, {"id": "b"}]


def lamps(*fields: Field, **options) -> Reader:
    return Reader(Field("id", "lamp_id", ID, "The lamp."), *fields, **options)


def rows(reader: Reader, served, *, odd: bool = False):
    return reader.rows(reader.read(served, odd=odd), answer("lamps", b""), ("lamp_id",))


def test_a_column_that_an_upgrade_adds_makes_no_row_without_it_look_edited():
    before, after = rows(lamps(NAME), LAMPS), rows(lamps(NAME, SIZE), LAMPS)
    assert after.keys == before.keys
    assert after.hashes[1] == before.hashes[1] and after.hashes[0] != before.hashes[0]


def test_a_derived_column_is_no_part_of_what_was_served():
    reader = lamps(NAME, derived=[Column("shout", pa.string(), "Its name, aloud.")])
    reading = reader.read(LAMPS)
    reading.derived["shout"] = ["TABLE LAMP", None]
    made = reader.rows(reading, answer("lamps", b""), ("lamp_id",))
    assert made.hashes == rows(lamps(NAME), LAMPS).hashes
    assert made.columns["shout"].to_pylist() == ["TABLE LAMP", None]


def test_a_field_that_is_null_is_as_one_that_is_missing():
    nulls = [{"id": "b", "name": None, "size": None}]
    reader = lamps(NAME, SIZE)
    assert rows(reader, nulls).hashes == rows(reader, LAMPS[1:]).hashes


def test_reading_one_by_one_makes_the_same_rows_as_all_at_once():
    reader = lamps(NAME, place=Column("position", pa.int32(), "Its place."))
    served: list[Json] = [*LAMPS, {"id": "c", "new": 1}]
    one_by_one, at_once = (
        (read.keys, read.hashes, read.cells, read.extra, read.rejects, read.unknown_fields)
        for read in (rows(reader, served, odd=True), rows(reader, served))
    )
    assert one_by_one == at_once


def test_a_fault_changes_nothing_about_the_other_rows():
    reader = lamps(NAME, SIZE, place=Column("position", pa.int32(), "Its place."))
    made = rows(reader, [LAMPS[0], {"id": "x", "name": 5}, LAMPS[1]])
    assert made.columns["position"].to_pylist() == [0, 2]
    assert made.columns["size_cm"].to_pylist() == [40, None]
    assert [(one.reason, rejected(one)) for one in made.rejects] == [
        ("name is a number, not a string", {"id": "x", "name": 5})
    ]


def test_unknown_fields_are_kept_in_the_shape_that_they_had():
    reader = lamps(SIZE, within="shop.lamps")
    made = rows(reader, [{"id": "a", "size": {"cm": 4, "inch": [1, {"x": 2}]}, "on": None}])
    assert made.extra == ['{"on":null,"size":{"inch":[1,{"x":2}]}}']
    assert made.unknown_fields == {"shop.lamps.size.inch", "shop.lamps.on"}


def test_a_dot_in_the_name_of_a_field_is_no_step():
    made = rows(lamps(SIZE), [{"id": "a", "size": None, "size.cm": 5}, {"id": "b", "": 1}])
    assert made.columns["size_cm"].to_pylist() == [None, None]
    assert made.extra == ['{"size.cm":5}', '{"":1}']
    deep = lamps(Field("a.b.c", "c", TEXT, "Deep."))
    made = rows(deep, [{"id": "x", "a.b": 5}, {"id": "y", "a.b": {"c": "z"}, "a": {"b.c": 1}}])
    assert made.extra == ['{"a.b":5}', '{"a":{"b.c":1},"a.b":{"c":"z"}}']
    assert not made.rejects


def test_what_others_read_is_taken_out_without_touching_the_rest():
    whole: Json = {"a": 1, "b": {"c": 2, "d": 3}}
    assert without(whole, "b.c") == {"a": 1, "b": {"d": 3}}
    assert without(whole, "a", "b") == {}
    assert without(whole, "x", "a.y", "b.z.w") == whole
    assert whole == {"a": 1, "b": {"c": 2, "d": 3}}
    assert without("text", "a") == "text"


def test_a_file_says_which_version_of_its_table_it_holds():
    schema = tables()["clips"].schema()
    assert schema.metadata == {b"etl_table": b"clips", b"etl_table_version": b"1"}
