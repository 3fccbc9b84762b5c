"""Figures as a reader takes them in: few digits, a unit, a true minus."""

from __future__ import annotations


def rate(value: float) -> str:
    """Per second, or a number of things at a time."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 1 else f"{value:.2f}" if size else "0"


def duration(ms: float) -> str:
    """Milliseconds as "340 ms", "1.52 s", "3 min"."""
    size = abs(ms)
    if size < 1:
        return f"{ms:.2f} ms" if size else "0 ms"
    if size < 10:
        return f"{ms:.1f} ms"
    if size < 1000:
        return f"{ms:.0f} ms"
    return (
        f"{ms / 1000:.2f} s" if size < 10_000 else f"{ms / 1000:.1f} s" if size < 120_000 else f"{ms / 60_000:.0f} min"
    )


def tick_ms(ms: float) -> str:
    """A duration beside an axis: "200 ms", "5 s"."""
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"


def percent(share: float) -> str:
    """A share as "12%", or "0.4%" where it is small."""
    value = share * 100
    return f"{value:.0f}%" if value >= 10 or value == 0 else f"{value:.1f}%" if value >= 0.1 else f"{value:.2f}%"


def dollars(usd: float) -> str:
    """US dollars: "$12.40", "$0.0031" where it is little."""
    size = abs(usd)
    text = f"{size:,.0f}" if size >= 1000 else f"{size:.2f}" if size >= 1 or not size else f"{size:.2g}"
    return f"{'−' if usd < 0 else ''}${text if 'e' not in text else f'{size:.7f}'.rstrip('0')}"


def count(value: float) -> str:
    """A number of things: "12,300"."""
    return f"{value:,.0f}"


def size(amount: float) -> str:
    """Bytes as "1.2 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def clock(seconds: float) -> str:
    """Time since a beginning as "2:05" (minutes and seconds) or "1:02:05"."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def plain(value: float) -> str:
    """A tick of a number: "2.5", "1,200"."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"
