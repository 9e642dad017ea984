// NumPy's array files (.npy, numpy.lib.format), as members of .npz archives.
#pragma once

#include <string>
#include <vector>

#include "spdnn/io.hpp"

namespace spdnn {

/// An array: numbers as a tensor, or one text.
struct NpyArray {
  Tensor tensor;  ///< views the bytes it was read from; without type and data where it is a text
  bool is_text = false;
  std::string text;  ///< ASCII
};

/// Reads the bytes of an array named `name` in `file`. Throws `InputError` where they are none, of
/// another byte order, or of a type that is neither a number nor one short text.
[[nodiscard]] NpyArray read_npy(const std::filesystem::path& file, const std::string& name,
                                std::span<const std::byte> bytes);

/// What stands before the data of an array of the type that NumPy calls `descr`.
[[nodiscard]] std::string npy_header(std::string_view descr, std::span<const std::int64_t> shape);

}  // namespace spdnn
