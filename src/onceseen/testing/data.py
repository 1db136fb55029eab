"""Where test data lie: ONCESEEN_TEST_DATA, else `../shared/data` beside the repository."""

import os
from pathlib import Path

_REPOSITORY = Path(__file__).parents[3]


def test_data(*parts: str) -> Path:
    """A file or folder of the test data; skips the test, with the reason, where it is absent."""
    import pytest

    given = os.environ.get("ONCESEEN_TEST_DATA")
    root = Path(given) if given else _REPOSITORY.parent / "shared" / "data"
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"test data {'/'.join(parts) or 'folder'} absent; set ONCESEEN_TEST_DATA")
    return path


test_data.__test__ = False  # type: ignore[attr-defined]  # a helper that tests import, not a test
