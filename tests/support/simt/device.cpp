// A CUDA device as far as the library can tell, whose memory is the host's and whose kernels run on
// the SIMT layer: what `src/device/cuda.cpp` is to a GPU. Work is done as late as a GPU might do
// it: when the host waits for it.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <mutex>
#include <new>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "cuda/scan.hpp"
#include "cuda/sort.hpp"
#include "device/backend.hpp"
#include "support/simt/queue.hpp"

namespace simt {

Schedule next_schedule() {
  static std::uint64_t launches = 0;
  const std::uint64_t seed = launches++;
  return {std::array{Order::forward, Order::reversed, Order::random}[seed % 3], seed};
}

}  // namespace simt

namespace spdnn {
namespace {

/// The SIMT layer runs one block at a time, whichever thread asks.
std::mutex& machine_mutex() {
  static std::mutex mutex;
  return mutex;
}

/// Work of one stream that is still to be done.
class Pending {
 public:
  void add(std::function<void()> work) {
    work_.push_back(std::move(work));
    ++added_;
  }
  [[nodiscard]] std::int64_t added() const { return added_; }
  [[nodiscard]] bool done(std::int64_t until) const { return done_ >= until; }
  void run(std::int64_t until) {
    while (done_ < until) {
      const std::function<void()> work = std::move(work_.front());
      work_.pop_front();
      ++done_;
      work();
    }
  }

 private:
  std::deque<std::function<void()>> work_;
  std::int64_t added_ = 0, done_ = 0;
};

/// Not ready when first asked, as if the device were still at it.
class SimtEvent final : public Event {
 public:
  explicit SimtEvent(std::shared_ptr<Pending> pending)
      : pending_(std::move(pending)), until_(pending_->added()) {}
  [[nodiscard]] bool ready() const override {
    if (std::exchange(asked_, true)) wait();
    return pending_->done(until_);
  }
  void wait() const override { pending_->run(until_); }

 private:
  std::shared_ptr<Pending> pending_;
  std::int64_t until_;
  mutable bool asked_ = false;
};

class SimtRecording final : public Recording {
 public:
  SimtRecording(simt::Queue& queue, std::vector<std::function<void()>> work)
      : queue_(queue), work_(std::move(work)) {}
  void replay() override {
    for (const std::function<void()>& work : work_) queue_.push(work);
  }

 private:
  simt::Queue& queue_;
  std::vector<std::function<void()>> work_;
};

/// What the streams and buffers of a device share.
struct Shared {
  std::set<std::shared_ptr<Pending>> streams;
  bool keeping = false;  ///< a stream keeps its work: no memory may be allocated
  std::int64_t in_use = 0, peak = 0;
  void wait_for_all() const {
    for (const auto& stream : streams) stream->run(stream->added());
  }
};

class SimtStream final : public Stream, public simt::Queue {
 public:
  explicit SimtStream(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {
    shared_->streams.insert(pending_);
  }
  ~SimtStream() override { shared_->streams.erase(pending_); }

  void push(std::function<void()> work) override {
    if (kept_ != nullptr) {
      kept_->push_back(std::move(work));
    } else {
      pending_->add([work = std::move(work)] {
        const std::lock_guard lock(machine_mutex());
        work();
      });
    }
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) push([=] { std::memcpy(to, from, bytes); });
  }
  void zero(void* to, std::size_t bytes) override {
    if (bytes > 0) push([=] { std::memset(to, 0, bytes); });
  }
  [[nodiscard]] std::unique_ptr<Event> record() override {
    return std::make_unique<SimtEvent>(pending_);
  }
  void wait(const Event& event) override {
    const auto other = std::make_shared<SimtEvent>(dynamic_cast<const SimtEvent&>(event));
    pending_->add([other] { other->wait(); });
  }
  void synchronize() override {
    if (kept_ != nullptr) throw DeviceError("work that is kept can't be waited for");
    pending_->run(pending_->added());
  }
  [[nodiscard]] std::unique_ptr<Recording> keep(const std::function<void()>& work) override {
    std::vector<std::function<void()>> kept;
    kept_ = &kept;
    shared_->keeping = true;
    bool whole = true;
    try {
      work();
    } catch (const DeviceError&) {
      whole = false;
    }
    shared_->keeping = false;
    kept_ = nullptr;
    if (!whole) return nullptr;
    return std::make_unique<SimtRecording>(*this, std::move(kept));
  }
  [[nodiscard]] int multiprocessors() const override { return simt::kMultiprocessors; }
  [[nodiscard]] void* native() override { return static_cast<simt::Queue*>(this); }

