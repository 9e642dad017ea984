// Reading ZIP archives: from the record at the end to the table of contents, from there to a
// member.
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "gz_file.hpp"
#include "tsv_line.hpp"
#include "zip.hpp"

namespace spdnn {
namespace {

constexpr std::uint32_t kMemberSignature = 0x04034b50;
constexpr std::uint32_t kTableSignature = 0x02014b50;
constexpr std::uint32_t kEndSignature = 0x06054b50;
constexpr std::uint32_t kEnd64Signature = 0x06064b50;
constexpr std::uint32_t kLocatorSignature = 0x07064b50;
constexpr std::size_t kMemberBytes = 30, kTableBytes = 46, kEndBytes = 22, kEnd64Bytes = 56,
                      kLocatorBytes = 20;
/// Bytes of an archive's comment, which is behind the record at the end.
constexpr std::size_t kMaxComment = 65535;
constexpr std::uint16_t kSizes64Extra = 1;
constexpr std::uint16_t kEncrypted = 1;
constexpr std::uint16_t kStored = 0, kDeflated = 8;
constexpr std::uint32_t kIn64 = 0xFFFFFFFF;

/// A little-endian number at `at`, which must lie in `bytes`.
template <class T>
T number(std::span<const std::byte> bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.subspan(at, sizeof value).data(), sizeof value);
  return value;
}

/// Replaces those of `fields` that are in the extra field of sizes with 64 bits; false where it has
/// too few.
bool read_sizes64(std::span<const std::byte> extra, std::initializer_list<std::uint64_t*> fields) {
  while (extra.size() >= 4) {
    const auto id = number<std::uint16_t>(extra, 0);
    const std::size_t size = number<std::uint16_t>(extra, 2);
    if (size > extra.size() - 4) return false;
    auto content = extra.subspan(4, size);
    extra = extra.subspan(4 + size);
    if (id != kSizes64Extra) continue;
    for (std::uint64_t* field : fields) {
      if (*field != kIn64) continue;
      if (content.size() < 8) return false;
      *field = number<std::uint64_t>(content, 0);
      content = content.subspan(8);
    }
    return true;
  }
  return std::none_of(fields.begin(), fields.end(),
                      [](const std::uint64_t* field) { return *field == kIn64; });
}

/// Inflates all of `from` into all of `to`; false where they do not fit together.
bool inflate_all(std::span<const std::byte> from, std::span<std::byte> to) {
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  constexpr std::size_t kMost = std::numeric_limits<uInt>::max();
  int code = Z_OK;
  std::size_t in = 0, out = 0;
  Bytef nothing = 0;  // an empty span may have no address, which zlib does not take
  do {
    const auto given = std::min(from.size() - in, kMost);
    const auto room = std::min(to.size() - out, kMost);
    stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(from.data() + in));
    stream.avail_in = static_cast<uInt>(given);
    stream.next_out = to.empty() ? &nothing : reinterpret_cast<Bytef*>(to.data() + out);
    stream.avail_out = static_cast<uInt>(room);
    code = inflate(&stream, Z_NO_FLUSH);
    in += given - stream.avail_in;
    out += room - stream.avail_out;
  } while (code == Z_OK);
  inflateEnd(&stream);
  return code == Z_STREAM_END && in == from.size() && out == to.size();
}

}  // namespace

void ZipFile::fail(std::string_view what) const {
  throw InputError(path_, fmt::format("{}; not a ZIP archive (.npz), or damaged: write or "
                                      "fetch it again",
                                      what));
}

std::span<const std::byte> ZipFile::bytes_at(std::uint64_t at, std::uint64_t size) const {
  const auto all = bytes();
  if (at > all.size() || size > all.size() - at) {
    fail(fmt::format("needs {} bytes from byte {} on, but has {}", size, at, all.size()));
  }
  return all.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(size));
}

std::span<const std::byte> ZipFile::table(std::uint64_t& members) const {
  const auto all = bytes();
  if (all.size() < kEndBytes) fail(fmt::format("has {} bytes", all.size()));
  std::size_t end = all.size() - kEndBytes;
  const std::size_t first = end > kMaxComment ? end - kMaxComment : 0;
  const auto found = [&] {
    return number<std::uint32_t>(all, end) == kEndSignature &&
           number<std::uint16_t>(all, end + 20) == all.size() - end - kEndBytes;
  };
  while (!found()) {
    if (end == first) fail("has no record at its end; is it cut short?");
    --end;
  }
  members = number<std::uint16_t>(all, end + 10);
  std::uint64_t size = number<std::uint32_t>(all, end + 12);
  std::uint64_t at = number<std::uint32_t>(all, end + 16);
  if (members == 0xFFFF || size == kIn64 || at == kIn64) {
    if (end < kLocatorBytes ||
        number<std::uint32_t>(all, end - kLocatorBytes) != kLocatorSignature) {
      fail("has no record of its 64-bit sizes");
    }
    const auto record = bytes_at(number<std::uint64_t>(all, end - kLocatorBytes + 8), kEnd64Bytes);
    if (number<std::uint32_t>(record, 0) != kEnd64Signature) {
      fail("has no record of its 64-bit sizes");
    }
    members = number<std::uint64_t>(record, 32);
    size = number<std::uint64_t>(record, 40);
    at = number<std::uint64_t>(record, 48);
  }
  return bytes_at(at, size);
}

