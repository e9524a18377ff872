"""How text leaves for a terminal: foreign characters made visible, secrets left out."""

from etl.config.secrets import masked


def printable(text: str) -> str:
    """Return text without secrets, and with what a terminal would obey made visible instead."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else repr(character)[1:-1]
        for character in masked(text)
    )


def on_one_line(text: str) -> str:
    """Return printable text that cannot begin a line of its own: for cells and log values."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")
