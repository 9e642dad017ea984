"""The SciPy peer of bench_train_step: reads a case from a file and does a step for each line.

usage: scipy_step.py CASE_FILE

Commands on standard input: `step` does one and prints its seconds; `values L` prints the number of
weights of layer L in CSR order and then writes them as float32 bytes.
SciPy multiplies sparse by dense matrices on one thread. It has no product sampled on a pattern; the
fastest way it leaves is NumPy's dense product, on all of its threads, of which the entries are taken.
"""
import sys
import time

import numpy
import scipy
import scipy.sparse

RATE, MOMENTUM, LAYERS = numpy.float32(0.01), numpy.float32(0.9), 2


def read_case(path):
    with open(path, "rb") as file:
        width, batch = numpy.fromfile(file, numpy.int64, 2)
        layers = []
        for _ in range(LAYERS):
            offsets = numpy.fromfile(file, numpy.int64, width + 1)
            columns = numpy.fromfile(file, numpy.uint32, offsets[-1]).astype(numpy.int32)
            values = numpy.fromfile(file, numpy.float32, offsets[-1])
            layers.append(scipy.sparse.csr_matrix((values, columns, offsets.astype(numpy.int32)), (width, width)))
        x = numpy.fromfile(file, numpy.float32, width * batch).reshape(width, batch)
        target = numpy.fromfile(file, numpy.float32, width * batch).reshape(width, batch)
    return layers, x, target


def main():
    layers, x, target = read_case(sys.argv[1])
    rows = [numpy.repeat(numpy.arange(w.shape[0]), numpy.diff(w.indptr)) for w in layers]
    momentum = [numpy.zeros_like(w.data) for w in layers]

    def step():
        inputs = [x]
        for w in layers:
            y = w @ inputs[-1]
            inputs.append(numpy.maximum(y, 0, out=y))
        dz = (inputs[-1] - target) * numpy.float32(1 / x.shape[1])
        dz *= inputs[-1] > 0
        gradients = [None] * LAYERS
        for l in reversed(range(LAYERS)):
            gradients[l] = (dz @ inputs[l].T)[rows[l], layers[l].indices]
            if l > 0:
                dz = layers[l].T @ dz
                dz *= inputs[l] > 0
        for l, w in enumerate(layers):
            momentum[l] *= MOMENTUM
            momentum[l] += gradients[l]
            w.data -= RATE * momentum[l]

    print(f"{scipy.__version__}, NumPy {numpy.__version__}", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "step":
            start = time.perf_counter()
            step()
            print(time.perf_counter() - start, flush=True)
        else:
            values = layers[int(words[1])].data
            print(len(values), flush=True)
            sys.stdout.buffer.write(values.tobytes())
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
