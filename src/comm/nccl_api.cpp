// Opens NCCL and fills its table.
#include "nccl_api.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

namespace spdnn::comm {
namespace {

constexpr const char* kFile = "libnccl.so.2";

struct Loaded {
  NcclFunctions functions;
  std::string why;  ///< empty when the table is full
};

/// Fills the table from a library that stays open to the end of the process.
class Loader {
 public:
  explicit Loader(Loaded& loaded) : loaded_(loaded), handle_(dlopen(kFile, RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) {
      loaded_.why = fmt::format(
          "{} was not found: install libnccl2, or add its folder to LD_LIBRARY_PATH", kFile);
    }
  }
  template <class Function>
  void look_up(const char* symbol, Function& function) {
    if (handle_ == nullptr) return;
    function = reinterpret_cast<Function>(dlsym(handle_, symbol));
    if (function == nullptr && loaded_.why.empty()) {
      loaded_.why = fmt::format("{} has no function {}: install NCCL 2.14 or newer", kFile, symbol);
    }
  }

 private:
  Loaded& loaded_;
  void* handle_;
};

Loaded open_library() {
  Loaded loaded;
  NcclFunctions& table = loaded.functions;
  Loader loader(loaded);
  loader.look_up("ncclGetVersion", table.get_version);
  loader.look_up("ncclGetErrorString", table.error_string);
  loader.look_up("ncclGetUniqueId", table.get_unique_id);
  loader.look_up("ncclCommInitRankConfig", table.init_rank_config);
  loader.look_up("ncclCommGetAsyncError", table.async_error);
  loader.look_up("ncclCommFinalize", table.finalize);
  loader.look_up("ncclCommDestroy", table.destroy);
  loader.look_up("ncclCommAbort", table.abort);
  loader.look_up("ncclGroupStart", table.group_start);
  loader.look_up("ncclGroupEnd", table.group_end);
  loader.look_up("ncclAllGather", table.all_gather);
  loader.look_up("ncclBroadcast", table.broadcast);
  loader.look_up("ncclAllReduce", table.all_reduce);
  loader.look_up("ncclReduceScatter", table.reduce_scatter);
  loader.look_up("ncclReduce", table.reduce);
  loader.look_up("ncclSend", table.send);
  loader.look_up("ncclRecv", table.receive);
  int version = 0;
  if (loaded.why.empty() &&
      (table.get_version(&version) != NcclResult::success || version < nccl_least_version)) {
    loaded.why = fmt::format("{} has version {}: install NCCL 2.14 or newer", kFile, version);
  }
  return loaded;
}

}  // namespace

const NcclFunctions* nccl_functions(std::string& why) {
  static const Loaded loaded = open_library();
  why = loaded.why;
  return loaded.why.empty() ? &loaded.functions : nullptr;
}

}  // namespace spdnn::comm
