"""What goes wrong in a request, as OpenAI's error object: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from math import ceil
from typing import Any

from tunesmith.core.errors import DataError, MissingInputError, TunesmithError, UnavailableError, UsageError
from tunesmith.core.log import get_logger
from tunesmith.engines.base import Overloaded

__all__ = ["ApiError", "as_api_error", "bug", "invalid", "missing", "not_found", "server_error", "unsupported"]


class ApiError(Exception):
    """An answer that is an error. `param`: the field of the request, like `messages[2].content`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, param=param, code=code)


def missing(param: str) -> ApiError:
    return invalid(f"the field {param} is missing", param, "missing_required_parameter")


def unsupported(message: str, param: str, code: str = "unsupported_parameter") -> ApiError:
    """For what would change the answer, and cannot be honoured."""
    return invalid(message, param, code)


def not_found(message: str, param: str | None = None, code: str = "not_found") -> ApiError:
    return ApiError(404, message, param=param, code=code)


def server_error(message: str, status: int = 500, code: str = "server_error") -> ApiError:
    """The official client asks again after a status of 500 and above; for what would fail again that is waste."""
    return ApiError(status, message, kind="server_error", code=code, headers={"x-should-retry": "false"})


def bug(error: BaseException, request_id: str) -> ApiError:
    """For what should not happen. The log is told its place, without its words, which may be a prompt's."""
    frames = traceback.extract_tb(error.__traceback__)
    places = "".join(f"\n  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    get_logger().error("%s %s%s", request_id, type(error).__name__, places)
    return server_error(f"the server has failed at this request; its log tells more under {request_id}")


def as_api_error(error: TunesmithError, param: str | None = None) -> ApiError:
    """What an engine or a template refused. The user's mistakes are 400; the rest is the server's."""
    message = _in_words(error)
    if isinstance(error, Overloaded):
        seconds = str(max(1, ceil(error.retry_after)))
        return ApiError(
            429, message, kind="rate_limit_error", code="rate_limit_exceeded", headers={"Retry-After": seconds}
        )
    if isinstance(error, DataError | UsageError | MissingInputError):
        return invalid(message, param, error.code)
    if isinstance(error, UnavailableError):
        return server_error(message, 503, error.code)
    return server_error(message, 500, error.code)


def _in_words(error: TunesmithError) -> str:
    problem = error.problems[0]
    got = f" (got: {problem.got})" if problem.got else ""
    fix = f"; {problem.fix}" if problem.fix else ""
    return f"{problem.what}{got}{fix}"
