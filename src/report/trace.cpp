// Recorded spans as Chrome's trace format.
#include <algorithm>
#include <map>

#include "format.hpp"
#include "spdnn/report.hpp"

namespace spdnn {

std::string trace_json(const std::vector<TraceSpan>& spans) {
  using report::Json;
  constexpr double us_per_s = 1e6;
  double start = 0.0;
  if (!spans.empty()) {
    start =
        std::min_element(spans.begin(), spans.end(), [](const TraceSpan& a, const TraceSpan& b) {
          return a.begin_s < b.begin_s;
        })->begin_s;
  }
  std::map<std::uint64_t, std::size_t> threads;  // numbered as they appear
  Json events = Json::array();
  for (const TraceSpan& span : spans) {
    Json event{{"name", span.name},
               {"cat", "spdnn"},
               {"ph", "X"},
               {"ts", report::finite((span.begin_s - start) * us_per_s)},
               {"dur", report::finite((span.end_s - span.begin_s) * us_per_s)},
               {"pid", 1},
               {"tid", threads.emplace(span.thread, threads.size() + 1).first->second}};
    if (span.payload >= 0) event["args"] = {{"payload", span.payload}};
    events.push_back(std::move(event));
  }
  // Compact: a trace of many layers is long, and read by programs.
  return Json{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}}.dump(
             -1, ' ', false, Json::error_handler_t::replace) +
         "\n";
}

}  // namespace spdnn
