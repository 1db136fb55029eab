"""What every signal must do (ports/signal.py). A driver's test inherits the class and says how to make one."""

import asyncio
import threading
import time

import pytest

from onceseen.ports.signal import Signal


class SignalSuite:
    """Inherit, override `signal`. `SOON`: seconds within which a wake-up must come; `SETTLE`: until a wait counts."""

    SOON = 5.0
    SETTLE = 0.0

    @pytest.fixture
    def signal(self) -> Signal:
        """A signal that nobody uses yet."""
        raise NotImplementedError

    async def waiting(self, signal: Signal, *topics: str, count: int = 1) -> "list[asyncio.Task[bool]]":
        """Tasks that wait for the topics, begun."""
        tasks = [asyncio.ensure_future(signal.wait(topics, self.SOON)) for _ in range(count)]
        await asyncio.sleep(self.SETTLE)
        return tasks

    def test_nobody_calls(self, signal: Signal) -> None:
        """The wait ends after its time, with False; also with no time at all."""

        async def main() -> None:
            began = time.monotonic()
            assert await signal.wait(["a"], 0.05) is False
            assert 0.04 <= time.monotonic() - began < self.SOON
            assert await signal.wait(["a"], 0) is False
            assert await signal.wait([], 0.01) is False

        asyncio.run(main())

    def test_every_waiter_of_the_topic_wakes_and_no_other(self, signal: Signal) -> None:
        """Many waiters, several topics each."""

        async def main() -> None:
            woken = await self.waiting(signal, "a", "b", count=50)
            other = await self.waiting(signal, "c")
            signal.notify("b")
            signal.notify("nobody waits for this")
            assert all(await asyncio.gather(*woken))
            assert not other[0].done()
            signal.notify("c")
            assert await other[0]

        asyncio.run(main())

    def test_a_thread_may_notify(self, signal: Signal) -> None:
        """The loop sleeps in the system at that moment and must be woken."""

        async def main() -> None:
            tasks = await self.waiting(signal, "a", count=3)
            caller = threading.Timer(0.02, signal.notify, ["a"])
            began = time.monotonic()
            caller.start()
            assert all(await asyncio.gather(*tasks))
            assert time.monotonic() - began < self.SOON / 2, "nothing woke the loop but its own timeout"
            caller.join()

        asyncio.run(main())

    def test_what_was_notified_before_the_call_does_not_count(self, signal: Signal) -> None:
        """Who waits reads the record first."""

        async def main() -> None:
            signal.notify("a")
            await asyncio.sleep(max(self.SETTLE, 0.01))
            assert await signal.wait(["a"], 0.02) is False

        asyncio.run(main())

    def test_none_is_lost_once_the_wait_has_begun(self, signal: Signal) -> None:
        """A thousand times, from a thread that runs beside the loop."""

        async def main() -> None:
            for _ in range(1000):
                (task,) = await self.waiting(signal, "a")
                caller = threading.Thread(target=signal.notify, args=["a"])
                caller.start()
                assert await task
                caller.join()

        asyncio.run(main())

    def test_a_cancelled_wait_leaves_the_others(self, signal: Signal) -> None:
        """Cancelling is how a client that went away ends its wait."""

        async def main() -> None:
            gone, stays = await self.waiting(signal, "a", count=2)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            signal.notify("a")
            assert await stays

        asyncio.run(main())

    def test_notify_after_the_loop_has_ended_is_no_error(self, signal: Signal) -> None:
        """Threads may outlive the loop while a server shuts down."""

        async def main() -> None:
            await self.waiting(signal, "a")

        asyncio.run(main())
        signal.notify("a")
