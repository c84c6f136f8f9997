"""What a job does."""

from __future__ import annotations

from app.models import Job


def work(job: Job) -> None:
    """The second job can't be done."""
    if job.name == "broken":
        raise RuntimeError(job.name)
