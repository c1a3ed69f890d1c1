"""Whose TLS and headers Yahoo is shown, by the session's maker and by its users alike."""

from curl_cffi.requests.impersonate import DEFAULT_CHROME

BROWSER = DEFAULT_CHROME
"""curl_cffi's newest Chrome; cookie and crumb are made and used with the same."""
