// This project, through the same call that `spdnn-gpu run` makes: one single-thread CPU rank a
// core.
#include <numeric>

#include "end_to_end/peers.hpp"
#include "spdnn/run.hpp"

namespace spdnn::bench {
namespace {

/// Images checked against the reference implementation when a run is to check itself.
constexpr std::int64_t kChecked = 16;

class Spdnn final : public Peer {
 public:
  Spdnn(const Workload& workload, int ranks, bool compiled)
      : Peer(compiled ? "spdnn_full" : "spdnn", ranks), config_(workload.config) {
    if (compiled) config_.compile = "full";
    config_.devices.assign(static_cast<std::size_t>(ranks), DeviceSpec{});
  }

  [[nodiscard]] Sample run(bool check) override {
    config_.verify.sample_against_reference = check ? kChecked : 0;
    Progress progress;
    RunResult result = spdnn::run(config_, progress);
    Sample sample;
    sample.seconds = result.seconds.infer;
    sample.compile_s = result.seconds.compile;
    sample.categories = std::move(result.categories);
    sample.executed_edges = result.edges.executed;
    sample.edges_before_compile = result.edges.executed_uncompiled;
    sample.images_at_once =
        std::accumulate(result.plan.batch.begin(), result.plan.batch.end(), std::int64_t{0});
    if (!result.failures.empty()) sample.failure = result.failures.front();
    return sample;
  }

 private:
  RunConfig config_;
};

}  // namespace

std::unique_ptr<Peer> make_spdnn(const Workload& workload, int ranks, bool compiled) {
  return std::make_unique<Spdnn>(workload, ranks, compiled);
}

}  // namespace spdnn::bench
