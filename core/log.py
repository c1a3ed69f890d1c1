"""Logging set-up: one line an event, facts as fields, secrets masked."""

import logging
import re
import sys
from urllib.parse import urlsplit, urlunsplit

_FIELD_SKIP = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_SECRET = re.compile(r"(?i)\b(token|apikey|api_key|crumb|password|secret|key)=([^&\s\"']+)")
_USERINFO = re.compile(r"://([^:/@\s]*):([^@/\s]+)@")


def mask(text: str) -> str:
    """Replace passwords in URLs and key-like query parameters by ``***``."""
    return _SECRET.sub(r"\1=***", _USERINFO.sub(r"://\1:***@", text))


def mask_url(url: str) -> str:
    """A URL fit for people's eyes: the password gone, query secrets gone."""
    parts = urlsplit(url)
    return mask(urlunsplit(parts))


class FieldFormatter(logging.Formatter):
    """``time level logger event key=value ...`` with secrets masked, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = " ".join(
            f"{key}={value}" for key, value in record.__dict__.items() if key not in _FIELD_SKIP
        )
        head, newline, rest = line.partition("\n")
        return mask(f"{head} {fields}".rstrip() + newline + rest)


def configure(level: str) -> None:
    """Send the root logger to stderr at ``level``; safe to call twice."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("rq").setLevel(logging.WARNING)
