// What a person or a script reads after, or during, a run.
#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "spdnn/node.hpp"
#include "spdnn/run.hpp"

namespace spdnn {

/// The project's version, and the commit it was built from.
struct Version {
  std::string version, commit;
  bool dirty = false;
};
[[nodiscard]] Version version();

/// `result.json` as text; `command` is argv.
[[nodiscard]] std::string result_json(const RunResult& result,
                                      const std::vector<std::string>& command);

/// The summary printed at the end of a run.
[[nodiscard]] std::string result_summary(const RunResult& result);

/// Shows a `Progress` while it lives: a line that redraws itself on a terminal (rate and time
/// left), a plain line every few seconds elsewhere, nothing when quiet.
class ProgressPrinter {
 public:
  ProgressPrinter(const Progress& progress, std::FILE* out, bool quiet);
  ~ProgressPrinter();
  ProgressPrinter(const ProgressPrinter&) = delete;
  ProgressPrinter& operator=(const ProgressPrinter&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Recorded spans in Chrome's trace format (chrome://tracing, Perfetto).
[[nodiscard]] std::string trace_json(const std::vector<TraceSpan>& spans);

/// Devices and features, for `spdnn-gpu devices`: a table, or JSON.
[[nodiscard]] std::string devices_text();
[[nodiscard]] std::string devices_json();

/// A profile's kernel table, for `spdnn-gpu profile`: a table, or JSON.
[[nodiscard]] std::string profile_text(const Profile& profile);
[[nodiscard]] std::string profile_json(const Profile& profile);

/// One line of a chart; points that are not above 0 are left out.
struct ChartSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;
};
/// A chart over logarithmic axes.
struct Chart {
  std::string title, x_label, y_label;
  std::vector<ChartSeries> series;
};
/// The chart as one SVG file's content, with each value under its point.
[[nodiscard]] std::string chart_svg(const Chart& chart);

/// What `spdnn-gpu bench node` shows: tables, JSON, or a page that needs no other file.
[[nodiscard]] std::string node_text(const NodeReport& report);
[[nodiscard]] std::string node_json(const NodeReport& report);
[[nodiscard]] std::string node_html(const NodeReport& report);

}  // namespace spdnn
