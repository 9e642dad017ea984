// Instrumented passes of one rank through the public kernels.
#include "stragglers/costs.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <numeric>
#include <thread>

#include "spdnn/op.hpp"
#include "support/record.hpp"

namespace spdnn::bench {
namespace {

/// Images that a rank holds at most: one and a half batches.
std::int64_t capacity_of(const Plan& plan) { return plan.batch[0] + plan.batch[0] / 2; }

/// A core with a model's weights in the forms its kernels want, and buffers for one and a half
/// batches.
class Core {
 public:
  Core(const Model& model, const Plan& plan, int core)
      : model_(model),
        plan_(plan),
        device_(open_device(spec_of(core))),
        stream_(device_->make_stream()),
        width_(panel_width(device_->info())),
        capacity_(capacity_of(plan)) {
    for (const Segment& segment : plan.segments) {
      for (const std::string& name : segment.kernels[0]) kernels_.push_back(&find(name));
    }
    std::int64_t features = model.inputs();
    for (std::size_t l = 0; l < kernels_.size(); ++l) {
      const auto& layer = std::get<SparseLinear>(model.layers[l]);
      features = std::max(features, layer_outputs(model.layers[l]));
      weights_.push_back(kernels_[l]->prepare(layer.weights.view(), *device_, *stream_));
    }
    const Panels<float> shape = {nullptr, features, capacity_, width_, nullptr};
    for (Buffer& buffer : buffers_) {
      buffer = device_->allocate(static_cast<std::size_t>(shape.size()) * sizeof(float));
    }
    workspace_ = device_->allocate(layout().compact_workspace_bytes(capacity_));
    alive_.resize(static_cast<std::size_t>(capacity_ + width_));
  }

  [[nodiscard]] const std::vector<std::uint8_t>& alive() const { return alive_; }

  void load(const CsrView& images) {
    count_ = images.rows;
    const PreparedWeights input = upload_csr(images, *device_, *stream_);
    layout().expand({input.csr, panels<float>(0, model_.inputs())}, *stream_);
  }

  void run_segment(std::size_t index) {
    const Segment& segment = plan_.segments[index];
    const std::int64_t end = segment.first + segment.count;
    for (std::int64_t l = segment.first; l < end; ++l) {
      const auto& layer = std::get<SparseLinear>(model_.layers[l]);
      const BiasView<float> bias = {layer.bias.data(), layer.bias.size() == 1 ? 0 : 1};
      kernels_[l]->run({&weights_[l], bias, layer.activation,
                        panels<const float>(0, layer_inputs(model_.layers[l])),
                        panels<float>(1, layer_outputs(model_.layers[l])),
                        l + 1 == end ? alive_.data() : nullptr},
                       *stream_);
      std::swap(buffers_[0], buffers_[1]);
    }
  }

  /// Drops the dead of `ids`, the current images, after `segment`.
  void pack(std::size_t segment, std::vector<std::int32_t>& ids) {
    const std::int64_t layer = plan_.segments[segment].first + plan_.segments[segment].count - 1;
    const std::int64_t features = layer_outputs(model_.layers[layer]);
    std::vector<std::int32_t> packed(ids.size());
    std::int32_t living = 0;
    layout().compact({panels<const float>(0, features), alive_.data(), ids.data(), false, nullptr,
                      panels<float>(1, features), 0, packed.data(), &living, workspace_.data()},
                     *stream_);
    std::swap(buffers_[0], buffers_[1]);
    packed.resize(static_cast<std::size_t>(living));
    ids = std::move(packed);
    count_ = living;
  }

 private:
  static DeviceSpec spec_of(int core) {
    DeviceSpec spec;
    spec.cores = {core};
    return spec;
  }
  static const SpmmKernel<float>& find(const std::string& name) {
    for (const SpmmKernel<float>& kernel : spmm_kernels<float>()) {
      if (kernel.device == DeviceKind::cpu && kernel.name == name) return kernel;
    }
    throw DeviceError("no CPU kernel is called " + name);
  }
  [[nodiscard]] static const LayoutKernels<float>& layout() {
    return layout_kernels<float>(DeviceKind::cpu);
  }
  template <class T>
  [[nodiscard]] Panels<T> panels(int buffer, std::int64_t features) const {
    return {buffers_[buffer].as<float>(), features, count_, width_, nullptr};
  }

