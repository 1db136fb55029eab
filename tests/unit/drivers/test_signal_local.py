"""The local signal keeps nothing of waits that are over."""

import asyncio

import pytest

from onceseen.drivers.signal_local import SignalLocal


def test_nothing_is_kept_of_waits_that_are_over():
    signal = SignalLocal()

    async def main():
        waits = [asyncio.ensure_future(signal.wait(["a", f"job-{number}"], 30)) for number in range(100)]
        await asyncio.sleep(0)
        assert len(signal._waiters) == 101
        for wait in waits[:50]:
            wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits[0]
        signal.notify("a")
        assert await asyncio.gather(*waits[50:]) == [True] * 50
        assert await signal.wait(["a"], 0.01) is False
        assert signal._waiters == {}

    asyncio.run(main())


def test_waiters_on_two_loops_are_both_woken():
    signal = SignalLocal()

    async def wait():
        return await signal.wait(["a"], 5)

    async def main():
        elsewhere = asyncio.ensure_future(asyncio.to_thread(lambda: asyncio.run(wait())))
        here = asyncio.ensure_future(wait())
        while len(signal._waiters.get("a", ())) < 2:
            await asyncio.sleep(0.001)
        signal.notify("a")
        assert await here
        assert await elsewhere

    asyncio.run(main())
