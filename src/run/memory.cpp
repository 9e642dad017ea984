// Resident memory as Linux accounts for it.
#include "memory.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

namespace spdnn {

std::int64_t peak_host_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

std::int64_t host_bytes_now() {
  std::ifstream file("/proc/self/statm");
  std::int64_t total = 0;
  std::int64_t resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace spdnn