ZipFile::ZipFile(const std::filesystem::path& path)
    : path_(path), content_(InputFile(path).read_all()) {
  std::uint64_t count = 0;
  auto rest = table(count);
  if (count > rest.size() / kTableBytes) {
    fail(fmt::format("promises {} members in a table of {} bytes", count, rest.size()));
  }
  for (std::uint64_t m = 0; m < count; ++m) {
    if (rest.size() < kTableBytes || number<std::uint32_t>(rest, 0) != kTableSignature) {
      fail(fmt::format("has no entry for member {} in its table", m + 1));
    }
    Member member;
    member.flags = number<std::uint16_t>(rest, 8);
    member.method = number<std::uint16_t>(rest, 10);
    member.crc = number<std::uint32_t>(rest, 16);
    member.packed = number<std::uint32_t>(rest, 20);
    member.unpacked = number<std::uint32_t>(rest, 24);
    const std::size_t name = number<std::uint16_t>(rest, 28);
    const std::size_t extra = number<std::uint16_t>(rest, 30);
    const std::size_t comment = number<std::uint16_t>(rest, 32);
    member.header_at = number<std::uint32_t>(rest, 42);
    if (kTableBytes + name + extra + comment > rest.size()) {
      fail(fmt::format("has a table that ends within member {}", m + 1));
    }
    member.name.assign(reinterpret_cast<const char*>(rest.data() + kTableBytes), name);
    if (!read_sizes64(rest.subspan(kTableBytes + name, extra),
                      {&member.unpacked, &member.packed, &member.header_at})) {
      fail(fmt::format("has no 64-bit sizes for member {}", quote(member.name)));
    }
    rest = rest.subspan(kTableBytes + name + extra + comment);
    for (const Member& other : members_) {
      if (other.name == member.name) fail(fmt::format("has {} twice", quote(member.name)));
    }
    members_.push_back(std::move(member));
    if (members_.size() > 1000) fail("has more than 1000 members");
  }
}

std::vector<std::string> ZipFile::names() const {
  std::vector<std::string> names;
  for (const Member& member : members_) names.push_back(member.name);
  return names;
}

std::span<const std::byte> ZipFile::packed_bytes(const Member& member) const {
  const auto header = bytes_at(member.header_at, kMemberBytes);
  if (number<std::uint32_t>(header, 0) != kMemberSignature) {
    fail(fmt::format("has no member where its table says that {} begins", quote(member.name)));
  }
  const std::uint64_t before =
      kMemberBytes + number<std::uint16_t>(header, 26) + number<std::uint16_t>(header, 28);
  return bytes_at(member.header_at + before, member.packed);
}

std::vector<std::byte> ZipFile::read(std::string_view name) const {
  const auto found = std::find_if(members_.begin(), members_.end(),
                                  [&](const Member& member) { return member.name == name; });
  if (found == members_.end()) {
    throw InputError(path_, fmt::format("has no member {}; it has: {}; write the matrix with "
                                        "scipy.sparse.save_npz",
                                        quote(name), fmt::join(names(), ", ")));
  }
  if ((found->flags & kEncrypted) != 0) fail(fmt::format("member {} is encrypted", quote(name)));
  if (found->method != kStored && found->method != kDeflated) {
    fail(
        fmt::format("member {} is packed by method {}, but only 0 (stored) and 8 (deflated) are "
                    "read",
                    quote(name), found->method));
  }
  const auto packed = packed_bytes(*found);
  // Before memory is taken: so much can't come out of so little.
  const std::uint64_t most =
      found->method == kStored ? packed.size() : packed.size() * kMaxGzipRatio + 64;
  if (found->unpacked > most || (found->method == kStored && found->unpacked < most)) {
    fail(fmt::format("member {} promises {} bytes, but has {} packed", quote(name), found->unpacked,
                     packed.size()));
  }
  std::vector<std::byte> content(static_cast<std::size_t>(found->unpacked));
  if (found->method == kStored) {
    std::copy(packed.begin(), packed.end(), content.begin());
  } else if (!inflate_all(packed, content)) {
    fail(fmt::format("member {} can't be inflated to its {} bytes", quote(name), content.size()));
  }
  const auto crc = crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size());
  if (crc != found->crc) fail(fmt::format("the CRC-32 of member {} does not match", quote(name)));
  return content;
}

}  // namespace spdnn
