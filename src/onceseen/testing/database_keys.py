"""What every database must do with idempotency keys."""

from onceseen.domain.job import KeyRow
from onceseen.ports.database import Database
from onceseen.testing.database_rows import digest, ident

KEY = KeyRow(1, "a key", ident(1), 1, None, 100)


class KeyCases:
    """Part of DatabaseSuite."""

    def test_a_key_belongs_to_the_first_that_claims_it(self, database: Database) -> None:
        """Claiming twice for one job is no harm: the answer to a COMMIT may have been lost."""
        with database.begin() as tx:
            assert tx.keys.get(1, "a key") is None
            assert tx.keys.claim(KEY)
            assert tx.keys.claim(KEY)
            assert not tx.keys.claim(KEY._replace(job=ident(2)))
            assert tx.keys.claim(KEY._replace(project=2, job=ident(2)))
            assert tx.keys.claim(KEY._replace(key="A KEY", job=ident(3)))
        with database.read() as reader:
            assert reader.keys.get(1, "a key") == (KEY, False)

    def test_only_its_job_completes_or_forgets_a_key(self, database: Database) -> None:
        """A job that lost its key changes nothing any more."""
        with database.begin() as tx:
            tx.keys.claim(KEY)
            tx.keys.complete(KEY._replace(job=ident(2), body_hash=digest(2)))
            assert tx.keys.get(1, "a key") == (KEY, False)
            tx.keys.complete(KEY._replace(body_hash=digest(1)))
            tx.keys.forget(1, "a key", ident(2))
            assert tx.keys.get(1, "a key") == (KEY._replace(body_hash=digest(1)), False)
            tx.keys.forget(1, "a key", ident(1))
            assert tx.keys.get(1, "a key") is None

    def test_a_key_says_whether_its_server_lives(self, database: Database) -> None:
        """A server that is dead holds nothing."""
        with database.begin() as tx:
            first = tx.servers.begin("host", 1, 1)
            tx.keys.claim(KEY._replace(server=first))
            assert tx.keys.get(1, "a key") == (KEY._replace(server=first), True)
            tx.servers.bury(tx.servers.begin("host", 2, 2))
            assert tx.keys.get(1, "a key") == (KEY._replace(server=first), False)

    def test_old_keys_are_pruned(self, database: Database) -> None:
        """Those of the time itself stay."""
        with database.begin() as tx:
            tx.keys.claim(KEY)
            tx.keys.claim(KEY._replace(key="b", created_at=99))
            tx.keys.prune(100)
            assert tx.keys.get(1, "b") is None
            assert tx.keys.get(1, "a key") is not None
