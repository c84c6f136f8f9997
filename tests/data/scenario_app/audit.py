"""A function of another module that ends what it is handed."""

from __future__ import annotations

from sqlalchemy.orm import Session


def finish(session: Session) -> None:
    """Commit."""
    session.commit()
