"""Threads, and where they are kept."""

from __future__ import annotations

from sqlalchemy.orm import Session


class ThreadRepository:
    def __init__(self, session: Session) -> None:
        self.session = session
