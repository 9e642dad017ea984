// Passes by what they store.
#include "any_pass.hpp"

#include <fmt/format.h>

#include "batch_pass.hpp"

namespace spdnn::train {
namespace {

template <class... Arguments>
std::unique_ptr<AnyBatchPass<float>> make_stored(Precision stored, Arguments&... arguments) {
  switch (stored) {
    case Precision::bf16: return std::make_unique<BatchPass<Bfloat16>>(arguments...);
    case Precision::fp16: return std::make_unique<BatchPass<Half>>(arguments...);
    default: return std::make_unique<BatchPass<float>>(arguments...);
  }
}

}  // namespace

template <class T>
const TrainKernels<T>& narrow_kernels(DeviceKind kind) {
  for (const TrainKernels<T>& kernels : train_kernels<T>()) {
    if (kernels.device == kind) return kernels;
  }
  throw InputError(fmt::format("/precision: {} devices train in 'fp32' alone", to_string(kind)));
}
template const TrainKernels<Half>& narrow_kernels(DeviceKind kind);
template const TrainKernels<Bfloat16>& narrow_kernels(DeviceKind kind);

std::unique_ptr<AnyBatchPass<float>> make_pass(Precision stored, Network<float>& network,
                                               const Shard& shard, Communicator& comm,
                                               std::int64_t most_images) {
  return make_stored(stored, network, shard, comm, most_images);
}

std::unique_ptr<AnyBatchPass<float>> make_pass(Precision stored, Network<float>& network,
                                               std::int64_t most_images) {
  return make_stored(stored, network, most_images);
}

}  // namespace spdnn::train
