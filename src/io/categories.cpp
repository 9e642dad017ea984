// The truth of a Graph Challenge run: ids of images, one a line.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <span>
#include <string_view>
#include <utility>

#include "files.hpp"
#include "spdnn/io.hpp"
#include "tsv_line.hpp"

namespace spdnn {
namespace {

/// An id and the line it stands in.
using NumberedId = std::pair<std::int64_t, std::int64_t>;

/// The first id on a line after the one it already stands in.
void reject_repetition(const std::filesystem::path& file, const std::vector<NumberedId>& sorted) {
  const NumberedId* found = nullptr;
  for (std::size_t k = 1; k < sorted.size(); ++k) {
    if (sorted[k].first != sorted[k - 1].first) continue;
    if (found == nullptr || sorted[k].second < found->second) found = &sorted[k];
  }
  if (found != nullptr) {
    throw InputError(file, found->second,
                     fmt::format("image {} stands in line {} already; name each image once",
                                 found->first, found[-1].second));
  }
}

NumberedId read_category(const std::filesystem::path& file, std::int64_t number,
                         std::string_view line, std::int64_t max_images) {
  std::optional<std::string> error;
  std::string_view rest = line;
  if (rest.ends_with('\r')) rest.remove_suffix(1);
  const std::string_view field = take_field(rest);
  const auto id = read_id(field, {"image", max_images}, "is it the truth of these images?", error);
  if (id && !is_blank(rest)) {
    error = fmt::format("{} follows the image id; one id a line, without anything behind it",
                        quote(take_field(rest)));
  }
  if (error) throw InputError(file, number, *error);
  return {*id, number};
}

/// The whole file as text. More than a few dozen bytes an image can't be a list of their ids.
std::string read_text(const std::filesystem::path& file, std::int64_t max_images) {
  constexpr std::int64_t kBytesPerImage = 32;
  const InputFile input(file, "put the truth file there");
  const std::int64_t most = 65536 + kBytesPerImage * std::min(max_images, std::int64_t{1} << 32);
  if (input.bytes() == 0) {
    throw InputError(file, "is empty; where no image is in a category, the file is one blank line");
  }
  if (input.bytes() > most) {
    throw InputError(file, fmt::format("has {} bytes, but ids of {} images take at most {}; it is "
                                       "not a truth file",
                                       input.bytes(), max_images, most));
  }
  return input.read_all();
}

}  // namespace

std::vector<std::int64_t> read_categories(const std::filesystem::path& file,
                                          std::int64_t max_images) {
  const std::string text = read_text(file, max_images);
  std::vector<NumberedId> found;
  std::optional<std::int64_t> blank;
  std::string_view rest = text;
  for (std::int64_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (is_blank(line)) {
      if (!blank) blank = number;
    } else if (blank) {
      throw InputError(file, *blank, "blank line between ids; remove it");
    } else {
      found.push_back(read_category(file, number, line, max_images));
    }
  }
  std::sort(found.begin(), found.end());
  reject_repetition(file, found);
  std::vector<std::int64_t> ids(found.size());
  std::transform(found.begin(), found.end(), ids.begin(),
                 [](const NumberedId& id) { return id.first - 1; });
  return ids;
}

void write_categories(const std::filesystem::path& file, const std::vector<std::int64_t>& ids) {
  std::string text;
  for (const std::int64_t id : ids) text += fmt::format("{}\n", id + 1);
  // An empty file would look like one that was lost.
  if (ids.empty()) text.push_back('\n');
  write_file_atomically(file, text);
}

}  // namespace spdnn
