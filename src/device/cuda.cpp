// The CUDA backend: devices, streams, events and memory through the runtime, statically linked.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "backend.hpp"
#include "cuda_check.hpp"
#include "green_context.hpp"

namespace spdnn {
namespace {

/// The kernels use what came with compute capability 8.0: more shared memory a block, above all.
constexpr int kLeastCapability = 80;

/// Devices the driver shows; 0 where there is no driver, or one too old for this runtime.
int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  (void)cudaGetLastError();
  return 0;
}

/// fp32 lanes of a multiprocessor (CUDA C++ Programming Guide, "Compute Capabilities").
int fp32_lanes(int compute_capability) { return compute_capability == 80 ? 64 : 128; }

DeviceInfo info_of(int index) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  DeviceInfo info;
  info.kind = DeviceKind::cuda;
  info.index = index;
  info.name = properties.name;
  info.multiprocessors = properties.multiProcessorCount;
  info.compute_capability = properties.major * 10 + properties.minor;
  info.memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
  info.shared_bytes = static_cast<std::int64_t>(properties.sharedMemPerBlockOptin);
  info.l2_bytes = properties.l2CacheSize;
  int kilohertz = 0;
  check_cuda(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, index),
             "cudaDeviceGetAttribute");
  info.fma_per_s = 1e3 * kilohertz * info.multiprocessors * fp32_lanes(info.compute_capability);
  return info;
}

class CudaEvent final : public Event {
 public:
  explicit CudaEvent(cudaStream_t stream) {
    check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
    const cudaError_t status = cudaEventRecord(event_, stream);
    if (status != cudaSuccess) (void)cudaEventDestroy(event_);
    check_cuda(status, "cudaEventRecord");
  }
  ~CudaEvent() override { (void)cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  [[nodiscard]] bool ready() const override {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) return false;
    check_cuda(status, "cudaEventQuery");
    return true;
  }
  void wait() const override { check_cuda(cudaEventSynchronize(event_), "cudaEventSynchronize"); }
  [[nodiscard]] cudaEvent_t native() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// A CUDA graph, ready to launch.
class CudaRecording final : public Recording {
 public:
  CudaRecording(int device, cudaStream_t stream, cudaGraphExec_t graph)
      : device_(device), stream_(stream), graph_(graph) {}
  ~CudaRecording() override { (void)cudaGraphExecDestroy(graph_); }
  CudaRecording(const CudaRecording&) = delete;
  CudaRecording& operator=(const CudaRecording&) = delete;
  void replay() override {
    check_cuda(cudaSetDevice(device_), "cudaSetDevice");
    check_cuda(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch");
  }

 private:
  int device_;
  cudaStream_t stream_;
  cudaGraphExec_t graph_;
};

/// A stream of one device. Each call makes that device the thread's current one first, so that a
/// thread may hold several devices.
class CudaStream final : public Stream {
 public:
  /// On all of the device, or on the multiprocessors of a part of it: so many.
  CudaStream(int device, std::shared_ptr<const GreenContext> part, int multiprocessors)
      : device_(device), multiprocessors_(multiprocessors), part_(std::move(part)) {
    make_current();
    if (part_ != nullptr) {
      stream_ = part_->make_stream();
    } else {
      check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    }
  }
  ~CudaStream() override { (void)cudaStreamDestroy(stream_); }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes == 0) return;
    make_current();
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "cudaMemcpyAsync");
  }
  void zero(void* to, std::size_t bytes) override {
    if (bytes == 0) return;
    make_current();
    check_cuda(cudaMemsetAsync(to, 0, bytes, stream_), "cudaMemsetAsync");
  }
  [[nodiscard]] std::unique_ptr<Event> record() override {
    make_current();
    return std::make_unique<CudaEvent>(stream_);
  }
  void wait(const Event& event) override {
    const auto* other = dynamic_cast<const CudaEvent*>(&event);
    if (other == nullptr) {
      throw DeviceError("a CUDA stream can only wait for an event of a CUDA stream");
    }
    make_current();
    check_cuda(cudaStreamWaitEvent(stream_, other->native(), 0), "cudaStreamWaitEvent");
  }
  void synchronize() override {
    make_current();
    check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  [[nodiscard]] std::unique_ptr<Recording> keep(const std::function<void()>& work) override {
    make_current();
    check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture");
    bool kept = true;
    try {
      work();
    } catch (const DeviceError&) {
      kept = false;  // a call that a capture does not allow; done directly, it may be right
    }
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t ready = nullptr;
    kept = cudaStreamEndCapture(stream_, &graph) == cudaSuccess && kept;
    kept = kept && cudaGraphInstantiate(&ready, graph, 0) == cudaSuccess;
    if (graph != nullptr) (void)cudaGraphDestroy(graph);
    if (!kept) {
      (void)cudaGetLastError();
      return nullptr;
    }
    return std::make_unique<CudaRecording>(device_, stream_, ready);
  }
  [[nodiscard]] int multiprocessors() const override { return multiprocessors_; }
  /// Makes the stream's device current, for the kernel launch that follows.
  [[nodiscard]] void* native() override {
    make_current();
    return stream_;
  }

 private:
  void make_current() const { check_cuda(cudaSetDevice(device_), "cudaSetDevice"); }

  int device_;
  int multiprocessors_;
  std::shared_ptr<const GreenContext> part_;
  cudaStream_t stream_ = nullptr;
};

