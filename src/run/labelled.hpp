// Labelled images in a run: reading them, and how well a network's outputs name their labels.
#pragma once

#include <map>
#include <vector>

#include "spdnn/run.hpp"

namespace spdnn {

/// Training and test images, and what reports call them.
struct NamedSets {
  LabelledSets sets;
  std::string name;
};
[[nodiscard]] NamedSets load_labelled(const LabelledInput& input);
[[nodiscard]] NamedSets load_labelled(const TsvInput& input);

/// Inputs that `load_labelled` reads.
template <class Input>
concept Labelled = requires(const Input& input) {
  load_labelled(input);
};

/// The sets of any input that has labels; throws `InputError` for another one.
[[nodiscard]] NamedSets load_labelled(const InputConfig& input);

/// The images as sparse rows `[images × features]`, bytes as b / 255, zeros left out.
[[nodiscard]] Csr sparse_rows(const LabelledImages& images);

/// Compares each image's largest output, the first of equal ones, with its label. `of[i]` is the
/// key of image i in `outputs`; images without any nonzero output are not in there.
[[nodiscard]] Measure measure_outputs(const std::vector<std::int32_t>& labels, std::int64_t classes,
                                      const std::vector<std::int64_t>& of,
                                      const std::map<std::int64_t, std::vector<float>>& outputs);

}  // namespace spdnn
