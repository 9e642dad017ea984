// Profile ranges: NVTX where it is built in, and spans in memory while a trace is recorded.
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "backend.hpp"

namespace spdnn {
namespace {

std::atomic<bool> recording{false};
std::mutex spans_mutex;
std::vector<TraceSpan> spans;

}  // namespace

ProfileRange::ProfileRange(const char* name, std::int64_t payload)
    : name_(name), payload_(payload), start_(recording ? now_seconds() : 0.0) {
  push_nvtx_range(name, payload);
}

ProfileRange::~ProfileRange() {
  pop_nvtx_range();
  if (!recording || start_ == 0.0) return;
  const std::uint64_t thread = std::hash<std::thread::id>{}(std::this_thread::get_id());
  const std::lock_guard lock(spans_mutex);
  spans.push_back({name_, payload_, start_, now_seconds(), thread});
}

void start_trace() {
  const std::lock_guard lock(spans_mutex);
  spans.clear();
  recording = true;
}

std::vector<TraceSpan> stop_trace() {
  recording = false;
  const std::lock_guard lock(spans_mutex);
  return std::exchange(spans, {});
}

void set_profiler_capture(bool on) { set_cuda_profiler(on); }

}  // namespace spdnn
