// What all processes of a run must have alike: a launcher may start them with other arguments, and
// each host reads files of its own.
#pragma once

#include "spdnn/run.hpp"

namespace spdnn {

/// Throws `InputError`, the same on every process, where one has another configuration than the
/// first, in any key that decides what is computed: which process, which key, and both values.
void agree_on_config(World& world, const RunConfig& config);

/// The same for what each of them read or generated. Sizes, biases, labels and bytes of pixels are
/// compared whole; of a sparse matrix some thousand entries, spread evenly, so that a network that
/// is streamed from disk is not read once more for it.
void agree_on_network(World& world, const Model& model);
void agree_on_images(World& world, const Csr& images);
void agree_on_images(World& world, const LabelledSets& sets);
/// The whole content of a file; nothing where `file` is empty.
void agree_on_file(World& world, const std::filesystem::path& file);

}  // namespace spdnn
