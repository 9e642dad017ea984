// Opening libraries at run time.
#include "cuda/library.hpp"

#include <dlfcn.h>

#include <utility>

namespace spdnn::cuda {

Library::Library(std::string name, const std::string& file)
    : name_(std::move(name)), handle_(dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ == nullptr) {
    const std::string path = SPDNN_CUDA_LIBRARY_DIR "/" + file;
    handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (handle_ == nullptr) {
    why_ = file + " was not found; install " + name_ +
           " of the CUDA Toolkit, or add its folder to LD_LIBRARY_PATH";
  }
}

void* Library::address_of(const char* symbol) {
  if (handle_ == nullptr) return nullptr;
  void* const address = dlsym(handle_, symbol);
  if (address == nullptr && why_.empty()) why_ = name_ + " has no function " + symbol;
  return address;
}

}  // namespace spdnn::cuda
