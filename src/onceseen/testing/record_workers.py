"""The stateful test: what workers and servers do. Claims, answers, late twins, deaths, leases that are lost sight of, sweeps."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from onceseen.domain.machine import INNOCENT
from onceseen.flow import sweep
from onceseen.testing.record import DIED
from onceseen.testing.record_model import RUNNING, UNREADABLE, Server, Unit
from onceseen.testing.record_people import FREE, WHICH
from onceseen.testing.record_world import World


class Workers(World):
    """Rules."""

    @precondition(lambda self: any(server.held for server in self.servers))
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A worker starts."""
        data.draw(st.sampled_from([unit for server in self.servers for unit in server.held])).begun = True

    def _busy(self) -> list[tuple[Server, Unit]]:
        return [(server, unit) for server in self.servers for unit in server.held + server.early]

    @precondition(lambda self: self._busy())
    @rule(data=st.data(), error=st.sampled_from([None, None, "model-failed", UNREADABLE]), free=FREE)
    def answer(self, data: st.DataObject, error: str | None, free: int | None) -> None:
        """Some of them, also of those whose rows are not written yet."""
        for server, unit in data.draw(
            st.lists(st.sampled_from(self._busy()), min_size=1, max_size=4, unique_by=lambda each: id(each[1]))
        ):
            if unit.task is None:
                unit.answer, unit.answered = error, not unit.lost
            elif unit in server.held:
                self.end(server, unit)
                server.work.settled.append(server.record.answer(unit.task, error=error))
        for server in self.servers if free is not None else ():
            self.transact(server, free or 0)

    @precondition(lambda self: self.past)
    @rule(data=st.data(), which=WHICH, error=st.sampled_from([None, "model-failed"]))
    def late_twin(self, data: st.DataObject, which: int, error: str | None) -> None:
        """Of a dead or frozen worker, or a server that was judged dead and woke up."""
        unit = data.draw(st.sampled_from(self.past))
        assert unit.task is not None
        server = self.servers[which]
        server.work.settled.append(server.record.answer(unit.task, error=error, server=unit.server))

    @precondition(lambda self: self._busy())
    @rule(data=st.data())
    def crash_of_worker(self, data: st.DataObject) -> None:
        """With all that it held; what it had begun is suspect."""
        for server, unit in data.draw(st.lists(st.sampled_from(self._busy()), min_size=1, max_size=3)):
            if unit.task is None:
                unit.lost = not unit.answered
            elif unit in server.held:
                self.give_back(server, unit)

    def give_back(self, server: Server, unit: Unit) -> None:
        """An attempt ends without an answer."""
        assert unit.task is not None
        self.end(server, unit)
        server.work.given_back.append(server.record.given(unit.task, DIED if unit.begun else INNOCENT))

    def end(self, server: Server, unit: Unit) -> None:
        """Nobody works on it any more; it may still speak."""
        server.held.remove(unit)
        self.past.append(unit)

    @precondition(lambda self: any(server.held for server in self.servers))
    @rule(data=st.data())
    def lose_sight_of_a_lease(self, data: st.DataObject) -> None:
        """However that comes: RECORD.md 1.5 has its server find the row."""
        server, unit = data.draw(st.sampled_from([(server, unit) for server in self.servers for unit in server.held]))
        self.end(server, unit)
        self.dropped.append(unit)

    @precondition(lambda self: any(task.state == RUNNING for task in self.tasks.values()))
    @rule(which=WHICH)
    def look_for_lost_rows(self, which: int) -> None:
        """Within the next transaction."""
        self.servers[which].work.held = set()  # what is known then, is known when it begins

    @precondition(lambda self: any(job.receiving for job in self.jobs.values()))
    @rule(which=WHICH)
    def sweep_submissions(self, which: int) -> None:
        """Those with nobody who sends."""
        self._sweep(self.servers[which])

    def _sweep(self, server: Server) -> None:
        with self.database.begin() as tx:
            count = sweep.broken_off(tx, server.me, server.open_jobs)
        swept = []
        for name, job in self.jobs.items():
            nobody = name not in server.open_jobs if job.server == server.me else job.server in self.dead
            if job.receiving and not job.control and nobody:
                job.control, job.control_n = 2, 0
                swept.append(name)
        assert count == len(swept)

    @precondition(lambda self: self.jobs)
    @rule(which=WHICH, judge=WHICH, chance=st.integers(0, 2))
    def crash_of_server(self, which: int, judge: int, chance: int) -> None:
        """What it had not committed is lost. The other one, or its own next start, puts its tasks back."""
        if chance:
            return  # else nothing would ever come to its end
        crashed, other = self.servers[which], self.servers[1 - which]
        self.past += crashed.held
        record = crashed.record
        with self.database.begin() as tx:
            self.dead |= set(tx.servers.bury(other.me))
            record.me = tx.servers.begin("host", 1, record.time)
            assert tx.servers.living() == {record.me, other.me}
            back = sweep.of_dead_servers(tx)
            sweep.unfinished_local(tx)
            leftovers = tx.items.stranded(500)
        self.servers[which] = Server(record)
        self.servers[which].work.leftovers = leftovers
        self.servers[judge].work.given_back += back
        self.dropped = [unit for unit in self.dropped if unit.server not in self.dead]
        theirs = [task for task in self.tasks.values() if task.state == RUNNING and task.server in self.dead]
        assert {given.fence.id for given in back} == {task.id for task in theirs}
        assert set(leftovers) == self.stranded()
        for job in self.jobs.values():
            if job.local and job.server in self.dead and not job.control:
                job.expect, job.files = 0, {}
        self._sweep(self.servers[which])
