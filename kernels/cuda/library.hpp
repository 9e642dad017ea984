// NVIDIA's libraries, opened when first needed: linked normally, the program would not start on a
// machine that lacks one. Here only the kernels that use it miss it.
#pragma once

#include <string>

namespace spdnn::cuda {

/// A shared library that stays open to the end of the process.
class Library {
 public:
  /// Looks for `file` where the loader does, then in the toolkit this was built with. `name` is for
  /// people.
  Library(std::string name, const std::string& file);
  /// Sets `function` to the one called `symbol`.
  template <class Function>
  void look_up(const char* symbol, Function& function) {
    function = reinterpret_cast<Function>(address_of(symbol));
  }
  /// Why it can't be used: it was not found, or lacks a function; empty when it can.
  [[nodiscard]] const std::string& why() const noexcept { return why_; }

 private:
  [[nodiscard]] void* address_of(const char* symbol);
  std::string name_, why_;
  void* handle_ = nullptr;
};

}  // namespace spdnn::cuda
