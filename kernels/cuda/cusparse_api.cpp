// Opens cuSPARSE and fills its table.
#include "cuda/cusparse_api.hpp"

#include <dlfcn.h>

#include "spdnn/error.hpp"

namespace spdnn::cuda {
namespace {

struct Loaded {
  CusparseApi api;
  std::string why;  ///< empty when the table is full
};

template <class Function>
void look_up(void* library, const char* name, Function& function, std::string& why) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr && why.empty()) why = std::string("cuSPARSE has no function ") + name;
}

Loaded open_library() {
  Loaded loaded;
  const std::string name = "libcusparse.so." + std::to_string(CUSPARSE_VER_MAJOR);
  // The loader's own search first, then the toolkit this was built with.
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    library =
        dlopen((std::string(SPDNN_CUDA_LIBRARY_DIR "/") + name).c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    loaded.why = name +
                 " was not found; install cuSPARSE of the CUDA Toolkit, or add its folder "
                 "to LD_LIBRARY_PATH";
    return loaded;
  }
  CusparseApi& api = loaded.api;
  look_up(library, "cusparseCreate", api.create, loaded.why);
  look_up(library, "cusparseDestroy", api.destroy, loaded.why);
  look_up(library, "cusparseSetStream", api.set_stream, loaded.why);
  look_up(library, "cusparseGetErrorString", api.error_string, loaded.why);
  look_up(library, "cusparseCreateCsr", api.create_csr, loaded.why);
  look_up(library, "cusparseDestroySpMat", api.destroy_sparse, loaded.why);
  look_up(library, "cusparseCsrSetStridedBatch", api.set_csr_batch, loaded.why);
  look_up(library, "cusparseCreateDnMat", api.create_dense, loaded.why);
  look_up(library, "cusparseDestroyDnMat", api.destroy_dense, loaded.why);
  look_up(library, "cusparseDnMatSetStridedBatch", api.set_dense_batch, loaded.why);
  look_up(library, "cusparseSpMM_bufferSize", api.spmm_buffer_size, loaded.why);
  look_up(library, "cusparseSpMM", api.spmm, loaded.why);
  return loaded;  // the library stays open to the end of the process
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
