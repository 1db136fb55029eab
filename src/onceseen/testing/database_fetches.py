"""What every database must do with URLs that wait to be fetched."""

from onceseen.domain.fetch import FetchRow, Postponed
from onceseen.domain.job import AssignedItem, ItemState
from onceseen.ports.database import Database
from onceseen.testing.database_rows import digest, ident, new_item, new_job

URL = "https://pictures.example/a.png"


def row(job: int, n: int, server: int = 1, next_at: int = 0) -> FetchRow:
    """A URL that waits."""
    return FetchRow(ident(job), n, f"{URL}?{n}", 0, server, 0, next_at)


class FetchCases:
    """Part of DatabaseSuite."""

    def test_a_url_comes_back_as_it_went_in(self, database: Database) -> None:
        """When its time has come, from its own server."""
        wanted = FetchRow(ident(1), 2_000_000_000_000, "https://x.example/" + "x" * 7900, 1, 7, 3, 100)
        with database.begin() as tx:
            tx.fetches.insert([wanted])
        with database.read() as reader:
            assert reader.fetches.due(7, ident(1), 100, 10) == [wanted]
            assert reader.fetches.due(7, ident(1), 99, 10) == []
            assert reader.fetches.due(8, ident(1), 100, 10) == []
            assert reader.fetches.due(7, ident(2), 100, 10) == []

    def test_those_that_wait_longest_come_first(self, database: Database) -> None:
        """Of the same time the first of the job."""
        with database.begin() as tx:
            tx.fetches.insert([row(1, 3, next_at=5), row(1, 2, next_at=5), row(1, 1, next_at=9), row(2, 0)])
            assert [found.n for found in tx.fetches.due(1, ident(1), 9, 10)] == [2, 3, 1]
            assert [found.n for found in tx.fetches.due(1, ident(1), 9, 2)] == [2, 3]

    def test_jobs_come_in_order_and_each_once(self, database: Database) -> None:
        """From the one after, of one server or of all."""
        with database.begin() as tx:
            tx.fetches.insert([row(job, n) for job in (3, 1, 5) for n in range(600)] + [row(4, 0, server=2)])
            assert tx.fetches.jobs(1, b"", 10) == [ident(1), ident(3), ident(5)]
            assert tx.fetches.jobs(1, ident(1), 1) == [ident(3)]
            assert tx.fetches.jobs(1, ident(5), 10) == []
            assert tx.fetches.jobs(None, ident(1), 10) == [ident(3), ident(4), ident(5)]

    def test_a_url_is_taken_once_and_by_its_server_alone(self, database: Database) -> None:
        """This is the fence of what was fetched."""
        items = [(ident(1), n) for n in range(3)]
        with database.begin() as tx:
            tx.fetches.insert([row(1, 0), row(1, 1, server=2), row(2, 2)])
            assert tx.fetches.take(items, 1) == {(ident(1), 0)}
            assert tx.fetches.take(items, 1) == set()
            assert tx.fetches.take(items, 2) == {(ident(1), 1)}
            assert tx.fetches.jobs(None, b"", 10) == [ident(2)]

    def test_only_its_server_postpones_a_url(self, database: Database) -> None:
        """And one that was taken meanwhile stays away."""
        with database.begin() as tx:
            tx.fetches.insert([row(1, 0), row(1, 1, server=2)])
            tx.fetches.postpone([Postponed(2, 50, ident(1), n, 1) for n in range(3)])
            assert tx.fetches.due(1, ident(1), 49, 10) == []
            assert tx.fetches.due(1, ident(1), 50, 10) == [row(1, 0)._replace(tries=2, next_at=50)]
            assert tx.fetches.due(2, ident(1), 0, 10) == [row(1, 1, server=2)]

    def test_urls_of_dead_servers_are_adopted_step_by_step(self, database: Database) -> None:
        """Those of live ones stay where they are."""
        with database.begin() as tx:
            first = tx.servers.begin("host", 1, 1)
            tx.fetches.insert([row(1, n, server=first) for n in range(5)])
            me = tx.servers.begin("host", 2, 2)
            assert tx.fetches.adopt(me, 10) == 0
            tx.servers.bury(me)
            assert tx.fetches.adopt(me, 3) == 3
            assert tx.fetches.adopt(me, 3) == 2
            assert tx.fetches.adopt(me, 3) == 0
            assert len(tx.fetches.due(me, ident(1), 0, 10)) == 5

    def test_urls_that_nobody_wants_are_forgotten_in_order(self, database: Database) -> None:
        """Of one job, whatever their server and time."""
        with database.begin() as tx:
            tx.fetches.insert([row(1, n, server=n, next_at=9) for n in range(6)] + [row(2, 3)])
            tx.fetches.forget(ident(1), 2, 3)
            assert tx.fetches.take([(ident(1), 4)], 4) == set()
            assert tx.fetches.take([(ident(1), 5)], 5) == {(ident(1), 5)}
            tx.fetches.forget(ident(1), 0, 100)
            assert tx.fetches.jobs(None, b"", 10) == [ident(2)]

    def test_an_item_is_given_its_task_once(self, database: Database) -> None:
        """Only while it waits without one."""
        with database.begin() as tx:
            tx.jobs.insert([new_job(1, total=3, pending=2)])
            waiting = new_item(1, 0, 7)._replace(task=None, digest=None)
            ended = new_item(1, 1, 7, ItemState.CANCELLED)._replace(task=None, digest=None)
            tx.items.insert([waiting, ended, new_item(1, 2, 7)])
            tx.items.assign([AssignedItem(digest(5), ident(9), 1, ident(1), n) for n in range(3)])
            assert tx.items.slice(ident(1), 0, 9) == [
                waiting._replace(digest=digest(5), task=ident(9), reused=1),
                ended,
                new_item(1, 2, 7),
            ]
