"""Trains the bundled digit model: MNIST, varied, and digits in pen strokes, through Onceseen's own preprocessing.

    python recipes/digits/train.py --data FOLDER --out src/onceseen/bundled/models/digits

README.md beside this file says what to install and which figures to expect.
"""

import argparse
import functools
import io
import multiprocessing
import random
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
import pictures
import torch
from torch import nn
from torch.nn import functional as F

from onceseen.inference.decode import decode
from onceseen.inference.manifest import Input
from onceseen.inference.prepare import Preparer

Prepared = Callable[[bytes], np.ndarray]


@functools.cache
def preparer(model: Path) -> Prepared:
    """What a worker does with an image before this model sees it, by the [input] of its model.toml."""
    table = tomllib.loads((model / "model.toml").read_text())
    spec = msgspec.convert(table["input"], Input)
    prepare = Preparer(spec, *table["input"]["size"])
    return lambda data: prepare(decode(data))


def network() -> nn.Module:
    """A small convolutional network, 107 thousand parameters."""

    def block(inputs: int, outputs: int, size: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    return nn.Sequential(
        *block(1, 16, 5),
        nn.MaxPool2d(2),
        *block(16, 32, 3),
        *block(32, 32, 3),
        nn.MaxPool2d(2),
        *block(32, 64, 3),
        *block(64, 64, 3),
        nn.MaxPool2d(2, ceil_mode=False),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(576, 64),
        nn.ReLU(inplace=True),
        nn.Linear(64, 10),
    )


class Wish(NamedTuple):
    """One picture to make. `kind`: plain, varied, drawn, inverted, pasted or large."""

    kind: str
    seed: int
    label: int
    digit: np.ndarray | None = None


def made(model: Path, wish: Wish) -> np.ndarray:
    """The picture as the network sees it."""
    rng = random.Random(wish.seed)
    if wish.digit is None:
        data = pictures.drawn(wish.label, rng)
    elif wish.kind == "large":
        data = pictures.pasted(wish.digit, rng, 160, 600)
    elif wish.kind in ("varied", "pasted"):
        data = getattr(pictures, wish.kind)(wish.digit, rng)
    else:
        data = pictures.inverted(wish.digit) if wish.kind == "inverted" else pictures.png(wish.digit)
    return preparer(model)(data).astype(np.float16)


def tensors(model: Path, wishes: list[Wish], jobs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pictures, [n, 1, 28, 28] in float16 to save room, and their labels."""
    with multiprocessing.Pool(jobs) as pool:
        done = pool.map(functools.partial(made, model), wishes, chunksize=500)
    return torch.from_numpy(np.stack(done)), torch.tensor([wish.label for wish in wishes])


def to_train(data: Path, copies: int, strokes: int, seed: int) -> list[Wish]:
    """MNIST once as it is and `copies` times varied, and `strokes` digits of our own pens."""
    wishes = [Wish("plain", 0, int(label), image) for image, label in zip(*pictures.mnist(data, "train"), strict=True)]
    varied = [wish._replace(kind="varied") for wish in wishes] * copies
    drawn = [Wish("drawn", 0, n % 10) for n in range(strokes)]
    return [wish._replace(seed=seed * 10_000_000 + n) for n, wish in enumerate([*wishes, *varied, *drawn])]


def train(images: torch.Tensor, labels: torch.Tensor, epochs: int) -> nn.Module:
    """The trained network, in evaluation mode."""
    net = network()
    size = 256
    steps = epochs * (len(images) // size)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        net.train()
        total, began = 0.0, time.monotonic()
        order = torch.randperm(len(images))
        for start in range(0, len(images) - size + 1, size):
            batch = order[start : start + size]
            loss = F.cross_entropy(net(images[batch].float()), labels[batch], label_smoothing=0.02)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * size
        print(f"epoch {epoch + 1}: loss {total / len(images):.4f}, {time.monotonic() - began:.0f} s", flush=True)
    return net.eval()


def export(net: nn.Module, path: Path) -> None:
    """Writes the network as ONNX, batch normalisation folded, with a free batch axis."""
    buffer = io.BytesIO()
    torch.onnx.export(
        net,
        (torch.zeros(2, 1, 28, 28),),
        buffer,
        dynamo=False,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}},
        opset_version=17,
    )
    onnx.save(onnx.load_model_from_string(buffer.getvalue()), path)
    print(f"{path}: {path.stat().st_size:,} bytes")


def report(net: nn.Module, model: Path, data: Path, jobs: int) -> None:
    """Prints the accuracy on MNIST's test images in four guises."""
    images, labels = pictures.mnist(data, "t10k")
    for kind in ("plain", "inverted", "pasted", "large"):
        wishes = [Wish(kind, n, int(label), image) for n, (image, label) in enumerate(zip(images, labels, strict=True))]
        inputs, truth = tensors(model, wishes, jobs)
        with torch.no_grad():
            found = torch.cat([net(batch.float()).argmax(1) for batch in inputs.split(1000)])
        print(f"t10k {kind}: {(found == truth).float().mean():.4f}", flush=True)


def main() -> None:
    """Makes the pictures, trains, reports, exports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with MNIST's four *-ubyte.gz files")
    parser.add_argument(
        "--out", type=Path, required=True, help="the model directory: model.toml is read, digits.onnx written"
    )
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--copies", type=int, default=3, help="varied copies of each MNIST digit")
    parser.add_argument("--strokes", type=int, default=40_000, help="digits drawn anew")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes and threads; the figures depend on it a little")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.jobs)
    torch.use_deterministic_algorithms(True)
    began = time.monotonic()
    images, labels = tensors(args.out, to_train(args.data, args.copies, args.strokes, args.seed), args.jobs)
    print(f"{len(images):,} pictures in {time.monotonic() - began:.0f} s", flush=True)
    net = train(images, labels, args.epochs)
    report(net, args.out, args.data, args.jobs)
    export(net, args.out / "digits.onnx")


if __name__ == "__main__":
    main()