 private:
  std::shared_ptr<Shared> shared_;
  std::shared_ptr<Pending> pending_ = std::make_shared<Pending>();
  std::vector<std::function<void()>>* kept_ = nullptr;
};

DeviceInfo simt_info() {
  DeviceInfo info;
  info.kind = DeviceKind::cuda;
  info.name = "SIMT layer";
  info.multiprocessors = simt::kMultiprocessors;
  info.compute_capability = 90;
  info.memory_bytes = std::int64_t{1} << 30;
  info.shared_bytes = std::int64_t{227} << 10;
  return info;
}

class SimtDevice final : public Device {
 public:
  [[nodiscard]] const DeviceInfo& info() const override { return info_; }
  [[nodiscard]] std::unique_ptr<Stream> make_stream() override {
    return std::make_unique<SimtStream>(shared_);
  }
  [[nodiscard]] Buffer allocate(std::size_t bytes) override {
    if (shared_->keeping) throw DeviceError("memory can't be allocated while work is kept");
    const auto size = static_cast<std::int64_t>(bytes);
    shared_->in_use += size;
    shared_->peak = std::max(shared_->peak, shared_->in_use);
    return allocate_for(bytes, size);
  }
  [[nodiscard]] Buffer allocate_host(std::size_t bytes) override { return allocate_for(bytes, 0); }
  [[nodiscard]] std::int64_t peak_bytes() const override { return shared_->peak; }
  [[nodiscard]] std::int64_t free_bytes() const override { return info_.memory_bytes; }

 private:
  /// Memory of which so many bytes count as the device's.
  [[nodiscard]] Buffer allocate_for(std::size_t bytes, std::int64_t counted) {
    if (bytes == 0) return {};
    constexpr std::align_val_t kAlignment{256};
    void* data = ::operator new(bytes, kAlignment);
    std::memset(data, 0xa5, bytes);  // what is read before it is written shows
    return {data, bytes, [shared = shared_, counted](void* memory, std::size_t) {
              shared->wait_for_all();  // as freeing on a GPU does
              ::operator delete(memory, kAlignment);
              shared->in_use -= counted;
            }};
  }

  DeviceInfo info_ = simt_info();
  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

}  // namespace

std::unique_ptr<Device> open_cuda(const DeviceSpec& /*spec*/) {
  return std::make_unique<SimtDevice>();
}
std::vector<DeviceInfo> list_cuda_devices() { return {simt_info()}; }
std::vector<Feature> list_cuda_features() { return {}; }
void push_nvtx_range(const char* /*name*/, std::int64_t /*payload*/) {}
void pop_nvtx_range() {}
void set_cuda_profiler(bool /*on*/) {}

namespace cuda {

std::size_t scan_bytes(std::int64_t /*batch*/) { return 0; }

void scan_living(const LivingFlag& living, std::int32_t* ranks, void* /*scratch*/,
                 NativeStream stream) {
  stream->push([living, ranks] {
    ranks[0] = 0;
    for (std::int32_t s = 0; s < living.x.batch; ++s) ranks[s + 1] = ranks[s] + living(s);
  });
}

/// As CUB, which keeps keys and numbers in turn there.
std::size_t sort_bytes(std::int64_t count) {
  return 2 * static_cast<std::size_t>(count) * sizeof(std::uint32_t);
}

void sort_pairs(const SortArgs& args, void* scratch, NativeStream stream) {
  stream->push([args, scratch] {
    std::memset(scratch, 0xa5, sort_bytes(args.count));  // nobody else's
    // Like CUB, by `bits` of the key alone.
    const std::uint32_t known = args.bits < 32 ? (std::uint32_t{1} << args.bits) - 1 : ~0U;
    std::vector<std::uint32_t> order(static_cast<std::size_t>(args.count));
    std::iota(order.begin(), order.end(), 0U);
    std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return (args.keys[a] & known) < (args.keys[b] & known);
    });
    for (std::size_t i = 0; i < order.size(); ++i) {
      args.keys_out[i] = args.keys[order[i]];
      args.numbers_out[i] = args.numbers[order[i]];
    }
  });
}

}  // namespace cuda
}  // namespace spdnn
