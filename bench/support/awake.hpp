// Cores that do not fall asleep while something that sleeps is measured on them.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

namespace spdnn::bench {

/// Keeps a thread of idle priority on each core of this process, which yields to any other. Ranks
/// play slow devices by sleeping; a device that is slow is not asleep, and a virtual machine's
/// core that is may wake up beside another one on the same execution units.
class AwakeCores {
 public:
  AwakeCores();
  ~AwakeCores();
  AwakeCores(const AwakeCores&) = delete;
  AwakeCores& operator=(const AwakeCores&) = delete;

 private:
  std::atomic<bool> done_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace spdnn::bench
