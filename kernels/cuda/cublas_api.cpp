// Opens cuBLAS and fills its table.
#include "cuda/cublas_api.hpp"

#include "cuda/library.hpp"
#include "spdnn/error.hpp"

namespace spdnn::cuda {
namespace {

struct Loaded {
  CublasApi api;
  std::string why;  ///< empty when the table is full
};

Loaded open_library() {
  Library library("cuBLAS", "libcublas.so." + std::to_string(CUBLAS_VER_MAJOR));
  CublasApi api;
  library.look_up("cublasCreate_v2", api.create);
  library.look_up("cublasDestroy_v2", api.destroy);
  library.look_up("cublasSetStream_v2", api.set_stream);
  library.look_up("cublasGetStatusString", api.status_string);
  library.look_up("cublasGemmStridedBatchedEx", api.multiply);
  return {api, library.why()};
}

}  // namespace

const CublasApi* cublas_api(std::string& why) {
  static const Loaded loaded = open_library();
  why = loaded.why;
  return loaded.why.empty() ? &loaded.api : nullptr;
}

void CublasApi::check(cublasStatus_t status, const char* what) const {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(std::string(what) + " failed: " + status_string(status) + " (status " +
                    std::to_string(static_cast<int>(status)) + ")");
}

}  // namespace spdnn::cuda
