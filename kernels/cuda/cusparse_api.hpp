// cuSPARSE behind a table of functions; see library.hpp.
#pragma once

#include <cusparse.h>

#include <string>

namespace spdnn::cuda {

struct CusparseApi {
  decltype(&::cusparseCreate) create = nullptr;
  decltype(&::cusparseDestroy) destroy = nullptr;
  decltype(&::cusparseSetStream) set_stream = nullptr;
  decltype(&::cusparseGetErrorString) error_string = nullptr;
  decltype(&::cusparseCreateCsr) create_csr = nullptr;
  decltype(&::cusparseDestroySpMat) destroy_sparse = nullptr;
  decltype(&::cusparseCsrSetStridedBatch) set_csr_batch = nullptr;
  decltype(&::cusparseCreateDnMat) create_dense = nullptr;
  decltype(&::cusparseDestroyDnMat) destroy_dense = nullptr;
  decltype(&::cusparseDnMatSetStridedBatch) set_dense_batch = nullptr;
  decltype(&::cusparseSpMM_bufferSize) spmm_buffer_size = nullptr;
  decltype(&::cusparseSpMM) spmm = nullptr;

  /// Throws `DeviceError` for a failed call; `what` says which.
  void check(cusparseStatus_t status, const char* what) const;
};

/// The loaded table, or null with the reason in `why`. Loads once; thread-safe.
[[nodiscard]] const CusparseApi* cusparse_api(std::string& why);

}  // namespace spdnn::cuda
