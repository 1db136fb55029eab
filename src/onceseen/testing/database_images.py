"""The part of the database suite that is about images: where their bytes lie, and when nobody names them any more."""

import pytest

from onceseen.domain.job import ImageFacts, ItemState
from onceseen.ports.database import Database
from onceseen.testing.database_rows import digest, new_image, new_item
from onceseen.testing.database_tasks import MANY


class ImageCases:
    """Inherited by DatabaseSuite."""

    @pytest.mark.parametrize(
        ("there", "comes", "stays"),
        [
            (None, "pack:1", "pack:1"),
            (None, None, None),
            ("path:/a", "pack:1", "pack:1"),
            ("path:/a", None, "path:/a"),
            ("pack:1", "pack:2", "pack:1"),
            ("pack:1", None, "pack:1"),
        ],
    )
    def test_bytes_that_come_replace_what_is_missing_or_not_ours(
        self, database: Database, there: str | None, comes: str | None, stays: str | None
    ) -> None:
        """RECORD.md 3.6; only what lies in the store is located."""
        with database.begin() as tx:
            tx.images.upsert([new_image(1, there)])
            tx.images.upsert([new_image(1, comes, bytes=7)])
            image = tx.views.image(1, digest(1))
            assert image is not None
            assert (image.location, image.bytes) == (stays, 100)
            stored = {digest(1): stays} if stays and stays.startswith("pack:") else {}
            assert tx.images.locate(1, [digest(1), digest(2)]) == stored
            assert tx.images.locate(1, [digest(1)], paths=True) == ({digest(1): stays} if stays else {})
            assert tx.images.locate(2, [digest(1)], paths=True) == {}

    def test_bytes_are_lost_at_one_place_only(self, database: Database) -> None:
        """A place that was replaced meanwhile stays."""
        with database.begin() as tx:
            tx.images.upsert([new_image(1, "pack:1"), new_image(2, "pack:2")])
            tx.images.lose(1, digest(1), "pack:9")
            tx.images.lose(2, digest(1), "pack:1")
            assert tx.images.locate(1, [digest(1)]) == {digest(1): "pack:1"}
            tx.images.lose(1, digest(1), "pack:1")
            assert tx.images.locate(1, [digest(1), digest(2)]) == {digest(2): "pack:2"}
            assert tx.images.unnamed(["pack:1", "pack:2", "pack:3"]) == ["pack:1", "pack:3"]

    def test_an_image_is_forgotten_only_while_no_item_names_it(self, database: Database) -> None:
        """Marked, then listed once its time has come; a submission takes it back."""
        with database.begin() as tx:
            tx.images.upsert([new_image(number, f"pack:{number}") for number in range(4)])
            tx.items.insert([new_item(1, 0, 1, ItemState.SUCCEEDED)])
            tx.images.orphan(1, [digest(number) for number in range(4)], 5000)
            assert tx.images.deleted(4999, 9) == []
            found = tx.images.deleted(5000, 9)
            assert sorted(found) == [(1, digest(n), f"pack:{n}") for n in (0, 2, 3)]
            everyone = [digest(number) for number in range(4)]
            assert tx.images.locate(1, everyone) == {digest(1): "pack:1"}, "its bytes may go at any moment"
            assert len(tx.images.locate(1, everyone, paths=True)) == 4
            assert len(tx.images.deleted(5000, 2)) == 2
            tx.images.upsert([new_image(2)])
            assert tx.images.locate(1, [digest(2)]) == {digest(2): "pack:2"}
            tx.items.insert([new_item(1, 1, 3)])
            assert [row[1] for row in tx.images.deleted(9999, 9)] == [digest(0)]
            tx.images.remove([(1, digest(0)), (2, digest(1))])
            assert tx.views.image(1, digest(0)) is None
            assert tx.views.image(1, digest(1)) is not None

    def test_an_image_is_described_by_its_first_run(self, database: Database) -> None:
        """Many at once; later runs say the same and change nothing."""
        with database.begin() as tx:
            tx.images.upsert([new_image(number, f"pack:{number}") for number in range(MANY)])
            tx.images.describe([ImageFacts("image/png", 3, 4, 1, digest(number)) for number in range(MANY)])
            tx.images.describe([ImageFacts("image/gif", 9, 9, 1, digest(5))])
            image = tx.views.image(1, digest(5))
            assert image is not None
            assert (image.media_type, image.width, image.height) == ("image/png", 3, 4)
            assert len(tx.images.locate(1, [digest(number) for number in range(MANY)])) == MANY
