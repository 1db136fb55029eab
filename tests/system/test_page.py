"""The home page in a real browser."""

from collections.abc import Iterator

import pytest

from onceseen.testing.browser import Browser
from onceseen.testing.running import RunningServer

UNTIL = """(async (look) => {
  for (let tries = 0; tries < 200; tries += 1) {
    if (look()) return look();
    await new Promise((done) => setTimeout(done, 50));
  }
  return null;
})"""
NASTY = "<img src=x onerror=window.hacked=1>.png"


@pytest.fixture(scope="module")
def running() -> Iterator[RunningServer]:
    with RunningServer(samples=True) as server:
        yield server
        server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def test_the_samples_are_shown_with_pictures_and_answers(running: RunningServer, browser: Browser):
    browser.open(running.url)
    assert browser.run(f"{UNTIL}(() => document.getElementById('live').textContent === 'live')")
    cards = browser.run("[...document.querySelectorAll('.card')].map((card) => card.innerText)")
    assert len(cards) == len(running.get("/v1/predictions")["items"])
    assert any("espresso" in card for card in cards)
    pictures = "[...document.querySelectorAll('.picture img')].slice(0, 4)"
    assert browser.run(f"{UNTIL}(() => {pictures}.every((image) => image.complete && image.naturalWidth > 0))")
    assert browser.complaints == []


def test_a_drawn_digit_is_answered_on_the_page_and_its_name_is_text(running: RunningServer, browser: Browser):
    browser.open(running.url)
    browser.run(
        """(async () => {
          const canvas = document.createElement('canvas');
          canvas.width = canvas.height = 120;
          const pen = canvas.getContext('2d');
          pen.fillStyle = 'white';
          pen.fillRect(0, 0, 120, 120);
          pen.lineWidth = 9;
          pen.lineCap = pen.lineJoin = 'round';
          pen.beginPath();
          pen.moveTo(30, 30);
          pen.lineTo(85, 30);
          pen.lineTo(52, 95);
          pen.stroke();
          const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
          document.getElementById('model').value = 'digits:1';
          await upload([new File([blob], NAME, { type: 'image/png' })]);
        })()""".replace("NAME", repr(NASTY))
    )
    assert browser.run("document.getElementById('said').textContent") == "1 answered"
    cards = "[...document.querySelectorAll('.card.succeeded')]"
    card = browser.run(f"{UNTIL}(() => {cards}.find((card) => card.innerText.includes({NASTY!r}))?.innerText)")
    assert card is not None, "the answer did not come to the page by itself"
    assert "7" in card.split("\n")[0]
    assert browser.run("window.hacked === undefined")
    assert browser.complaints == []
