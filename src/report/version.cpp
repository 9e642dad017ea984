// Version and commit, compiled in by the build; the only file that a new commit rebuilds.
#include "spdnn/report.hpp"

namespace spdnn {

Version version() { return {SPDNN_VERSION, SPDNN_COMMIT, SPDNN_DIRTY != 0}; }

}  // namespace spdnn
