// Devices, their memory and their streams. One rank drives one device through these interfaces.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn {

enum class DeviceKind : std::uint8_t { cpu, cuda };

/// "cpu" or "cuda".
[[nodiscard]] std::string_view to_string(DeviceKind kind);

/// What a device is. Fields that a kind does not have are 0.
struct DeviceInfo {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;                  ///< CUDA ordinal; 0 for the CPU
  std::string name;               ///< marketing name, e.g. "NVIDIA H200"
  int threads = 1;                ///< CPU threads of the rank
  int multiprocessors = 0;        ///< CUDA
  int compute_capability = 0;     ///< CUDA, major · 10 + minor
  std::int64_t memory_bytes = 0;  ///< total
  std::int64_t shared_bytes = 0;  ///< CUDA shared memory a block may opt in to
  std::int64_t l2_bytes = 0;      ///< CPU: of one core; CUDA: of the device
  std::int64_t l3_bytes = 0;      ///< CPU
  double fma_per_s = 0.0;         ///< CUDA: fp32 multiply–adds at the highest clock
};

/// Names a device by what it can do, e.g. "NVIDIA H200 x132": those with equal names have equal
/// measurements.
[[nodiscard]] std::string name_of_kind(const DeviceInfo& info);

/// From `at` on, a step or seconds since its rank began, a device is declared `factor` times
/// slower.
struct SlowdownChange {
  double at = 0.0;
  double factor = 1.0;
};

/// A device as a configuration asks for it.
struct DeviceSpec {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;          ///< CUDA ordinal
  int threads = 1;        ///< CPU threads of the rank
  int sms = 0;            ///< CUDA: multiprocessors that the rank may use; 0: all
  int sms_before = 0;     ///< CUDA: those before them, which other ranks have
  double slowdown = 1.0;  ///< declared: the rank works as if its device were this many times slower
  std::vector<SlowdownChange> slowdown_changes;  ///< of `slowdown`, `at` ascending
  bool slowdown_by_seconds = false;              ///< changes are at seconds, not at steps
  std::vector<int> cores;  ///< cores to pin the CPU threads to; empty leaves them free
};

/// Whether what one is measured to do holds for the other, declared slowdowns aside.
[[nodiscard]] bool same_device(const DeviceSpec& a, const DeviceSpec& b);

class Device;

/// Memory of a device (or pinned host memory of one), freed with its owner.
class Buffer {
 public:
  Buffer() = default;
  Buffer(void* data, std::size_t bytes, std::function<void(void*, std::size_t)> free)
      : data_(data), bytes_(bytes), free_(std::move(free)) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer moved(std::move(other));
    swap(moved);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) free_(data_, bytes_);
  }
  [[nodiscard]] void* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  template <class T>
  [[nodiscard]] T* as() const noexcept {
    return static_cast<T*>(data_);
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(free_, other.free_);
  }
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::function<void(void*, std::size_t)> free_;
};

/// A point in a stream's order that the host can ask about.
class Event {
 public:
  virtual ~Event() = default;
  [[nodiscard]] virtual bool ready() const = 0;
  virtual void wait() const = 0;
};

/// Work that a stream has recorded, to be queued again at the cost of one launch.
class Recording {
 public:
  virtual ~Recording() = default;
  /// Queues all of it on the stream that recorded it.
  virtual void replay() = 0;
};

/// The threads of one CPU rank. The caller is one of them.
class ThreadTeam {
 public:
  virtual ~ThreadTeam() = default;
  [[nodiscard]] virtual int size() const = 0;
  /// Calls `body(begin, end)` so that `[0, count)` is covered once, in pieces of at least `grain`
  /// handed out as threads become free; returns when all are done and rethrows the first error.
  virtual void parallel_for(std::int64_t count, std::int64_t grain,
                            const std::function<void(std::int64_t, std::int64_t)>& body) = 0;
};

