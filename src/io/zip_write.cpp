// Writing ZIP archives: members as they come, the table of contents behind them.
#include <zlib.h>

#include <limits>

#include "zip.hpp"

namespace spdnn {
namespace {

/// Sparse patterns shrink little more at higher levels, which take several times as long.
constexpr int kLevel = 1;
constexpr std::size_t kBuffer = std::size_t{1} << 20;
constexpr std::uint16_t kVersion64 = 45;
constexpr std::uint32_t kIn64 = 0xFFFFFFFF;
/// 1 January 1980, the earliest date there is: equal contents give equal files.
constexpr std::uint16_t kTime = 0, kDate = 0x0021;

template <class... Ts>
void append(std::string& text, const Ts&... values) {
  (text.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
}

/// A deflating stream.
class Deflater {
 public:
  Deflater() {
    if (deflateInit2(&stream_, kLevel, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
      throw std::bad_alloc();
    }
  }
  ~Deflater() { deflateEnd(&stream_); }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  /// Deflates `bytes`, the last when `finish`, and gives what comes out to `take`.
  template <class Take>
  void add(std::span<const std::byte> bytes, bool finish, const Take& take) {
    stream_.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
    do {
      stream_.next_out = reinterpret_cast<Bytef*>(buffer_.data());
      stream_.avail_out = static_cast<uInt>(buffer_.size());
      deflate(&stream_, finish ? Z_FINISH : Z_NO_FLUSH);
      take(std::string_view(buffer_.data(), buffer_.size() - stream_.avail_out));
    } while (stream_.avail_out == 0);
  }

 private:
  z_stream stream_{};
  std::string buffer_ = std::string(kBuffer, '\0');
};

}  // namespace

void ZipWriter::write(std::string_view bytes) {
  output_.write(bytes);
  position_ += bytes.size();
}

void ZipWriter::add(const std::string& name, const std::vector<std::span<const std::byte>>& parts) {
  const std::uint64_t header_at = position_;
  std::uint64_t unpacked = 0, packed = 0;
  auto crc = crc32_z(0, nullptr, 0);
  const auto header = [&] {
    std::string text = "PK\3\4";
    append(text, kVersion64, std::uint16_t{0}, std::uint16_t{Z_DEFLATED}, kTime, kDate,
           static_cast<std::uint32_t>(crc), kIn64, kIn64, static_cast<std::uint16_t>(name.size()),
           std::uint16_t{20});
    text += name;
    append(text, std::uint16_t{1}, std::uint16_t{16}, unpacked, packed);
    return text;
  };
  write(header());
  Deflater deflater;
  const auto take = [&](std::string_view bytes) {
    packed += bytes.size();
    write(bytes);
  };
  for (std::span<const std::byte> part : parts) {
    unpacked += part.size();
    crc = crc32_z(crc, reinterpret_cast<const Bytef*>(part.data()), part.size());
    while (!part.empty()) {
      const auto piece = part.first(std::min(part.size(), kBuffer));
      part = part.subspan(piece.size());
      deflater.add(piece, false, take);
    }
  }
  deflater.add({}, true, take);
  const std::string known = header();
  output_.write_at(static_cast<std::int64_t>(header_at), std::as_bytes(std::span(known)));

  table_ += "PK\1\2";
  append(table_, kVersion64, kVersion64, std::uint16_t{0}, std::uint16_t{Z_DEFLATED}, kTime, kDate,
         static_cast<std::uint32_t>(crc), kIn64, kIn64, static_cast<std::uint16_t>(name.size()),
         std::uint16_t{28}, std::uint16_t{0}, std::uint16_t{0}, std::uint16_t{0}, std::uint32_t{0},
         kIn64);
  table_ += name;
  append(table_, std::uint16_t{1}, std::uint16_t{24}, unpacked, packed, header_at);
  ++members_;
}

void ZipWriter::commit() {
  const std::uint64_t table_at = position_;
  write(table_);
  const std::uint64_t end_at = position_;
  std::string end = "PK\6\6";
  append(end, std::uint64_t{44}, kVersion64, kVersion64, std::uint32_t{0}, std::uint32_t{0},
         members_, members_, std::uint64_t{table_.size()}, table_at);
  end += "PK\6\7";
  append(end, std::uint32_t{0}, end_at, std::uint32_t{1});
  end += "PK\5\6";
  append(end, std::uint16_t{0}, std::uint16_t{0}, static_cast<std::uint16_t>(members_),
         static_cast<std::uint16_t>(members_), kIn64, kIn64, std::uint16_t{0});
  write(end);
  output_.commit();
}

}  // namespace spdnn
