// Reading safetensors files: every field of the header is checked before a byte of data is
// believed.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "files.hpp"
#include "safetensors.hpp"
#include "tsv_line.hpp"

namespace spdnn {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensors are used as they lie in the file");

constexpr std::string_view kRemedy = "not a safetensors file, or damaged; write or fetch it again";

std::optional<ElementType> type_named(std::string_view name) {
  for (auto type = ElementType::f16;; type = static_cast<ElementType>(static_cast<int>(type) + 1)) {
    if (name_of(type) == name) return type;
    if (type == ElementType::boolean) return std::nullopt;
  }
}

/// A tensor as the header describes it.
struct Described {
  std::string name;
  std::optional<ElementType> type;
  bool has_shape = false;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> offsets;  ///< begin and end, from the start of the data
};

/// Takes the header apart as it is parsed, so that nothing is believed that has no place in it and
/// no name can stand twice.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::filesystem::path& file) : file_(file) {}

  std::vector<Described> tensors;
  std::map<std::string, std::string> metadata;

  bool start_object(std::size_t /*size*/) override {
    if (depth_ == 2 || list_ != nullptr) fail("holds an object where none belongs");
    ++depth_;
    fields_.clear();
    return true;
  }
  bool end_object() override {
    if (--depth_ == 1 && !in_metadata_) check_complete(tensors.back());
    return true;
  }
  bool key(string_t& name) override {
    if (depth_ == 1) {
      begin_member(name);
      return true;
    }
    field_ = name;
    if (std::find(fields_.begin(), fields_.end(), name) != fields_.end()) fail("stands twice");
    // Metadata have their own index; the few fields of a tensor are looked through.
    if (!in_metadata_) fields_.push_back(name);
    if (in_metadata_ && metadata.contains(name)) fail("stands twice");
    if (!in_metadata_ && name != "dtype" && name != "shape" && name != "data_offsets") {
      fail("is unknown; a tensor has dtype, shape and data_offsets");
    }
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata_) {
      metadata.emplace(field_, value);
      return true;
    }
    if (depth_ != 2 || field_ != "dtype") fail(fmt::format("holds the text {}", quote(value)));
    tensors.back().type = type_named(value);
    if (!tensors.back().type) {
      fail(
          fmt::format("is {}, which is unknown; it must be F16, BF16, F32, F64, I8, U8, I16, U16, "
                      "I32, U32, I64, U64 or BOOL",
                      quote(value)));
    }
    return true;
  }
  bool start_array(std::size_t /*size*/) override {
    if (depth_ != 2 || in_metadata_ || field_ == "dtype" || list_ != nullptr) {
      fail("holds a list where none belongs");
    }
    Described& tensor = tensors.back();
    tensor.has_shape = tensor.has_shape || field_ == "shape";
    list_ = field_ == "shape" ? &tensor.shape : &tensor.offsets;
    return true;
  }
  bool end_array() override {
    if (field_ == "data_offsets" && list_->size() != 2) {
      fail(fmt::format("has {} numbers; it must have 2, begin and end", list_->size()));
    }
    list_ = nullptr;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (list_ == nullptr) fail(fmt::format("holds the number {}", value));
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      fail(fmt::format("holds {}, which is above 2^63 − 1", value));
    }
    list_->push_back(static_cast<std::int64_t>(value));
    return true;
  }
  bool number_integer(number_integer_t value) override {
    fail(fmt::format("holds {}, but must not be negative", value));
  }
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    fail(fmt::format("holds {}, but must be whole numbers", quote(text)));
  }
  bool null() override { fail("holds null"); }
  bool boolean(bool value) override { fail(fmt::format("holds {}", value)); }
  bool binary(binary_t& /*value*/) override { fail("holds binary data"); }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    throw InputError(file_, fmt::format("its header is not JSON, from byte {} of the file on; {}",
                                        position + sizeof(std::uint64_t), kRemedy));
  }

 private:
  void begin_member(const std::string& name) {
    field_.clear();
    in_metadata_ = name == kMetadataName;
    member_ = name;
    if (!names_.emplace(name, true).second) fail("stands twice");
    if (!in_metadata_) tensors.push_back({name, {}, false, {}, {}});
  }
  void check_complete(const Described& tensor) {
    field_.clear();
    if (!tensor.type) fail("has no dtype");
    if (!tensor.has_shape) fail("has no shape");
    if (tensor.offsets.empty()) fail("has no data_offsets");
  }
  [[noreturn]] void fail(std::string_view what) const {
    std::string place = "its header";
    if (!member_.empty()) {
      place += in_metadata_ ? ": __metadata__" : fmt::format(": tensor {}", quote(member_));
    }
    if (!field_.empty()) place += fmt::format(": {}", quote(field_));
    throw InputError(file_, fmt::format("{} {}; {}", place, what, kRemedy));
  }

  const std::filesystem::path& file_;
  std::map<std::string, bool> names_;
  std::vector<std::string> fields_;
  std::string member_, field_;
  std::vector<std::int64_t>* list_ = nullptr;
  int depth_ = 0;
  bool in_metadata_ = false;
};

