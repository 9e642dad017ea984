// A shared library opened at run time, so that the program starts on machines without it.
#pragma once

#include <dlfcn.h>

#include <string>
#include <utility>

namespace spdnn {

class CudaLibrary {
 public:
  /// Looks for `name` where the loader does, then in the toolkit this was built with.
  explicit CudaLibrary(const std::string& name) : handle_(dlopen(name.c_str(), RTLD_NOW)) {
#if defined(SPDNN_CUDA_LIBRARY_DIR)
    if (handle_ == nullptr) {
      handle_ = dlopen((std::string(SPDNN_CUDA_LIBRARY_DIR "/") + name).c_str(), RTLD_NOW);
    }
#endif
  }
  ~CudaLibrary() {
    if (handle_ != nullptr) dlclose(handle_);
  }
  CudaLibrary(const CudaLibrary&) = delete;
  CudaLibrary& operator=(const CudaLibrary&) = delete;

  [[nodiscard]] bool found() const { return handle_ != nullptr; }

  /// The function called `name`, or null.
  template <class Function>
  [[nodiscard]] Function function(const char* name) const {
    return handle_ == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(handle_, name));
  }

 private:
  void* handle_ = nullptr;
};

}  // namespace spdnn
