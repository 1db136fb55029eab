"""When a call is repeated, and what a refusal means."""

import random
from time import monotonic

import msgspec

from onceseen import errors
from onceseen.client.pipes import Answer
from onceseen.errors import OnceseenError, RequestError, ServerError, StoreError, Unauthorised

SHORTEST, LONGEST = 0.1, 5.0
"""Seconds between two tries, at first and at most; each is chosen at random from the upper half."""
PASSING = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses that may be another one in a moment; so may a 409 that says when."""


def _by_code() -> dict[str, type[OnceseenError]]:
    kinds = (RequestError, StoreError)
    known = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, kinds)]
    return {kind.code: kind for kind in known if kind not in kinds}


KINDS = _by_code()


class Patience:
    """How long one call is repeated: `total` seconds, counted from its first failure; so every call has a second try."""

    def __init__(self, total: float) -> None:
        self._total = total
        self._failed_at: float | None = None
        self._pause = SHORTEST

    def reset(self) -> None:
        """It went well: what fails from now on is a new failure."""
        self._failed_at, self._pause = None, SHORTEST

    def pause(self, at_least: float = 0.0, total: float | None = None) -> float | None:
        """Seconds to wait before the next try; None when there is to be none."""
        now = monotonic()
        if self._failed_at is None:
            self._failed_at = now
        left = self._failed_at + (self._total if total is None else min(total, self._total)) - now
        pause = max(at_least, self._pause * random.uniform(0.5, 1.0))
        self._pause = min(LONGEST, 2 * self._pause)
        return pause if pause < left else None


def passes(answer: Answer) -> bool:
    """Whether the same request may be answered otherwise in a moment."""
    return answer.status in PASSING or (answer.status == 409 and "retry-after" in answer.headers)


def retry_after(answer: Answer) -> float:
    """Seconds that the server wants us to wait; 0 when it says none (or a date, which no server of ours does)."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def problem(answer: Answer, url: str) -> OnceseenError:
    """A refusal as an error of the kind that its code names, with the server's own sentence."""
    if answer.status == 401:
        return Unauthorised(f"The server at {url} needs an API key: --api-key, api_key=..., or ONCESEEN_API_KEY.")
    try:
        document = msgspec.json.decode(answer.content)
        message, code = str(document["detail"]), str(document["code"])
    except (msgspec.DecodeError, KeyError, TypeError):
        error: OnceseenError = ServerError(
            f"The server at {url} answered {answer.status} without saying why; is it Onceseen's, and not a proxy's?"
        )
    else:
        error = KINDS.get(code, ServerError)(message)
        error.code = code
    error.status = answer.status
    return error
