"""session-lint finds the SQLAlchemy session bugs that take production down."""

__version__ = "0.1.0"
