"""How figures are told to people."""


def duration(seconds: float) -> str:
    """Return a time span as people say it: `42 s`, `12 min`, `17 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def size(count: int) -> str:
    """Return a number of bytes as people say it: `512 B`, `130.1 kB`, `4.2 GB`."""
    rest = float(count)
    for unit in ("B", "kB", "MB"):
        if rest < 1000:
            return f"{rest:.0f} {unit}" if unit == "B" else f"{rest:.1f} {unit}"
        rest /= 1000
    return f"{rest:.1f} GB"
