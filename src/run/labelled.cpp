// Labelled images as input of inference, and the confusion matrix of what comes out.
#include "labelled.hpp"

#include <algorithm>

namespace spdnn {

NamedSets load_labelled(const LabelledInput& input) {
  std::string name = input.folder.filename().string();
  switch (input.format) {
    case LabelledInput::Format::mnist: return {read_mnist(input.folder), std::move(name)};
    case LabelledInput::Format::cifar10: return {read_cifar10(input.folder), std::move(name)};
  }
  return {};
}

NamedSets load_labelled(const TsvInput& input) {
  NamedSets read{{}, input.samples.filename().string()};
  LabelledSets& sets = read.sets;
  sets.train = read_labelled_tsv(input.samples, input.labels, input.features, input.classes);
  if (input.test_samples.empty()) return read;
  sets.test =
      read_labelled_tsv(input.test_samples, input.test_labels, input.features, sets.train.classes);
  return read;
}

NamedSets load_labelled(const InputConfig& input) {
  return std::visit(
      []<class Source>(const Source& source) -> NamedSets {
        if constexpr (Labelled<Source>) return load_labelled(source);
        throw InputError("/input: has no labels to train on");
      },
      input.source);
}

Csr sparse_rows(const LabelledImages& images) {
  if (images.pixels.empty()) return images.sparse;
  const std::int64_t features = images.features();
  std::vector<float> row(static_cast<std::size_t>(features));
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  std::vector<float> values;
  for (std::int64_t image = 0; image < images.count; ++image) {
    images.copy_image(image, row.data(), 1);
    for (std::int64_t f = 0; f < features; ++f) {
      if (row[f] == 0.0F) continue;
      indices.push_back(static_cast<std::uint32_t>(f));
      values.push_back(row[f]);
    }
    offsets.push_back(std::ssize(indices));
  }
  return make_csr(images.count, features, std::move(offsets), std::move(indices),
                  std::move(values));
}

Measure measure_outputs(const std::vector<std::int32_t>& labels, std::int64_t classes,
                        const std::vector<std::int64_t>& of,
                        const std::map<std::int64_t, std::vector<float>>& outputs) {
  Measure measure;
  measure.images = std::ssize(labels);
  measure.confusion.resize(static_cast<std::size_t>(classes * classes));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto found = outputs.find(of[i]);
    std::int64_t predicted = 0;
    if (found != outputs.end()) {
      predicted =
          std::max_element(found->second.begin(), found->second.end()) - found->second.begin();
    }
    measure.correct += predicted == labels[i] ? 1 : 0;
    ++measure.confusion[labels[i] * classes + predicted];
  }
  return measure;
}

}  // namespace spdnn
