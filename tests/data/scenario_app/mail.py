"""Sends mail: something that is not the database, and that nobody gets."""

from __future__ import annotations


def send(text: str) -> None:
    """There is no mail server."""
