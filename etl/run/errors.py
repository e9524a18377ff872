"""Makes one error of a group: stages that fail together fail of one cause."""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import BrokenResourceError

from etl.errors import EtlError


@contextmanager
def single_error() -> Iterator[None]:
    """Raise the first of our errors in a group that the block raises, or the bug in it."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours = group.subgroup(EtlError)
        if ours is not None:
            raise first_error(ours) from None
        # A stage that fails breaks the streams to it: what the others then raise says nothing.
        causes = group.split(BrokenResourceError)[1]
        bug = _leaf(causes or group)
        raise bug from bug.__cause__  # without the group, with what led to it


def first_error(group: BaseExceptionGroup[EtlError]) -> EtlError:
    """Return the first of our errors in a group."""
    error = _leaf(group)
    assert isinstance(error, EtlError)  # noqa: S101 - what the type says
    return error


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
