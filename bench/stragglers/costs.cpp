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
        capacity_(plan.batch[0] + plan.batch[0] / 2) {
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

  [[nodiscard]] std::int64_t capacity() const { return capacity_; }
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

/// CPU seconds that sleeping between segments adds to each, at `groups` groups of images.
double added_by_sleep(const Model& model, const Csr& images, const Plan& plan, int core,
                      std::int64_t groups, int repetitions) {
  std::vector<double> added;
  on_own_thread([&] {
    Core rank(model, plan, core);
    const Range some = {0, std::min(groups * kSideBySide, images.rows())};
    for (int repetition = 0; repetition <= repetitions; ++repetition) {
      std::vector<double> seconds[2];
      for (const bool sleeps : {false, true}) {
        rank.load(images.view().slice_rows(some));
        double last = 0.0;
        for (std::size_t s = 0; s < plan.segments.size(); ++s) {
          const double start = thread_cpu_seconds();
          if (sleeps) std::this_thread::sleep_for(std::chrono::duration<double>(2.0 * last));
          rank.run_segment(s);
          last = thread_cpu_seconds() - start;
          seconds[sleeps].push_back(last);
        }
      }
      if (repetition == 0) continue;
      for (std::size_t s = 1; s < plan.segments.size(); ++s) {
        added.push_back(seconds[1][s] - seconds[0][s]);
      }
    }
  });
  return std::max(median_of(added), 0.0);
}

}  // namespace

Fates run_images(const Model& model, const Csr& images, const Plan& plan, int core) {
  Fates fates;
  fates.last_segment.assign(static_cast<std::size_t>(images.rows()),
                            static_cast<std::int32_t>(plan.segments.size()));
  std::int64_t packed = 0;
  on_own_thread([&] {
    Core rank(model, plan, core);
    for (std::int64_t first = 0; first < images.rows(); first += plan.batch[0]) {
      const Range range = {first, std::min(first + plan.batch[0], images.rows())};
      double start = now_seconds();
      rank.load(images.view().slice_rows(range));
      fates.load_s += now_seconds() - start;
      std::vector<std::int32_t> ids(static_cast<std::size_t>(range.size()));
      std::iota(ids.begin(), ids.end(), static_cast<std::int32_t>(first));
      for (std::size_t s = 0; s < plan.segments.size() && !ids.empty(); ++s) {
        rank.run_segment(s);
        bool dead = false;
        for (std::size_t i = 0; i < ids.size(); ++i) {
          if (rank.alive()[i] != 0) continue;
          fates.last_segment[ids[i]] = static_cast<std::int32_t>(s);
          dead = true;
        }
        if (!dead) continue;
        start = now_seconds();
        rank.pack(s, ids);
        fates.pack_s += now_seconds() - start;
        packed += std::ssize(ids);
      }
    }
  });
  fates.load_s /= static_cast<double>(images.rows());
  fates.pack_s /= static_cast<double>(std::max<std::int64_t>(packed, 1));
  return fates;
}

std::vector<std::vector<double>> measure_segments(const Model& model, const Csr& images,
                                                  const Plan& plan, int core, int repetitions) {
  std::vector<std::vector<double>> seconds;
  on_own_thread([&] {
    Core rank(model, plan, core);
    const std::int64_t most = std::min(rank.capacity(), images.rows()) / kSideBySide;
    std::vector<std::int64_t> groups = {0};  // steps of an eighth at most
    while (groups.back() < most) {
      groups.push_back(
          std::min(groups.back() + std::max<std::int64_t>(groups.back() / 4, 1), most));
    }
    const std::size_t segments = plan.segments.size();
    std::vector samples(segments, std::vector<std::vector<double>>(groups.size()));
    for (int repetition = 0; repetition <= repetitions; ++repetition) {
      for (std::size_t g = 1; g < groups.size(); ++g) {
        rank.load(images.view().slice_rows({0, groups[g] * kSideBySide}));
        for (std::size_t s = 0; s < segments; ++s) {
          const double start = now_seconds();
          rank.run_segment(s);
          if (repetition > 0) samples[s][g].push_back(now_seconds() - start);
        }
      }
    }
    for (const auto& segment : samples) {
      std::vector<double> medians = {0.0};
      for (std::size_t g = 1; g < groups.size(); ++g) medians.push_back(median_of(segment[g]));
      seconds.push_back(fill_between(groups, medians));
    }
  });
  return seconds;
}

Nap measure_nap(const Model& model, const Csr& images, const Plan& plan, int core,
                int repetitions) {
  const std::int64_t batch = std::max<std::int64_t>(plan.batch[0] / kSideBySide, 2);
  const double one = added_by_sleep(model, images, plan, core, 1, repetitions);
  const double all = added_by_sleep(model, images, plan, core, batch, repetitions);
  Nap nap;
  nap.group_s = std::max(all - one, 0.0) / static_cast<double>(batch - 1);
  nap.alone_s = std::max(one - nap.group_s, 0.0);
  return nap;
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
