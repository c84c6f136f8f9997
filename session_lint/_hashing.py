"""BLAKE2 without the rest of `hashlib`, whose import of OpenSSL takes as long as a tenth of a warm run."""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # another Python, or one built without it
    from hashlib import blake2b

__all__ = ["blake2b"]
