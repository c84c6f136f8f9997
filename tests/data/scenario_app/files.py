"""Where the examples' files lie."""


def remove(name: str) -> None:
    """There is no file `missing`."""
    if name == "missing":
        raise FileNotFoundError(name)
