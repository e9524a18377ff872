"""Decides whether a page connects with the rows that are known."""


def without_repeats(ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return the ids of a page, each once, in the order served."""
    return ids if len(set(ids)) == len(ids) else tuple(dict.fromkeys(ids))


def row_where_it_connects(fresh: tuple[int, ...], page: tuple[int, ...], start: int) -> int | None:
    """Return the row of `fresh` with which the page begins, or None if they do not connect.

    The page must repeat `fresh` from there to its end (or lie in it whole): a longer
    overlap than was asked is rows that came meanwhile, and harmless.
    """
    if not fresh or not page:
        return len(fresh)
    if fresh[start:] == page[: len(fresh) - start]:
        return start  # rows that stand twice are found when the listing is judged
    try:
        begins_at = fresh.index(page[0])
    except ValueError:
        return None
    overlap = fresh[begins_at : begins_at + len(page)]
    connects = page[: len(overlap)] == overlap and set(fresh).isdisjoint(page[len(overlap) :])
    return begins_at if connects else None