/// An ordered queue of work on one device. A CPU stream does each piece at once.
class Stream {
 public:
  virtual ~Stream() = default;
  /// Copies `bytes` between host and device memory, in either direction or within one.
  /// Host memory must stay untouched until the stream has passed this point.
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
  virtual void zero(void* to, std::size_t bytes) = 0;
  [[nodiscard]] virtual std::unique_ptr<Event> record() = 0;
  /// Work queued from here on starts after `event`, which may be of another stream of the device.
  virtual void wait(const Event& event) = 0;
  /// Blocks the host until all work queued so far is done; throws `DeviceError` if any of it
  /// failed.
  virtual void synchronize() = 0;
  /// The CPU threads behind the stream; throws `DeviceError` on another kind of device.
  [[nodiscard]] virtual ThreadTeam& team();
  /// The multiprocessors that its kernels run on, of a GPU or of a rank's part of one; throws
  /// `DeviceError` on another kind of device.
  [[nodiscard]] virtual int multiprocessors() const;
  /// Calls `work`, which queues work on this stream and does nothing else that matters, and keeps
  /// it instead of doing it: a CUDA graph. Null, with nothing done, where the device has no such
  /// thing or the work can't be kept, e.g. because it allocates memory.
  [[nodiscard]] virtual std::unique_ptr<Recording> keep(const std::function<void()>& /*work*/) {
    return nullptr;
  }
  /// `cudaStream_t` on CUDA; null on the CPU.
  [[nodiscard]] virtual void* native() { return nullptr; }
};

/// A device opened for one rank. Not shared between ranks; used from the thread that opened it.
class Device {
 public:
  virtual ~Device() = default;
  [[nodiscard]] virtual const DeviceInfo& info() const = 0;
  [[nodiscard]] virtual std::unique_ptr<Stream> make_stream() = 0;
  /// Device memory, aligned to 256 bytes, contents unspecified. Throws `DeviceError` with the bytes
  /// asked for, in use and there when it does not fit.
  [[nodiscard]] virtual Buffer allocate(std::size_t bytes) = 0;
  /// Host memory the device copies from and to at full speed (pinned on CUDA).
  [[nodiscard]] virtual Buffer allocate_host(std::size_t bytes) = 0;
  /// Most bytes of `allocate` that were alive at once.
  [[nodiscard]] virtual std::int64_t peak_bytes() const = 0;
  /// Bytes still free on the device now.
  [[nodiscard]] virtual std::int64_t free_bytes() const = 0;
};

/// Opens a device. Throws `DeviceError` when it is not there or this build has no backend for it.
[[nodiscard]] std::unique_ptr<Device> open_device(const DeviceSpec& spec);

/// Every device of this machine that this build can use; the CPU first, as one device with all its
/// usable threads.
[[nodiscard]] std::vector<DeviceInfo> list_devices();

/// An optional backend or library: whether it was built in, its version, and if not, how to get it.
struct Feature {
  std::string name;  ///< "cuda", "cusparse", "nccl", "mpi", "nvtx"
  bool built = false;
  bool usable = false;  ///< built and found at run time
  std::string version;
  std::string remedy;  ///< what to do to have it; empty when usable
};
[[nodiscard]] std::vector<Feature> list_features();

/// Cores this process may use: the affinity mask, cut by the cgroup's quota and `OMP_NUM_THREADS`.
[[nodiscard]] std::vector<int> usable_cores();

/// CPU seconds the calling thread has used.
[[nodiscard]] double thread_cpu_seconds();

/// Seconds of a steady clock.
[[nodiscard]] double now_seconds();

/// Names a stretch of the calling thread's time for profilers: an NVTX range in domain `spdnn`, and
/// a span in the trace file when one is being recorded.
class ProfileRange {
 public:
  explicit ProfileRange(const char* name, std::int64_t payload = -1);
  ~ProfileRange();
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;

 private:
  const char* name_;
  std::int64_t payload_;
  double start_;
};

/// One recorded `ProfileRange`.
struct TraceSpan {
  const char* name;
  std::int64_t payload;  ///< e.g. the layer; -1 for none
  double begin_s, end_s;
  std::uint64_t thread;
};
/// Starts recording every `ProfileRange` of the process; `stop_trace` ends it and returns them.
void start_trace();
[[nodiscard]] std::vector<TraceSpan> stop_trace();

/// Marks the measured part for `nsys profile --capture-range=cudaProfilerApi` and `ncu`: calls
/// cudaProfilerStart or cudaProfilerStop; does nothing without CUDA.
void set_profiler_capture(bool on);

}  // namespace spdnn
