"""Optional packages: asked for where they are needed, and named in one sentence where they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from pmaf.errors import MissingExtraError

__all__ = ["needs"]


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Turn a failed import inside the block into a sentence that says what to install.

    Args:
        extra: the extra of pmaf that brings the package.
        what: what needs it, as the subject of the sentence.

    Yields:
        Nothing; the imports belong inside the block.

    Raises:
        MissingExtraError: if an import inside the block fails.

    Example:
        >>> from pmaf.checks.extras import needs
        >>> with needs("cli", "reading .npy files"):
        ...     import numpy
    """
    try:
        yield
    except ImportError as error:
        package = error.name or "an optional package"
        raise MissingExtraError(f"{what} needs {package}: pip install 'pmaf[{extra}]'", name=error.name) from error
