// cuBLAS behind a table of functions; see library.hpp.
#pragma once

#include <cublas_v2.h>

#include <string>

namespace spdnn::cuda {

struct CublasApi {
  decltype(&::cublasCreate) create = nullptr;
  decltype(&::cublasDestroy) destroy = nullptr;
  decltype(&::cublasSetStream) set_stream = nullptr;
  decltype(&::cublasGetStatusString) status_string = nullptr;
  /// cublasGemmStridedBatchedEx: C++ overloads its name.
  cublasStatus_t (*multiply)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n,
                             int k, const void* alpha, const void* a, cudaDataType, int lda,
                             long long stride_a, const void* b, cudaDataType, int ldb,
                             long long stride_b, const void* beta, void* c, cudaDataType, int ldc,
                             long long stride_c, int count, cublasComputeType_t,
                             cublasGemmAlgo_t) = nullptr;

  /// Throws `DeviceError` for a failed call; `what` says which.
  void check(cublasStatus_t status, const char* what) const;
};

/// The loaded table, or null with the reason in `why`. Loads once; thread-safe.
[[nodiscard]] const CublasApi* cublas_api(std::string& why);

}  // namespace spdnn::cuda
