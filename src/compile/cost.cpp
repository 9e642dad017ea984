// What a network costs to run, as far as rewrites change it.
#include "network.hpp"

namespace spdnn::compiler {
namespace {

/// Measured on the CPU's panel kernel, in units of an entry that shares its value: an entry with a
/// value of its own must load and spread it, a row must load its bias, clamp and store.
constexpr double kDistinctEntry = 1.25;
constexpr double kRow = 6.0;

}  // namespace

double work_of(const Model& model) {
  double work = 0.0;
  for (const Layer& layer : model.layers) {
    const CsrView& w = std::get<SparseLinear>(layer).weights.view();
    work += static_cast<double>(w.nnz) * (w.shared_value ? 1.0 : kDistinctEntry) +
            static_cast<double>(w.rows) * kRow;
  }
  return work;
}

}  // namespace spdnn::compiler