  const Model& model_;
  const Plan& plan_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  std::int64_t width_, capacity_;
  std::int64_t count_ = 0;  ///< current images, in `buffers_[0]`
  std::vector<const SpmmKernel<float>*> kernels_;
  std::deque<PreparedWeights> weights_;
  Buffer buffers_[2], workspace_;
  std::vector<std::uint8_t> alive_;
};

/// Calls `work` on a thread of its own, so that the core it is pinned to is not the caller's.
template <class Work>
void on_own_thread(const Work& work) {
  std::exception_ptr error;
  std::thread([&] {
    try {
      work();
    } catch (...) {
      error = std::current_exception();
    }
  }).join();
  if (error) std::rethrow_exception(error);
}

/// Values at every index from values at some of them, the first of which is 0.
std::vector<double> fill_between(const std::vector<std::int64_t>& at,
                                 const std::vector<double>& values) {
  std::vector<double> all;
  for (std::size_t i = 0; i + 1 < at.size(); ++i) {
    for (std::int64_t x = at[i]; x < at[i + 1]; ++x) {
      const double part = static_cast<double>(x - at[i]) / static_cast<double>(at[i + 1] - at[i]);
      all.push_back(values[i] + part * (values[i + 1] - values[i]));
    }
  }
  all.push_back(values.back());
  return all;
}

/// Times work, and sleeps between segments twice as long as the last work took. What a declared
/// slowdown multiplies is CPU time; without one it is the time that passes which counts.
class Rhythm {
 public:
  explicit Rhythm(bool drowsy) : drowsy_(drowsy) {}
  template <class Work>
  double time(const Work& work) {
    const double start = now();
    work();
    last_ = now() - start;
    return last_;
  }
  void nap() const {
    if (drowsy_) std::this_thread::sleep_for(std::chrono::duration<double>(2.0 * last_));
  }

 private:
  [[nodiscard]] double now() const { return drowsy_ ? thread_cpu_seconds() : now_seconds(); }

  bool drowsy_;
  double last_ = 0.0;
};

/// Takes images through all segments batch by batch, as a rank does; `each_dead(image, segment)`.
template <class EachDead>
void run_batches(Core& rank, const Csr& images, const Plan& plan, Rhythm& rhythm,
                 WorkSamples* samples, const EachDead& each_dead) {
  double load = 0.0;
  double pack = 0.0;
  std::int64_t packed = 0;
  for (std::int64_t first = 0; first < images.rows(); first += plan.batch[0]) {
    const Range range = {first, std::min(first + plan.batch[0], images.rows())};
    load += rhythm.time([&] { rank.load(images.view().slice_rows(range)); });
    std::vector<std::int32_t> ids(static_cast<std::size_t>(range.size()));
    std::iota(ids.begin(), ids.end(), static_cast<std::int32_t>(first));
    for (std::size_t s = 0; s < plan.segments.size() && !ids.empty(); ++s) {
      rhythm.time([&] { rank.run_segment(s); });
      rhythm.nap();
      bool dead = false;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        if (rank.alive()[i] != 0) continue;
        each_dead(ids[i], static_cast<std::int32_t>(s));
        dead = true;
      }
      if (!dead) continue;
      pack += rhythm.time([&] { rank.pack(s, ids); });
      packed += std::ssize(ids);
    }
  }
  if (samples == nullptr) return;
  samples->load.push_back(load / static_cast<double>(images.rows()));
  if (packed > 0) samples->pack.push_back(pack / static_cast<double>(packed));
}

}  // namespace

std::vector<std::int32_t> find_last_segments(const Model& model, const Csr& images,
                                             const Plan& plan, int core) {
  std::vector<std::int32_t> last(static_cast<std::size_t>(images.rows()),
                                 static_cast<std::int32_t>(plan.segments.size()));
  on_own_thread([&] {
    Core rank(model, plan, core);
    Rhythm rhythm(false);
    run_batches(rank, images, plan, rhythm, nullptr,
                [&](std::int32_t image, std::int32_t segment) { last[image] = segment; });
  });
  return last;
}

