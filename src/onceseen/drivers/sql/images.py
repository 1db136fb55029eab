from collections.abc import Mapping, Sequence

from onceseen.domain.job import ImageFacts, NewImage
from onceseen.domain.views import FileRow
from onceseen.drivers.sql.cursor import Statements

# A submission that brings bytes replaces a location that is NULL or a user's own path (RECORD.md 3.6).
UPSERT = f"""
INSERT INTO image ({", ".join(NewImage._fields)}) VALUES :values
ON CONFLICT (project, digest) DO UPDATE SET deleted_at = NULL,
  pixel_digest = coalesce(image.pixel_digest, excluded.pixel_digest),
  location = CASE WHEN image.location IS NULL OR (image.location LIKE 'path:%' AND excluded.location IS NOT NULL)
                  THEN excluded.location ELSE image.location END
"""
DESCRIBE = "UPDATE image SET media_type = ?, width = ?, height = ? WHERE project = ? AND digest = ? AND width IS NULL"
# In two steps: one alone would read all images of the project in the order of the primary key.
ALIKE = (
    "SELECT digest FROM image WHERE project = ? AND digest IN "
    "(SELECT digest FROM image WHERE project = ? AND pixel_digest = ?) ORDER BY created_at, digest LIMIT ?"
)
UNNAMED = "NOT EXISTS (SELECT 1 FROM item WHERE item.digest = image.digest AND item.project = image.project)"
DELETED = f"SELECT project, digest, location FROM image WHERE deleted_at <= ? AND {UNNAMED} LIMIT ?"
STORED = "location IS NOT NULL AND location NOT LIKE 'path:%' AND deleted_at IS NULL"


class SqlImages(Statements):
    """ports.database.Images."""

    def upsert(self, images: Sequence[NewImage]) -> None:
        self._values(UPSERT, images)

    def describe(self, facts: Sequence[ImageFacts]) -> None:
        self._cursor.executemany(DESCRIBE, facts)

    def locate(self, project: int, digests: Sequence[bytes], *, paths: bool = False) -> dict[bytes, str]:
        kept = "location IS NOT NULL" if paths else STORED
        sql = f"SELECT digest, location FROM image WHERE project = ? AND digest IN (:list) AND {kept}"
        return dict(self._among(sql, digests, before=(project,)))

    def alike(self, project: int, pixel_digest: bytes, limit: int) -> list[bytes]:
        return [row[0] for row in self._all(ALIKE, (project, project, pixel_digest, limit))]

    def lose(self, project: int, digest: bytes, location: str) -> None:
        sql = "UPDATE image SET location = NULL WHERE project = ? AND digest = ? AND location = ?"
        self._cursor.execute(sql, (project, digest, location))

    def orphan(self, project: int, digests: Sequence[bytes], now: int) -> None:
        sql = f"UPDATE image SET deleted_at = ? WHERE project = ? AND digest IN (:list) AND {UNNAMED}"
        self._among(sql, digests, before=(now, project))

    def deleted(self, before: int, limit: int) -> list[tuple[int, bytes, str | None]]:
        return [(row[0], row[1], row[2]) for row in self._all(DELETED, (before, limit))]

    def remove(self, images: Sequence[tuple[int, bytes]]) -> None:
        self._cursor.executemany("DELETE FROM image WHERE project = ? AND digest = ?", images)

    def unnamed(self, locations: Sequence[str]) -> list[str]:
        named = {row[0] for row in self._among("SELECT location FROM image WHERE location IN (:list)", locations)}
        return [location for location in locations if location not in named]


class SqlFiles(Statements):
    """ports.database.Files."""

    def put(self, files: Sequence[FileRow]) -> None:
        sql = "INSERT INTO file (project, path, size, mtime_ns, digest) VALUES :values ON CONFLICT (project, path) DO UPDATE "
        self._values(sql + "SET size = excluded.size, mtime_ns = excluded.mtime_ns, digest = excluded.digest", files)

    def find(self, project: int, paths: Sequence[str]) -> Mapping[str, FileRow]:
        sql = "SELECT project, path, size, mtime_ns, digest FROM file WHERE project = ? AND path IN (:list)"
        return {row[1]: FileRow._make(row) for row in self._among(sql, paths, before=(project,))}
