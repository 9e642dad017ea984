#!/usr/bin/env python3
"""Makes the files of this folder with other people's libraries: NumPy, SciPy and safetensors.

usage: tests/io/peers/make.py FOLDER

All hold one matrix, [3 x 4], whose entry in row r and column c is r + c / 8, at (0, 1), (0, 3) and
(2, 0). The tests read the files that are kept here; this program says where they come from.
"""
import sys
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse as sp
from safetensors.numpy import save_file

folder = Path(sys.argv[1])
dense = np.zeros((3, 4))
for r, c in [(0, 1), (0, 3), (2, 0)]:
    dense[r, c] = r + c / 8
matrix = sp.csr_matrix(dense)
sp.save_npz(folder / "deflated_f64.npz", matrix)
sp.save_npz(folder / "stored_f32.npz", matrix.astype(np.float32), compressed=False)
sp.save_npz(folder / "array.npz", sp.csr_array(matrix))
scipy.io.mmwrite(folder / "real.mtx", matrix, comment="by SciPy")
scipy.io.mmwrite(folder / "pattern.mtx", matrix, field="pattern")
tensors = {
    "layers.0.values": matrix.data.astype(np.float16),
    "layers.0.row_offsets": matrix.indptr.astype(np.int64),
    "layers.0.col_indices": matrix.indices.astype(np.uint16),
    "layers.0.bias": np.array([0.5, -1, 2], dtype=np.float32),
}
save_file(tensors, folder / "network.safetensors",
          metadata={"layers.0.inputs": "4", "layers.0.activation": "identity", "clip": "32"})
