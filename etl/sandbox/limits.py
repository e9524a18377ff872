"""The rate limit: a strict sliding window by arrival, for one set of credentials."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class RateLimiter:
    """Counts arrivals; `requests` None never refuses, but still sends headers."""

    requests: int | None
    seconds: float
    neighbour: int = 0
    arrivals: deque[float] = field(default_factory=deque)
    neighbour_window: float = float("-inf")

    def arrive(self, now: float) -> bool:
        """Take in an arrival; return whether it is within the limit."""
        if self.requests is None:
            return True
        while self.arrivals and self.arrivals[0] <= now - self.seconds:
            self.arrivals.popleft()
        if self.neighbour and now - self.neighbour_window >= self.seconds:
            # Somebody else with these credentials takes a part of every window.
            self.neighbour_window = now
            for _ in range(min(self.neighbour, self.requests - len(self.arrivals))):
                self.arrivals.append(now)
        if len(self.arrivals) >= self.requests:
            return False
        self.arrivals.append(now)
        return True

    def headers(self, now: float) -> dict[str, str]:
        """Return the rate headers of an answer."""
        if self.requests is None:
            limit, remaining, reset = 1_000_000, 999_999, 1
        else:
            limit, remaining = self.requests, max(0, self.requests - len(self.arrivals))
            oldest = self.arrivals[0] if self.arrivals else now
            reset = max(0, int(oldest + self.seconds - now + 0.999))
        return {
            "x-ratelimit-limit": str(limit),
            "x-ratelimit-remaining": str(remaining),
            "x-ratelimit-reset": str(reset),
        }