/// Whether `shape` of elements of `bytes` each takes `total` bytes.
bool takes(const std::vector<std::int64_t>& shape, std::size_t bytes, std::int64_t total) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return total == 0;
  auto taken = static_cast<std::int64_t>(bytes);
  for (const std::int64_t size : shape) {
    if (size > total / taken) return false;
    taken *= size;
  }
  return taken == total;
}

/// Checks that the tensors fill `bytes` bytes of data, one after the other.
void check_places(const std::filesystem::path& file, std::vector<Described>& tensors,
                  std::int64_t bytes) {
  std::sort(tensors.begin(), tensors.end(),
            [](const Described& a, const Described& b) { return a.offsets < b.offsets; });
  std::int64_t position = 0;
  for (const Described& tensor : tensors) {
    const std::int64_t begin = tensor.offsets[0];
    const std::int64_t end = tensor.offsets[1];
    const auto fail = [&](const std::string& why) {
      throw InputError(file, fmt::format("tensor {}: data_offsets [{}, {}] {}; {}",
                                         quote(tensor.name), begin, end, why, kRemedy));
    };
    if (begin > end) fail("are reversed");
    if (end > bytes) fail(fmt::format("go beyond the {} bytes of data that are there", bytes));
    if (begin != position) {
      fail(fmt::format("{} the tensor before, which ends at {}",
                       begin < position ? "overlap" : "leave a gap to", position));
    }
    if (!takes(tensor.shape, size_of(*tensor.type), end - begin)) {
      fail(fmt::format("are {} bytes, which the shape {} of {} does not take", end - begin,
                       shape_text(tensor.shape), name_of(*tensor.type)));
    }
    position = end;
  }
  if (position != bytes) {
    throw InputError(file, fmt::format("its tensors take {} bytes, but {} bytes of data are there; "
                                       "{}",
                                       position, bytes, kRemedy));
  }
}

/// What keeps the data of a file's tensors alive: the mapping, and copies of those that are not
/// aligned in it.
struct Owner {
  explicit Owner(const InputFile& file) : mapping(file) {}
  MappedFile mapping;
  std::vector<std::unique_ptr<std::byte[]>> copies;

  std::span<const std::byte> aligned(std::span<const std::byte> data, std::size_t alignment) {
    if (data.empty() || reinterpret_cast<std::uintptr_t>(data.data()) % alignment == 0) return data;
    copies.push_back(std::make_unique<std::byte[]>(data.size()));
    std::memcpy(copies.back().get(), data.data(), data.size());
    return {copies.back().get(), data.size()};
  }
};

