// What every result file says of the conditions it was measured under.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace spdnn::bench {

/// argv, commit, dirty flag, CPU, cores, caches, operating system, date and load average.
[[nodiscard]] nlohmann::json describe_conditions(const std::vector<std::string>& command);

/// Median, least, most, spread ((most − least) / median) and all samples.
[[nodiscard]] nlohmann::json summarize(const std::vector<double>& seconds);
[[nodiscard]] double median_of(std::vector<double> values);

/// How busy other processes, or the hypervisor's other guests (steal), kept the machine meanwhile.
class OtherLoad {
 public:
  OtherLoad();
  /// Cores since construction, on average; 0 where the system does not tell.
  [[nodiscard]] double cores() const;
  /// Under 0.05 cores, beyond what the system's clock ticks leave uncertain in a short time.
  [[nodiscard]] bool quiet() const;

 private:
  [[nodiscard]] double seconds() const;
  double start_, machine_, own_;
};

}  // namespace spdnn::bench