/// Bytes allocated on a device; buffers may outlive the `Device` they came from.
struct Accounting {
  std::atomic<std::int64_t> in_use{0};
  std::atomic<std::int64_t> peak{0};
  void add(std::int64_t bytes) {
    const std::int64_t now = in_use += bytes;
    std::int64_t seen = peak;
    while (seen < now && !peak.compare_exchange_weak(seen, now)) {
    }
  }
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(const DeviceSpec& spec) : info_(info_of(spec.index)) {
    make_current();
    // Creates the context now, so that a failing device fails here and not in the first copy.
    check_cuda(cudaFree(nullptr), "starting the device");
    if (spec.sms == 0) return;
    part_ = std::make_shared<const GreenContext>(green_functions(), spec.index, spec.sms_before,
                                                 spec.sms);
    info_.fma_per_s *= static_cast<double>(spec.sms) / info_.multiprocessors;
    info_.multiprocessors = spec.sms;
  }

  [[nodiscard]] const DeviceInfo& info() const override { return info_; }
  [[nodiscard]] std::unique_ptr<Stream> make_stream() override {
    return std::make_unique<CudaStream>(info_.index, part_, info_.multiprocessors);
  }

  [[nodiscard]] Buffer allocate(std::size_t bytes) override {
    if (bytes == 0) return {};
    make_current();
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      throw DeviceError(fmt::format(
          "{} (cuda {}) cannot hold {} bytes more: this rank uses {} and {} of {} are free; choose "
          "a smaller `batch` or `memory_limit`",
          info_.name, info_.index, bytes, accounting_->in_use.load(), free_bytes(),
          info_.memory_bytes));
    }
    check_cuda(status, "cudaMalloc");
    accounting_->add(static_cast<std::int64_t>(bytes));
    return {data, bytes, [accounting = accounting_](void* memory, std::size_t size) {
              (void)cudaFree(memory);
              accounting->in_use -= static_cast<std::int64_t>(size);
            }};
  }

  [[nodiscard]] Buffer allocate_host(std::size_t bytes) override {
    if (bytes == 0) return {};
    make_current();
    void* data = nullptr;
    const cudaError_t status = cudaMallocHost(&data, bytes);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      throw DeviceError(
          fmt::format("the host cannot pin {} bytes; choose a smaller `batch` or "
                      "`memory_limit`, or raise the limit of locked memory",
                      bytes));
    }
    check_cuda(status, "cudaMallocHost");
    return {data, bytes, [](void* memory, std::size_t) { (void)cudaFreeHost(memory); }};
  }

  [[nodiscard]] std::int64_t peak_bytes() const override { return accounting_->peak; }

  [[nodiscard]] std::int64_t free_bytes() const override {
    make_current();
    std::size_t free = 0;
    std::size_t total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<std::int64_t>(free);
  }

 private:
  void make_current() const { check_cuda(cudaSetDevice(info_.index), "cudaSetDevice"); }

  DeviceInfo info_;
  std::shared_ptr<const GreenContext> part_;  ///< of its multiprocessors; none: all
  std::shared_ptr<Accounting> accounting_ = std::make_shared<Accounting>();
};

}  // namespace

std::unique_ptr<Device> open_cuda(const DeviceSpec& spec) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();
    throw DeviceError(fmt::format(
        "cuda device {}: {}; install an NVIDIA driver for CUDA {}.{}, or use the CPU "
        "(`\"devices\": "
        "[{{\"cpu\": {{}}}}]`)",
        spec.index, cudaGetErrorString(status), CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10));
  }
  if (spec.index < 0 || spec.index >= count) {
    throw DeviceError(
        fmt::format("cuda device {} is not there: the driver shows {} ({}); choose "
                    "another, or check CUDA_VISIBLE_DEVICES",
                    spec.index, count, count == 0 ? "none" : fmt::format("0 to {}", count - 1)));
  }
  auto device = std::make_unique<CudaDevice>(spec);
  if (device->info().compute_capability < kLeastCapability) {
    throw DeviceError(fmt::format(
        "{} (cuda {}) has compute capability {}.{}; {}.{} is needed: use "
        "another device or the CPU",
        device->info().name, spec.index, device->info().compute_capability / 10,
        device->info().compute_capability % 10, kLeastCapability / 10, kLeastCapability % 10));
  }
  return device;
}

std::vector<DeviceInfo> list_cuda_devices() {
  std::vector<DeviceInfo> devices;
  const int count = device_count();
  for (int index = 0; index < count; ++index) {
    DeviceInfo info = info_of(index);
    if (info.compute_capability >= kLeastCapability) devices.push_back(std::move(info));
  }
  return devices;
}

}  // namespace spdnn
