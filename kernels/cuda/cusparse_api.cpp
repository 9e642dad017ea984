// Opens cuSPARSE and fills its table.
#include "cuda/cusparse_api.hpp"

#include "cuda/library.hpp"
#include "spdnn/error.hpp"

namespace spdnn::cuda {
namespace {

struct Loaded {
  CusparseApi api;
  std::string why;  ///< empty when the table is full
};

Loaded open_library() {
  Library library("cuSPARSE", "libcusparse.so." + std::to_string(CUSPARSE_VER_MAJOR));
  CusparseApi api;
  library.look_up("cusparseCreate", api.create);
  library.look_up("cusparseDestroy", api.destroy);
  library.look_up("cusparseSetStream", api.set_stream);
  library.look_up("cusparseGetErrorString", api.error_string);
  library.look_up("cusparseCreateCsr", api.create_csr);
  library.look_up("cusparseDestroySpMat", api.destroy_sparse);
  library.look_up("cusparseCsrSetStridedBatch", api.set_csr_batch);
  library.look_up("cusparseCreateDnMat", api.create_dense);
  library.look_up("cusparseDestroyDnMat", api.destroy_dense);
  library.look_up("cusparseDnMatSetStridedBatch", api.set_dense_batch);
  library.look_up("cusparseSpMM_bufferSize", api.spmm_buffer_size);
  library.look_up("cusparseSpMM", api.spmm);
  return {api, library.why()};
}

}  // namespace

const CusparseApi* cusparse_api(std::string& why) {
  static const Loaded loaded = open_library();
  why = loaded.why;
  return loaded.why.empty() ? &loaded.api : nullptr;
}

void CusparseApi::check(cusparseStatus_t status, const char* what) const {
  if (status == CUSPARSE_STATUS_SUCCESS) return;
  throw DeviceError(std::string(what) + " failed: " + error_string(status) + " (status " +
                    std::to_string(static_cast<int>(status)) + ")");
}

}  // namespace spdnn::cuda
