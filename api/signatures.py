"""Who holds a secret of ours said exactly these bytes, just now: webhooks after the Standard Webhooks specification."""

import base64
import hmac
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import structlog

from api.problems import UntrustedWebhookError

TOLERANCE_S = 300
SIGNATURES_MAX = 16
"""A sender signs with each secret that it has not put away yet: two, while one replaces the other."""
FILE_BYTES_MAX = 4_096
SECRET_BYTES_MIN = 24
PREFIX = "whsec_"

_EVENT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""Without a dot, which divides what is signed."""
_TIMESTAMP = re.compile(r"[0-9]{1,12}")

log = structlog.get_logger(__name__)


class Secrets:
    """The secrets of a file, one `whsec_…` (Base64) on a line; a missing or broken file holds none.

    Read for every webhook: they are few, and a secret that is taken out stops counting at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complained = False

    def current(self) -> Sequence[bytes]:
        try:
            with self._path.open("rb") as file:
                lines = file.read(FILE_BYTES_MAX).decode("ascii").split()
            secrets = [_secret_of(line) for line in lines]
        except (OSError, ValueError) as error:
            self._complain(error)
            return []
        self._complained = False
        return secrets

    def _complain(self, error: Exception) -> None:
        """Once until it is mended, for anybody may call; never in the error's own words, which may quote the file."""
        if not self._complained:
            log.warning("webhook_secrets_unreadable", path=str(self._path), error=type(error).__name__)
        self._complained = True


def _secret_of(line: str) -> bytes:
    secret = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError("a short secret can be guessed, an empty one is everybody's")
    return secret


class WebhookVerifier:
    """From a request to the id of the event that it tells of."""

    def __init__(self, secrets: Secrets, clock: Callable[[], float] = time.time) -> None:
        self._secrets = secrets
        self._clock = clock

    def event_id_of(self, headers: Mapping[str, str], body: bytes) -> str:
        """Raises UntrustedWebhookError for whatever is missing, stale or signed by nobody we know."""
        event_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not _EVENT_ID.fullmatch(event_id) or not _TIMESTAMP.fullmatch(timestamp):
            raise UntrustedWebhookError("webhook-id and webhook-timestamp are needed.")
        if abs(self._clock() - int(timestamp)) > TOLERANCE_S:
            raise UntrustedWebhookError(f"The timestamp is more than {TOLERANCE_S} s from now.")
        content = f"{event_id}.{timestamp}.".encode() + body
        if not self._is_signed(content, headers.get("webhook-signature", "")):
            raise UntrustedWebhookError("No signature is of a secret that we know.")
        return event_id

    def _is_signed(self, content: bytes, header: str) -> bool:
        given = list(_digests(header))
        ours = [hmac.new(secret, content, sha256).digest() for secret in self._secrets.current()]
        # All pairs are compared, each in constant time: how long it takes says nothing of what was right.
        return sum(hmac.compare_digest(one, other) for one in ours for other in given) > 0


def _digests(header: str) -> Iterator[bytes]:
    """Of the signatures `v1,<Base64>`, divided by blanks; other versions, and what is no Base64, are passed over."""
    for signature in header.split()[:SIGNATURES_MAX]:
        version, _, encoded = signature.partition(",")
        if version == "v1":
            try:
                yield base64.b64decode(encoded, validate=True)
            except ValueError:
                continue
