#!/usr/bin/env python3
"""Times PyTorch's training steps on a GPU, on dense layers whose weights are masked.

usage: tools/peers/torch_train.py WIDTHS:BATCH:DENSITY…      e.g. 784-1024-1024-10:128:0.05

For each network: a step of AdamW (fused) over cross-entropy, forward and backward, of linear layers with
ReLU between them; all weights but the last layer's are multiplied by a mask of the density, in tf32.
Prints JSON: seconds a step, the median of nine runs of 50, queued as they come and as one CUDA graph.
Exit status: 0; 77 where there is no PyTorch or it has no GPU.
"""
import json
import statistics
import sys
import time

RUNS, STEPS = 9, 50


def leave(reason):
    print(reason)
    sys.exit(77)


try:
    import torch
except ImportError:
    leave("PyTorch is not installed")
if not torch.cuda.is_available():
    leave("PyTorch has no GPU")


class Masked(torch.nn.Module):
    """A linear layer of which so many weights exist; the others stay 0 and get no gradient."""

    def __init__(self, inputs, outputs, density):
        super().__init__()
        self.linear = torch.nn.Linear(inputs, outputs)
        self.register_buffer("mask", (torch.rand(outputs, inputs) < density).float())

    def forward(self, x):
        return torch.nn.functional.linear(x, self.linear.weight * self.mask, self.linear.bias)


def network(widths, density):
    layers = []
    for inputs, outputs in zip(widths[:-2], widths[1:-1]):
        layers += [Masked(inputs, outputs, density), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(*widths[-2:])).cuda()


def seconds_per_step(step):
    samples = []
    for _ in range(RUNS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
        samples.append((time.perf_counter() - start) / STEPS)
    return statistics.median(samples)


def measure(text):
    shape, batch, density = text.split(":")
    widths = [int(width) for width in shape.split("-")]
    model = network(widths, float(density))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True, capturable=True)
    x = torch.rand(int(batch), widths[0], device="cuda")
    labels = torch.randint(widths[-1], (int(batch),), device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    aside = torch.cuda.Stream()  # a capture wants to be warmed up on another stream
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    eager = seconds_per_step(step)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step()
    return {"eager": eager, "graph": seconds_per_step(graph.replay)}


def main():
    torch.backends.cuda.matmul.allow_tf32 = True
    print(json.dumps({"version": torch.__version__, "networks": {text: measure(text) for text in sys.argv[1:]}}))


main()
