// What the reader and the writer of safetensors files share: names of types, limits, the checksum.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "spdnn/io.hpp"

namespace spdnn {

/// Bytes a header may have, as in the format's own library.
inline constexpr std::uint64_t kMaxTensorHeader = 100'000'000;
/// The header's member that holds the texts instead of a tensor.
inline constexpr std::string_view kMetadataName = "__metadata__";
/// Metadata of this program begin so; files that have any must have a checksum as well, so that one
/// flipped bit in the checksum's own name does not make it go unnoticed.
inline constexpr std::string_view kOwnMetadata = "spdnn.";
inline constexpr const char* kChecksumKey = "spdnn.checksum";
inline constexpr const char* kFormatKey = "spdnn.format";

/// "F32" and so on, by `ElementType`.
[[nodiscard]] std::string_view name_of(ElementType type);

/// "[3, 4]".
[[nodiscard]] std::string shape_text(std::span<const std::int64_t> shape);

/// A checksum of contents alone: names, types, shapes and data of the tensors, which ascend by
/// name, and all metadata but the checksum. Where things lie in the file does not matter, so a
/// program that keeps metadata may write the file anew.
[[nodiscard]] std::string checksum_of(const std::vector<Tensor>& tensors,
                                      const std::map<std::string, std::string>& metadata);

}  // namespace spdnn
