// Reading the machine's state from /proc, and summarising samples.
#include "support/record.hpp"

#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <fstream>

#include "spdnn/device.hpp"
#include "spdnn/report.hpp"

namespace spdnn::bench {
namespace {

/// Seconds all cores of the machine have been busy or stolen since it started.
double machine_seconds() {
  std::ifstream file("/proc/stat");
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0, steal = 0;
  if (!(file >> name >> user >> nice >> system >> idle >> wait >> irq >> soft >> steal)) return 0.0;
  return (user + nice + system + irq + soft + steal) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

double own_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::vector<double> load_average() {
  std::ifstream file("/proc/loadavg");
  std::vector<double> loads(3);
  for (double& load : loads) file >> load;
  return loads;
}

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace

nlohmann::json describe_conditions(const std::vector<std::string>& command) {
  const Version build = version();
  const DeviceInfo cpu = list_devices().front();
  utsname system{};
  uname(&system);
  return {{"argv", command},
          {"commit", build.commit},
          {"dirty", build.dirty},
          {"date", now_utc()},
          {"cpu", cpu.name},
          {"cores", usable_cores().size()},
          {"l1d_bytes", sysconf(_SC_LEVEL1_DCACHE_SIZE)},
          {"l2_bytes", cpu.l2_bytes},
          {"l3_bytes", cpu.l3_bytes},
          {"memory_bytes", cpu.memory_bytes},
          {"system", std::string(system.sysname) + " " + system.release + " " + system.machine},
          {"compiler", __VERSION__},
          {"load_average", load_average()}};
}

double median_of(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2.0;
}

nlohmann::json summarize(const std::vector<double>& seconds) {
  const double median = median_of(seconds);
  const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
  return {{"median_s", median},
          {"min_s", *least},
          {"max_s", *most},
          {"spread", (*most - *least) / median},
          {"samples_s", seconds}};
}

OtherLoad::OtherLoad() : start_(now_seconds()), machine_(machine_seconds()), own_(own_seconds()) {}

double OtherLoad::seconds() const {
  return std::max((machine_seconds() - machine_) - (own_seconds() - own_), 0.0);
}

double OtherLoad::cores() const {
  const double wall = now_seconds() - start_;
  return wall > 0.0 ? seconds() / wall : 0.0;
}

bool OtherLoad::quiet() const {
  constexpr double kQuietCores = 0.05;
  constexpr double kTicks = 4.0;
  const double uncertain = kTicks / static_cast<double>(sysconf(_SC_CLK_TCK));
  return seconds() < kQuietCores * (now_seconds() - start_) + uncertain;
}

}  // namespace spdnn::bench
