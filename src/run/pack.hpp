// Values to bytes and back, between processes of the same build.
#pragma once

#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "spdnn/error.hpp"

namespace spdnn {

/// Appends values; trivially copyable ones as they are in memory. As `Unpacker`, it can be called
/// with the fields of a struct, so that one function names them for both ways.
class Packer {
 public:
  template <class... T>
  void operator()(const T&... values) {
    (add(values), ...);
  }
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void add(const T& value) { append(&value, sizeof value); }
  void add(const std::string& text) {
    add(text.size());
    append(text.data(), text.size());
  }
  template <class T>
  void add(const std::vector<T>& values) {
    add(values.size());
    if constexpr (std::is_trivially_copyable_v<T>) {
      append(values.data(), values.size() * sizeof(T));
    } else {
      for (const T& value : values) add(value);
    }
  }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  void append(const void* data, std::size_t bytes) {
    if (bytes == 0) return;
    const std::size_t at = bytes_.size();
    bytes_.resize(at + bytes);
    std::memcpy(bytes_.data() + at, data, bytes);
  }
  std::vector<std::byte> bytes_;
};

/// Takes values in the order they were added. Throws `CommError` where there are none left.
class Unpacker {
 public:
  explicit Unpacker(const std::vector<std::byte>& bytes) : bytes_(bytes) {}
  template <class... T>
  void operator()(T&... values) {
    (take(values), ...);
  }
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void take(T& value) { copy(&value, sizeof value, 1); }
  void take(std::string& text) {
    std::size_t size = 0;
    take(size);
    check(size, 1);
    text.resize(size);
    copy(text.data(), size, 1);
  }
  template <class T>
  void take(std::vector<T>& values) {
    std::size_t size = 0;
    take(size);
    check(size, 1);
    values.resize(size);
    if constexpr (std::is_trivially_copyable_v<T>) {
      copy(values.data(), size, sizeof(T));
    } else {
      for (T& value : values) take(value);
    }
  }
  [[nodiscard]] bool exhausted() const { return at_ == bytes_.size(); }

 private:
  void check(std::size_t count, std::size_t each) const {
    if (count > (bytes_.size() - at_) / each) {
      throw CommError("a process sent less than it announced: use one build on all hosts");
    }
  }
  void copy(void* to, std::size_t count, std::size_t each) {
    check(count, each);
    if (count > 0) std::memcpy(to, bytes_.data() + at_, count * each);
    at_ += count * each;
  }
  const std::vector<std::byte>& bytes_;
  std::size_t at_ = 0;
};

}  // namespace spdnn
