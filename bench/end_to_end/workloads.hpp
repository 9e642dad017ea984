// The inference jobs that peers run: a network, its images, and the same as a configuration.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "spdnn/config.hpp"

namespace spdnn::bench {

/// One job. All peers get the same weights and images.
struct Workload {
  std::string name;
  std::string origin;        ///< of the network and the images, in words
  RunConfig config;          ///< what `spdnn::run` gets
  std::vector<Csr> weights;  ///< [outputs × inputs], by layer
  Csr images;                ///< [images × inputs]
  float bias = 0.0F;         ///< of every output; not above 0
  float clip = 32.0F;        ///< upper bound of activations; may be infinite

  [[nodiscard]] double edges_per_image() const;
  [[nodiscard]] double nominal_edges() const {
    return edges_per_image() * static_cast<double>(images.rows());
  }
};

struct WorkloadRequest {
  std::filesystem::path data_dir;      ///< official files; may be empty
  std::filesystem::path mnist;         ///< idx file of images; drawn digits when empty
  std::filesystem::path work_dir;      ///< where generated networks and images are kept
  std::optional<std::int64_t> images;  ///< at most so many
};

/// All names, in the order in which they run.
[[nodiscard]] std::vector<std::string> workload_names();
/// Nothing where the data it needs are not there. Throws `InputError` for an unknown name.
[[nodiscard]] std::optional<Workload> make_workload(const std::string& name,
                                                    const WorkloadRequest& request);

}  // namespace spdnn::bench
