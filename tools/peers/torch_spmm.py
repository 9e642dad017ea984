#!/usr/bin/env python3
"""Times PyTorch's products on a GPU, on layers as the Graph Challenge has them.

usage: tools/peers/torch_spmm.py WIDTH…

For each width: Y = max(W·X + b, 0), W CSR with 32 nonzeros a row in 16 × 16 blocks, X fp32, and the same
with W dense in tf32 where that fits. Prints JSON: seconds an image, the median of nine runs.
Exit status: 0; 77 where there is no PyTorch or it has no GPU.
"""
import json
import statistics
import sys

RUNS = 9
WIDEST_DENSE = 16384


def leave(reason):
    print(reason)
    sys.exit(77)


try:
    import torch
except ImportError:
    leave("PyTorch is not installed")
if not torch.cuda.is_available():
    leave("PyTorch has no GPU")


def layer(width):
    """Row r reads the 16 columns of its own block and of the next, as a butterfly's stage does."""
    blocks = torch.arange(width) // 16
    first = blocks[:, None] * 16 + torch.arange(16)
    columns = torch.cat([first, (first + 16) % width], dim=1).sort(dim=1).values
    offsets = torch.arange(0, 32 * width + 1, 32)
    return torch.sparse_csr_tensor(offsets, columns.flatten(), torch.full((32 * width,), 0.0625),
                                   size=(width, width)).cuda()


def seconds(call):
    call()
    samples = []
    for _ in range(RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(end) / 1e3)
    return statistics.median(samples)


def main():
    torch.backends.cuda.matmul.allow_tf32 = True
    layers = {}
    for width in map(int, sys.argv[1:]):
        images = max(512, min(32768, (1 << 28) // width))
        weights = layer(width)
        x = torch.rand(width, images, device="cuda")
        times = {"images": images, "sparse": seconds(lambda: torch.relu(weights @ x - 0.3)) / images}
        if width <= WIDEST_DENSE:
            dense = weights.to_dense()
            times["dense"] = seconds(lambda: torch.relu(dense @ x - 0.3)) / images
        layers[width] = times
    print(json.dumps({"version": torch.__version__, "layers": layers}))


main()
