"""Structured logs to standard error, without patient data.

Events are short snake_case words with keys; UIDs and AE titles may appear, names, ids and dates of patients never. The
loggers and warnings of the DICOM libraries quote attribute values, so they are silenced here.
"""

from __future__ import annotations

import logging
import sys
import warnings

import pydicom.config
import structlog

from node.config import LogSettings

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up(settings: LogSettings, role: str) -> None:
    """Configure logging of this process; ``role`` is in every line."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if settings.format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings quote values
    for name in ("pydicom", "pynetdicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for module in ("pydicom", "pynetdicom", "highdicom"):
        warnings.filterwarnings("ignore", module=module)


def get() -> structlog.stdlib.BoundLogger:
    """The process's logger."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger
