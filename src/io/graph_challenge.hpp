// Where the files of a Graph Challenge network lie in a data directory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace spdnn {

/// What text files are taken for, as against what a generator says of its caches.
inline constexpr std::string_view kOfficialOrigin = "official files";

/// `data_dir/neuronN/nN-lL.tsv`; `layer` counts from 1.
[[nodiscard]] std::filesystem::path layer_path(const std::filesystem::path& data_dir,
                                               std::int64_t neurons, std::int64_t layer);
/// `data_dir/neuronN/nN-L.spdnn`.
[[nodiscard]] std::filesystem::path weights_cache_path(const std::filesystem::path& data_dir,
                                                       std::int64_t neurons, std::int64_t layers);
/// `data_dir/sparse-images-N.tsv`.
[[nodiscard]] std::filesystem::path images_path(const std::filesystem::path& data_dir,
                                                std::int64_t neurons);
/// `data_dir/sparse-images-N.spdnn`.
[[nodiscard]] std::filesystem::path images_cache_path(const std::filesystem::path& data_dir,
                                                      std::int64_t neurons);

}  // namespace spdnn
