"""What these tests share with those of the shim."""

from __future__ import annotations

from probing import probe

__all__ = ["probe"]
