// Writing safetensors files: the length of the header (8 bytes, little-endian), the header (JSON),
// the data of all tensors without a gap.
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "files.hpp"
#include "safetensors.hpp"
#include "tsv_line.hpp"

namespace spdnn {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are written as they are stored");

/// The data begin at a multiple of this many bytes.
constexpr std::size_t kDataAlignment = 64;
/// Bytes that are read back at a time.
constexpr std::int64_t kReadBack = std::int64_t{1} << 20U;

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

  void texts(const std::map<std::string, std::string>& metadata) {
    for (const auto& [key, value] : metadata) {
      if (key == kChecksumKey) continue;
      text(key);
      text(value);
    }
  }
  /// All of a tensor but its data, of so many bytes, which come next.
  void begin(const Tensor& tensor, std::int64_t bytes) {
    text(tensor.name);
    text(name_of(tensor.type));
    whole(std::as_bytes(std::span(tensor.shape)));
    number(bytes);
  }
  void more(std::span<const std::byte> data) {
    XXH3_64bits_update(state_, data.data(), data.size());
  }
  [[nodiscard]] std::string value() const {
    return fmt::format("xxh3:{:016x}", XXH3_64bits_digest(state_));
  }

 private:
  void number(std::int64_t value) { XXH3_64bits_update(state_, &value, sizeof value); }
  void whole(std::span<const std::byte> data) {
    number(std::ssize(data));
    more(data);
  }
  void text(std::string_view value) { whole(std::as_bytes(std::span(value))); }

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

/// How many bytes a tensor has.
std::uint64_t check_tensor(const std::filesystem::path& file, const Tensor& tensor) {
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
  return bytes;
}

/// Where a tensor's data lie behind the header.
struct Place {
  std::uint64_t begin = 0, end = 0;
};

/// The header, with its length before it and spaces behind it up to where the data begin.
std::string header_of(const std::vector<Tensor>& tensors, const std::vector<Place>& places,
                      const std::vector<std::size_t>& order,
                      const std::map<std::string, std::string>& metadata) {
  Json header;
  header[std::string(kMetadataName)] = metadata;
  for (const std::size_t t : order) {
    header[tensors[t].name] = {{"dtype", name_of(tensors[t].type)},
                               {"shape", tensors[t].shape},
                               {"data_offsets", {places[t].begin, places[t].end}}};
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
  digest.texts(metadata);
  for (const Tensor& tensor : tensors) {
    digest.begin(tensor, std::ssize(tensor.data));
    digest.more(tensor.data);
  }
  return digest.value();
}

struct TensorWriter::File {
  File(std::filesystem::path file, std::vector<Tensor> tensors_to_come,
       std::map<std::string, std::string> texts)
      : path(std::move(file)),
        tensors(std::move(tensors_to_come)),
        metadata(std::move(texts)),
        written(tensors.size()) {
    std::sort(tensors.begin(), tensors.end(),
              [](const Tensor& a, const Tensor& b) { return a.name < b.name; });
    place();
    for (const auto& [key, value] : metadata) {
      check_utf8(path, "metadata", key);
      check_utf8(path, "metadata", value);
    }
    metadata[kFormatKey] = "1";
    metadata[kChecksumKey] = digest.value();  // as long as the one that is known in the end
    digest.texts(metadata);
    const std::string header = header_of(tensors, places, order, metadata);
    header_bytes = std::ssize(header);
    if (header.size() - sizeof(std::uint64_t) > kMaxTensorHeader) {
      throw InputError(path,
                       fmt::format("its header would have {} bytes, but at most {} are allowed; "
                                   "write fewer tensors or shorter metadata",
                                   header.size(), kMaxTensorHeader));
    }
    output.emplace(path);
    output->write(header);
  }

  void place() {
    order.resize(tensors.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    // Larger elements first: then every tensor is aligned for its type, with no gap between them.
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return size_of(tensors[a].type) > size_of(tensors[b].type);
    });
    places.resize(tensors.size());
    std::uint64_t end = 0;
    for (const std::size_t t : order) {
      places[t] = {end, end + check_tensor(path, tensors[t])};
      end = places[t].end;
      if (t > 0 && tensors[t].name == tensors[t - 1].name) {
        throw InputError(path, fmt::format("tensor {} is given twice; names must differ",
                                           quote(tensors[t].name)));
      }
    }
  }

  [[nodiscard]] std::int64_t bytes(std::size_t tensor) const {
    return static_cast<std::int64_t>(places[tensor].end - places[tensor].begin);
  }
  [[nodiscard]] std::int64_t offset(std::size_t tensor) const {
    return header_bytes + static_cast<std::int64_t>(places[tensor].begin);
  }

  void write(std::string_view name, std::span<const std::byte> data) {
    const auto found =
        std::lower_bound(tensors.begin(), tensors.end(), name,
                         [](const Tensor& a, std::string_view key) { return a.name < key; });
    const auto fail = [&](const std::string& why) {
      throw InputError(path, fmt::format("tensor {} can't be written: {}", quote(name), why));
    };
    if (found == tensors.end() || found->name != name) fail("the file has none of that name");
    const auto t = static_cast<std::size_t>(found - tensors.begin());
    if (std::ssize(data) != bytes(t)) {
      fail(fmt::format("its shape {} of {} needs {} bytes, but {} are given",
                       shape_text(found->shape), name_of(found->type), bytes(t), data.size()));
    }
    if (written[t]) fail("it was written before");
    output->write_at(offset(t), data);
    written[t] = true;
    if (t != digested) return;
    digest.begin(*found, std::ssize(data));
    digest.more(data);
    ++digested;
  }

  /// The checksum takes tensors by their names; those that came in another order are read back.
  void digest_rest() {
    std::vector<std::byte> part;
    for (; digested < tensors.size(); ++digested) {
      if (!written[digested]) {
        throw InputError(path, fmt::format("tensor {} was never written; write all",
                                           quote(tensors[digested].name)));
      }
      digest.begin(tensors[digested], bytes(digested));
      for (std::int64_t done = 0; done < bytes(digested); done += std::ssize(part)) {
        part.resize(static_cast<std::size_t>(std::min(kReadBack, bytes(digested) - done)));
        output->read_at(offset(digested) + done, part);
        digest.more(part);
      }
    }
  }

  std::filesystem::path path;
  std::vector<Tensor> tensors;  ///< by name
  std::vector<Place> places;
  std::vector<std::size_t> order;  ///< of the tensors in the file
  std::map<std::string, std::string> metadata;
  std::vector<bool> written;
  Digest digest;
  std::size_t digested = 0;  ///< so many tensors
  std::int64_t header_bytes = 0;
  std::optional<OutputFile> output;
};

TensorWriter::TensorWriter(std::filesystem::path file, std::vector<Tensor> tensors,
                           std::map<std::string, std::string> metadata)
    : file_(std::make_unique<File>(std::move(file), std::move(tensors), std::move(metadata))) {}

TensorWriter::~TensorWriter() = default;

void TensorWriter::write(std::string_view name, std::span<const std::byte> data) {
  file_->write(name, data);
}

void TensorWriter::commit() {
  file_->digest_rest();
  file_->metadata[kChecksumKey] = file_->digest.value();
  const std::string header =
      header_of(file_->tensors, file_->places, file_->order, file_->metadata);
  file_->output->write_at(0, std::as_bytes(std::span(header)));
  file_->output->commit();
}

void write_safetensors(const std::filesystem::path& file, std::vector<Tensor> tensors,
                       std::map<std::string, std::string> metadata) {
  std::sort(tensors.begin(), tensors.end(),
            [](const Tensor& a, const Tensor& b) { return a.name < b.name; });
  TensorWriter writer(file, tensors, std::move(metadata));
  for (const Tensor& tensor : tensors) writer.write(tensor.name, tensor.data);
  writer.commit();
}

}  // namespace spdnn
