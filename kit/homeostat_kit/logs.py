"""Logs as events with fields: one JSON line each, to stdout."""

import json
import logging
import sys
import time
from typing import Any

# aiokafka logs every failed connection attempt; the bus logs the change of state once.
_QUIET = {
    "aiokafka": logging.CRITICAL,
    "asyncio": logging.ERROR,
    "opentelemetry": logging.ERROR,
    "grpc": logging.ERROR,
}
_FIELDS = "homeostat_fields"


class Logger:
    """Logs events by constant names; what varies goes into fields."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """For whoever searches for a fault."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Something worth knowing happened."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something is wrong outside, and will be tried again."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something was given up."""
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Like ``error``, with the traceback of the exception in hand."""
        self._log(logging.ERROR, event, fields, with_traceback=True)

    def _log(
        self, level: int, event: str, fields: dict[str, Any], *, with_traceback: bool = False
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=with_traceback, extra={_FIELDS: fields})


class JsonLines(logging.Formatter):
    """One record as one line of JSON; fields of an event stand beside its name."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(getattr(record, _FIELDS, {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(service: str, level: str = "INFO") -> None:
    """Sends every log record of the process to stdout; a second call changes name and level."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(service))
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each.formatter, JsonLines)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, floor in _QUIET.items():
        logging.getLogger(name).setLevel(floor)


def get_logger(name: str) -> Logger:
    """A logger for one module or service; cheap, and may be called before ``configure``."""
    return Logger(name)


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}Z"
