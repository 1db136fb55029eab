"""A client that is in the middle of something when its server is killed and started again goes on."""

import os
import signal
import socket
import threading

from onceseen import Client
from onceseen.testing.pictures import slow, slow_model
from onceseen.testing.running import RunningServer


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def test_results_events_and_submissions_survive_a_kill_of_the_server(tmp_path):
    with RunningServer(tmp_path / "data", flags=["--port", str(free_port())]) as server:
        server.add_model(slow_model(tmp_path / "slow"))
        with Client(server.url, total=60) as client:
            given = [(f"{n}.png", slow(4, n)) for n in range(40)]
            job = client.submit(given, model="slow", idempotency_key="one night")
            events, results = client.follow(job=job.id, after=0), job.results()
            kinds = [next(events).kind]
            numbers = [next(results).n]
            os.killpg(server.pid, signal.SIGKILL)
            again = []
            caller = threading.Thread(
                target=lambda: again.append(client.submit(given, model="slow", idempotency_key="one night"))
            )
            caller.start()  # while nobody listens
            server.start()
            numbers += [item.n for item in results]
            assert sorted(numbers) == list(range(40))
            assert (job.state, job.succeeded) == ("succeeded", 40)
            caller.join(60)
            assert [each.id for each in again] == [job.id]
            while kinds[-1] != "job.finished":
                kinds.append(next(events).kind)
            assert kinds[0] == "job.created"
            assert len(list(client.jobs())) == 1
