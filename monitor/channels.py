"""The channels that people are told through: apprise's services, by the URLs of the settings.

The only file that knows a URL or apprise. A URL is a secret, and for some services its host is one: what is shown,
stored or logged is the scheme, the host where it is one, and a keyed hash. Apprise's own log names URLs, so it is
off. `monitor/rendering.py` writes the text, and `models/observability/deliveries.py` says which channel is due what.
"""

from __future__ import annotations

import contextvars
import logging
import re
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from config.settings import Settings
from models.errors import ConfigurationError
from models.observability.deliveries import Notification
from models.secrets import Keyring
from monitor import rendering

if TYPE_CHECKING:
    from apprise import Apprise

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
# Longer is nobody waited for: what trickles in forever is taken for lost, and sent again.
IN_THE_AIR_SECONDS = 90.0
TITLE_ENDS = 20  # line breaks, and what a service puts around a title

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://")


class Channel:
    """One URL. `digest` is what the database knows it by, `name` what people do."""

    def __init__(self, url: SecretStr, keyring: Keyring, *, place: int) -> None:
        self._url = url
        self.digest = keyring.fingerprint(url)
        service = _open(url, place)[0]
        self.name = _shown(service)
        self._room = int(service.body_maxlen)
        self._has_titles = service.title_maxlen > 0

    def room(self, title: str) -> int:
        """Characters for the text; a service without titles puts ours above it."""
        return self._room - (0 if self._has_titles else len(title) + TITLE_ENDS)

    def send(self, title: str, text: str, kind: str) -> bool:
        """Whether the service took it; waits for it."""
        try:
            return bool(_open(self._url).notify(text, title=title, notify_type=kind, body_format="text"))
        except Exception:  # noqa: BLE001 - some hundred services of others: whatever one raises, it did not get through
            return False


class Sending:
    """A message on its way, in a thread of its own: a service may hang, and must not keep anybody from leaving."""

    def __init__(self, channel: Channel, title: str, text: str, kind: str) -> None:
        self.channel = channel
        self._began = time.monotonic()
        self._arrived = False
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=lambda: context.run(self._send, title, text, kind), name="notify", daemon=True
        )
        self._thread.start()

    def arrived(self, seconds: float = 0.0) -> bool | None:
        """Whether it got through; none while that is open, after a wait of so many seconds."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive() and time.monotonic() - self._began < IN_THE_AIR_SECONDS:
            return None
        return self._arrived

    def _send(self, title: str, text: str, kind: str) -> None:
        self._arrived = self.channel.send(title, text, kind)


def tell(channel: Channel, message: Notification) -> Sending:
    """Send the message on its way."""
    title = rendering.title(message)
    kind = "warning" if message.needs else "success"
    return Sending(channel, title, rendering.text(message, channel.room(title)), kind)


def channels(settings: Settings, keyring: Keyring) -> list[Channel]:
    """A channel for each URL; SETTINGS_INVALID names every one that can't be used, by its scheme alone."""
    urls = settings.notify_urls.get_secret_value().split()
    found: dict[str, Channel] = {}
    mistakes = []
    if urls:
        _hush()
    for place, url in enumerate(urls, start=1):
        try:
            channel = Channel(SecretStr(url), keyring, place=place)
        except ValueError as error:
            mistakes.append(str(error))
        else:
            found.setdefault(channel.digest, channel)
    if mistakes:
        raise ConfigurationError(
            "SETTINGS_INVALID", mistakes=f"COHORT_SYNC_NOTIFY_URLS: {'; '.join(mistakes)}"
        )
    return list(found.values())


def _hush() -> None:
    """Load apprise, once and by one thread; neither it nor what it sends with may log, as both name URLs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what its services import
        from apprise import Apprise

        Apprise.instantiate("json://localhost")  # that is when they are loaded
    for name in ("apprise", "urllib3.connectionpool"):
        logging.getLogger(name).disabled = True


def _open(url: SecretStr, place: int = 0) -> Apprise:
    """Apprise with this one service; ValueError says what is wrong without the URL."""
    from apprise import Apprise, AppriseAsset
    from apprise.common import OverflowMode

    asset = AppriseAsset(
        app_id="cohort-sync",
        app_desc="cohort-sync",
        app_url="",
        async_mode=False,
        service_timeout=0,  # it would wait in a thread that keeps the process from leaving
        http_redirects=False,  # followed, a POST becomes a GET: the message is gone, and the answer is 200
        storage_mode="memory",
        interpret_escapes=False,
    )
    service = Apprise.instantiate(url.get_secret_value(), asset=asset)
    if service is None:
        scheme = _SCHEME.match(url.get_secret_value())
        raise ValueError(
            f"{scheme[1].lower()}:// is no service of apprise, or its URL is not complete"
            if scheme
            else f"number {place} is no URL"
        )
    if service.overflow_mode is OverflowMode.UPSTREAM:  # too long would be refused for ever
        service.overflow_mode = OverflowMode.TRUNCATE
    service.socket_connect_timeout = max(service.socket_connect_timeout, CONNECT_SECONDS)
    service.socket_read_timeout = max(service.socket_read_timeout, READ_SECONDS)
    alone = Apprise(asset=asset)
    alone.add(service)
    return alone


def _shown(service: Any) -> str:
    """Scheme and host; the scheme alone where a token may stand in the host's place."""
    scheme = str(service.url(privacy=True)).partition("://")[0]
    real = service.templates and all("{host}" in template for template in service.templates)
    return f"{scheme}://{service.host}" if real and isinstance(service.host, str) else f"{scheme}://"
