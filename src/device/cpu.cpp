// The CPU as a device: memory from the heap, a stream that works at once on a team of threads.
#include <fmt/format.h>
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <new>

#include "backend.hpp"
#include "team.hpp"

namespace spdnn {
namespace {

constexpr std::size_t kAlignment = 256;
/// Buffers of this size and more ask for large pages: the system then clears and maps 2 MiB at a
/// time as they are first touched, and few addresses need translating.
constexpr std::size_t kLargePage = std::size_t{2} << 20;

class DoneEvent final : public Event {
 public:
  [[nodiscard]] bool ready() const override { return true; }
  void wait() const override {}
};

class CpuStream final : public Stream {
 public:
  explicit CpuStream(ThreadTeam& team) : team_(team) {}
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void zero(void* to, std::size_t bytes) override {
    if (bytes > 0) std::memset(to, 0, bytes);
  }
  [[nodiscard]] std::unique_ptr<Event> record() override { return std::make_unique<DoneEvent>(); }
  void wait(const Event& event) override { event.wait(); }
  void synchronize() override {}
  [[nodiscard]] ThreadTeam& team() override { return team_; }

 private:
  ThreadTeam& team_;
};

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const DeviceSpec& spec)
      : info_(cpu_info(spec.threads)), team_(make_team(spec.threads, spec.cores)) {}

  [[nodiscard]] const DeviceInfo& info() const override { return info_; }
  [[nodiscard]] std::unique_ptr<Stream> make_stream() override {
    return std::make_unique<CpuStream>(*team_);
  }
  [[nodiscard]] Buffer allocate(std::size_t bytes) override {
    // Aligned here: what glibc's `aligned_alloc` got back it does not find again before 2.38, so
    // that buffers made anew time and again would take ever more memory.
    const std::size_t alignment = bytes >= kLargePage ? kLargePage : kAlignment;
    const std::size_t with_room = std::max(bytes, bytes + alignment);  // past the largest: too much
    void* const block = ::operator new(with_room, std::nothrow);
    void* data = block;
    std::size_t room = with_room;
    if (block == nullptr || std::align(alignment, bytes, data, room) == nullptr) {
      throw DeviceError(fmt::format(
          "{}: no memory for {} bytes more, {} in use, {} free; lower memory_limit or batch",
          info_.name, bytes, in_use_, free_bytes()));
    }
    if (bytes >= kLargePage) ::madvise(data, bytes / kLargePage * kLargePage, MADV_HUGEPAGE);
    ASAN_POISON_MEMORY_REGION(block, with_room - room);
    ASAN_POISON_MEMORY_REGION(static_cast<std::byte*>(data) + bytes, room - bytes);
    in_use_ += static_cast<std::int64_t>(bytes);
    peak_ = std::max(peak_, in_use_);
    return {data, bytes, [this, block](void* /*data*/, std::size_t size) {
              ::operator delete(block);
              in_use_ -= static_cast<std::int64_t>(size);
            }};
  }
  [[nodiscard]] Buffer allocate_host(std::size_t bytes) override { return allocate(bytes); }
  [[nodiscard]] std::int64_t peak_bytes() const override { return peak_; }
  [[nodiscard]] std::int64_t free_bytes() const override {
    return static_cast<std::int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  }

 private:
  DeviceInfo info_;
  std::unique_ptr<ThreadTeam> team_;
  std::int64_t in_use_ = 0, peak_ = 0;
};

std::string model_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) {
      const std::size_t colon = line.find(": ");
      if (colon != std::string::npos) return line.substr(colon + 2);
    }
  }
  return "CPU";
}

/// Bytes of memory this process may use: the machine's, or less where a cgroup says so.
std::int64_t memory_bytes() {
  struct sysinfo machine {};
  sysinfo(&machine);
  auto total = static_cast<std::int64_t>(machine.totalram) * machine.mem_unit;
  std::ifstream file("/sys/fs/cgroup/memory.max");
  if (std::int64_t limit = 0; file >> limit && limit > 0) total = std::min(total, limit);
  return total;
}

}  // namespace

DeviceInfo cpu_info(int threads) {
  static const std::string name = model_name();
  DeviceInfo info;
  info.kind = DeviceKind::cpu;
  info.name = name;
  info.threads = threads;
  info.memory_bytes = memory_bytes();
  info.l2_bytes = std::max(sysconf(_SC_LEVEL2_CACHE_SIZE), 0L);
  info.l3_bytes = std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), 0L);
  return info;
}

std::unique_ptr<Device> open_cpu(const DeviceSpec& spec) {
  return std::make_unique<CpuDevice>(spec);
}

}  // namespace spdnn
