"""Finds the way out that the environment names for a URL."""

from urllib.request import getproxies, proxy_bypass

from yarl import URL


def proxy_for(url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY and NO_PROXY name for a URL, if any.

    Plain http is for loopback alone, and what is sent there in clear leaves by no proxy.
    aiohttp's own `trust_env` asks the environment and `.netrc` anew, in a thread, for each
    request: a tenth of a page's time, and credentials that nobody meant for this API.
    """
    target = URL(url)
    if target.scheme != "https" or proxy_bypass(f"{target.host}:{target.port}"):
        return None
    return getproxies().get("https")
