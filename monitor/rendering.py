"""The text of a message: one for everything that is new, lasts or is over, as long as its reader or service can bear.

Pure. What stands in a notice may be told to anybody who may read the status page; it holds no key and no secret.
"""

from __future__ import annotations

from datetime import datetime

from models.observability.deliveries import LINES, Notification, NotificationLine

LINE_MAX = 600


def title(message: Notification) -> str:
    """What a telephone shows."""
    needs, over = message.needs, message.over
    said = []
    if needs:
        said.append(f"{needs:,} thing needs you" if needs == 1 else f"{needs:,} things need you")
    if over:
        noun = "" if needs else " thing" if over == 1 else " things"
        said.append(f"{over:,}{noun} {'is' if over == 1 else 'are'} over")
    return f"cohort-sync: {', '.join(said)}"


def text(message: Notification, room: int) -> str:
    """A line for each, in `room` characters, and how many more there are."""
    total = message.needs + message.over
    shown: list[str] = []
    for line in message.lines[: LINES if total <= LINES else LINES - 1]:
        rest = total - len(shown) - 1
        left = room - sum(len(one) + 1 for one in shown) - (len(_more(rest)) + 1 if rest else 0)
        said = _line(line)
        if len(said) > left and shown:
            break
        shown.append(_cut(said, left))
    if total > len(shown):
        shown.append(_more(total - len(shown)))
    return "\n".join(shown)


def _line(line: NotificationLine) -> str:
    if line.ended_at is not None:
        said = f"Over: {line.about}: {line.code} ({_at(line.began_at)} to {_at(line.ended_at)} UTC)"
    elif line.again:
        said = f"Still: {line.about}: {line.code}: {line.message} {line.remedy} (Since {_at(line.began_at)} UTC.)"
    else:
        said = f"{line.about}: {line.code}: {line.message} {line.remedy}"
    return _cut(" ".join(said.split()), LINE_MAX)


def _more(count: int) -> str:
    return f"and {count:,} more: `cohort-sync notices`"


def _cut(said: str, room: int) -> str:
    return said if len(said) <= room else said[: max(0, room - 1)] + "…"


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M}"
