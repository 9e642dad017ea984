// Writing safetensors files: the length of the header (8 bytes, little-endian), the header (JSON),
// the data of all tensors without a gap.
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "files.hpp"
#include "safetensors.hpp"
#include "tsv_line.hpp"

namespace spdnn {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are written as they are stored");

/// The data begin at a multiple of this many bytes.
constexpr std::size_t kDataAlignment = 64;

using Json = nlohmann::ordered_json;

struct TypeFacts {
  std::string_view name;
  std::size_t bytes;
};
/// By `ElementType`.
constexpr std::array<TypeFacts, 13> kTypes{{{"F16", 2},
                                            {"BF16", 2},
                                            {"F32", 4},
                                            {"F64", 8},
                                            {"I8", 1},
                                            {"U8", 1},
                                            {"I16", 2},
                                            {"U16", 2},
                                            {"I32", 4},
                                            {"U32", 4},
                                            {"I64", 8},
                                            {"U64", 8},
                                            {"BOOL", 1}}};

const TypeFacts& facts_of(ElementType type) { return kTypes.at(static_cast<std::size_t>(type)); }

/// Feeds a checksum with texts and numbers so that no two contents look alike.
class Digest {
 public:
  Digest() : state_(XXH3_createState()) {
    if (state_ == nullptr) throw std::bad_alloc();
    XXH3_64bits_reset(state_);
  }
  ~Digest() { XXH3_freeState(state_); }
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void number(std::int64_t value) { XXH3_64bits_update(state_, &value, sizeof value); }
  void bytes(std::span<const std::byte> data) {
    number(std::ssize(data));
    XXH3_64bits_update(state_, data.data(), data.size());
  }
  void text(std::string_view value) { bytes(std::as_bytes(std::span(value))); }
  [[nodiscard]] std::uint64_t value() const { return XXH3_64bits_digest(state_); }

 private:
  XXH3_state_t* state_;
};

void check_utf8(const std::filesystem::path& file, std::string_view what, std::string_view text) {
  try {
    static_cast<void>(Json(text).dump());
  } catch (const Json::type_error&) {
    throw InputError(file, fmt::format("{} {} can't be written: it is not UTF-8; use another", what,
                                       quote(text)));
  }
}

void check_tensor(const std::filesystem::path& file, const Tensor& tensor) {
  const auto fail = [&](const std::string& why) {
    throw InputError(file, fmt::format("tensor {} can't be written: {}", quote(tensor.name), why));
  };
  check_utf8(file, "tensor", tensor.name);
  if (tensor.name == kMetadataName) fail("the format keeps this name for texts; use another");
  std::uint64_t bytes = size_of(tensor.type);
  for (const std::int64_t size : tensor.shape) {
    if (size < 0) fail(fmt::format("its shape {} is negative", shape_text(tensor.shape)));
    if (size > 0 &&
        bytes > std::numeric_limits<std::int64_t>::max() / static_cast<std::uint64_t>(size)) {
      fail(fmt::format("its shape {} has more than 2^63 bytes", shape_text(tensor.shape)));
    }
    bytes *= static_cast<std::uint64_t>(size);
  }
  if (bytes != tensor.data.size()) {
    fail(fmt::format("its shape {} of {} needs {} bytes, but {} are given",
                     shape_text(tensor.shape), name_of(tensor.type), bytes, tensor.data.size()));
  }
}

/// The header, with its length before it and spaces behind it up to where the data begin.
std::string header_of(const std::vector<const Tensor*>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  Json header;
  header[std::string(kMetadataName)] = metadata;
  std::uint64_t offset = 0;
  for (const Tensor* tensor : tensors) {
    const std::uint64_t end = offset + tensor->data.size();
    header[tensor->name] = {{"dtype", name_of(tensor->type)},
                            {"shape", tensor->shape},
                            {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  std::uint64_t length = 0;
  const std::size_t before = sizeof length + text.size();
  text.append((kDataAlignment - before % kDataAlignment) % kDataAlignment, ' ');
  length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace

std::size_t size_of(ElementType type) noexcept {
  return kTypes[static_cast<std::size_t>(type)].bytes;
}

std::string_view name_of(ElementType type) { return facts_of(type).name; }

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string checksum_of(const std::vector<Tensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  Digest digest;
  for (const auto& [key, value] : metadata) {
    if (key == kChecksumKey) continue;
    digest.text(key);
    digest.text(value);
  }
  for (const Tensor& tensor : tensors) {
    digest.text(tensor.name);
    digest.text(name_of(tensor.type));
    digest.bytes(std::as_bytes(std::span(tensor.shape)));
    digest.bytes(tensor.data);
  }
  return fmt::format("xxh3:{:016x}", digest.value());
}

void write_safetensors(const std::filesystem::path& file, std::vector<Tensor> tensors,
                       std::map<std::string, std::string> metadata) {
  std::sort(tensors.begin(), tensors.end(),
            [](const Tensor& a, const Tensor& b) { return a.name < b.name; });
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    check_tensor(file, tensors[t]);
    if (t > 0 && tensors[t].name == tensors[t - 1].name) {
      throw InputError(
          file, fmt::format("tensor {} is given twice; names must differ", quote(tensors[t].name)));
    }
  }
  for (const auto& [key, value] : metadata) {
    check_utf8(file, "metadata", key);
    check_utf8(file, "metadata", value);
  }
  metadata[kFormatKey] = "1";
  metadata[kChecksumKey] = checksum_of(tensors, metadata);
  std::vector<const Tensor*> order;
  for (const Tensor& tensor : tensors) order.push_back(&tensor);
  // Larger elements first: then every tensor is aligned for its type, with no gap between them.
  std::stable_sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) {
    return size_of(a->type) > size_of(b->type);
  });
  const std::string header = header_of(order, metadata);
  if (header.size() - sizeof(std::uint64_t) > kMaxTensorHeader) {
    throw InputError(file,
                     fmt::format("its header would have {} bytes, but at most {} are allowed; "
                                 "write fewer tensors or shorter metadata",
                                 header.size(), kMaxTensorHeader));
  }
  OutputFile output(file);
  output.write(header);
  for (const Tensor* tensor : order) output.write(tensor->data);
  output.commit();
}

}  // namespace spdnn