void WorkSamples::add(const WorkSamples& more) {
  const auto append = [](const std::vector<double>& from, std::vector<double>& to) {
    to.insert(to.end(), from.begin(), from.end());
  };
  append(more.load, load);
  append(more.pack, pack);
  if (segments.empty()) segments.resize(more.segments.size());
  for (std::size_t s = 0; s < more.segments.size(); ++s) {
    segments[s].resize(more.segments[s].size());
    for (std::size_t g = 0; g < more.segments[s].size(); ++g) {
      append(more.segments[s][g], segments[s][g]);
    }
  }
}

WorkMeter::WorkMeter(const Model& model, const Csr& images, Plan plan, int core)
    : model_(model), images_(images), plan_(std::move(plan)), core_(core), groups_{0} {
  const std::int64_t most = std::min(capacity_of(plan_), images.rows()) / kSideBySide;
  while (groups_.back() < most) {
    groups_.push_back(
        std::min(groups_.back() + std::max<std::int64_t>(groups_.back() / 4, 1), most));
  }
}

void WorkMeter::pass(bool drowsy, WorkSamples& samples) const {
  constexpr std::int64_t kBatches = 8;
  const std::size_t segments = plan_.segments.size();
  samples.segments.resize(segments, std::vector<std::vector<double>>(groups_.size()));
  on_own_thread([&] {
    Core rank(model_, plan_, core_);
    Rhythm rhythm(drowsy);
    const Range some = {0, std::min(kBatches * plan_.batch[0], images_.rows())};
    run_batches(rank, images_.slice_rows(some), plan_, rhythm, &samples,
                [](std::int32_t, std::int32_t) {});
    for (std::size_t g = 1; g < groups_.size(); ++g) {
      rank.load(images_.view().slice_rows({0, groups_[g] * kSideBySide}));
      for (std::size_t s = 0; s < segments; ++s) {
        samples.segments[s][g].push_back(rhythm.time([&] { rank.run_segment(s); }));
        rhythm.nap();
      }
    }
  });
}

WorkCosts WorkMeter::costs(const WorkSamples& samples) const {
  WorkCosts costs;
  for (const auto& segment : samples.segments) {
    std::vector<double> medians = {0.0};
    for (std::size_t g = 1; g < groups_.size(); ++g) medians.push_back(median_of(segment[g]));
    costs.segment_s.push_back(fill_between(groups_, medians));
  }
  costs.load_s = median_of(samples.load);
  if (!samples.pack.empty()) costs.pack_s = median_of(samples.pack);
  return costs;
}

double measure_copy(std::int64_t features, std::int64_t width) {
  constexpr int kTrials = 9;
  constexpr std::int64_t kPanels = 4;
  std::vector<float> from(static_cast<std::size_t>(kPanels * features * width), 1.0F);
  std::vector<float> to(from.size());
  std::vector<double> seconds;
  const std::int64_t run = std::min(width, kSideBySide);
  for (int trial = 0; trial <= kTrials; ++trial) {
    const double start = now_seconds();
    for (std::int64_t row = 0; row < kPanels * features; ++row) {
      std::memcpy(&to[row * width], &from[row * width],
                  static_cast<std::size_t>(run) * sizeof(float));
    }
    if (trial > 0) seconds.push_back(now_seconds() - start);
  }
  return median_of(seconds) / static_cast<double>(kPanels * run);
}

double measure_wake() {
  constexpr int kTrials = 101;
  std::mutex mutex;
  std::condition_variable changed;
  int turn = 0;  // whose: 0 the caller, 1 the other thread
  const auto wait_for = [&](int mine) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return turn == mine; });
  };
  const auto pass_to = [&](int other) {
    {
      const std::lock_guard lock(mutex);
      turn = other;
    }
    changed.notify_all();
  };
  std::thread other([&] {
    for (int trial = 0; trial < kTrials; ++trial) {
      wait_for(1);
      pass_to(0);
    }
  });
  std::vector<double> seconds;
  for (int trial = 0; trial < kTrials; ++trial) {
    const double start = now_seconds();
    pass_to(1);
    wait_for(0);
    seconds.push_back((now_seconds() - start) / 2.0);
  }
  other.join();
  return median_of(seconds);
}

}  // namespace spdnn::bench