/// The header's bytes. The rest of the file is data.
std::span<const std::byte> header_in(const std::filesystem::path& file,
                                     std::span<const std::byte> bytes) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof length) {
    throw InputError(file, fmt::format("has {} bytes, but a header's length alone takes {}; {}",
                                       bytes.size(), sizeof length, kRemedy));
  }
  std::memcpy(&length, bytes.data(), sizeof length);
  const std::uint64_t most =
      std::min<std::uint64_t>(kMaxTensorHeader, bytes.size() - sizeof length);
  if (length < 2 || length > most) {
    throw InputError(
        file, fmt::format("says that its header has {} bytes; it must have 2 to {}; {}", length,
                          most, kRemedy));
  }
  return bytes.subspan(sizeof length, static_cast<std::size_t>(length));
}

/// Whether the file has a checksum; throws where it is wrong, or missing though it should be there.
bool check_sum(const std::filesystem::path& file, const std::vector<Tensor>& tensors,
               const std::map<std::string, std::string>& metadata) {
  const auto found = metadata.find(kChecksumKey);
  if (found == metadata.end()) {
    const auto own = metadata.lower_bound(std::string(kOwnMetadata));
    if (own == metadata.end() || !own->first.starts_with(kOwnMetadata)) return false;
    throw InputError(file, fmt::format("has metadata {} but no {}: it is damaged; use another copy",
                                       quote(own->first), kChecksumKey));
  }
  const std::string sum = checksum_of(tensors, metadata);
  if (sum == found->second) return true;
  throw InputError(
      file, fmt::format("its contents have the checksum {}, but {} says {}: it is damaged, or was "
                        "changed by a program that kept the metadata; use another copy, or remove "
                        "the metadata that begin with {}",
                        sum, kChecksumKey, quote(found->second), kOwnMetadata));
}

}  // namespace

TensorFile read_safetensors(const std::filesystem::path& file) {
  const InputFile input(file);
  const auto owner = std::make_shared<Owner>(input);
  const auto bytes = owner->mapping.bytes();
  const auto header = header_in(file, bytes);
  const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
  HeaderReader reader(file);
  if (text.front() != '{') {
    throw InputError(file, fmt::format("its header does not begin with {{; {}", kRemedy));
  }
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  const auto data = bytes.subspan(sizeof(std::uint64_t) + header.size());
  check_places(file, reader.tensors, std::ssize(data));
  TensorFile result;
  result.path_ = file;
  result.metadata_ = std::move(reader.metadata);
  for (Described& tensor : reader.tensors) {
    const auto begin = static_cast<std::size_t>(tensor.offsets[0]);
    const auto end = static_cast<std::size_t>(tensor.offsets[1]);
    result.tensors_.push_back(
        {std::move(tensor.name), *tensor.type, std::move(tensor.shape),
         owner->aligned(data.subspan(begin, end - begin), size_of(*tensor.type))});
  }
  std::sort(result.tensors_.begin(), result.tensors_.end(),
            [](const Tensor& a, const Tensor& b) { return a.name < b.name; });
  result.checked_ = check_sum(file, result.tensors_, result.metadata_);
  result.owner_ = owner;
  return result;
}

const Tensor* TensorFile::find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const Tensor& tensor, std::string_view key) { return tensor.name < key; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

const Tensor& TensorFile::require(std::string_view name, ElementType type,
                                  std::span<const std::int64_t> shape) const {
  const Tensor* const tensor = find(name);
  if (tensor == nullptr) {
    throw InputError(path_, fmt::format("has no tensor {}, but it is needed", quote(name)));
  }
  const auto fits = [](std::int64_t is, std::int64_t wanted) { return wanted < 0 || is == wanted; };
  if (tensor->type != type ||
      !std::equal(tensor->shape.begin(), tensor->shape.end(), shape.begin(), shape.end(), fits)) {
    throw InputError(
        path_, fmt::format("tensor {} is {} {}, but {} {} is needed (−1: any size)", quote(name),
                           name_of(tensor->type), shape_text(tensor->shape), name_of(type),
                           shape_text(shape)));
  }
  return *tensor;
}

}  // namespace spdnn
