// A compiled network is a `.spdnn` file: for each rewritten layer its weights and its biases (a
// column), then the map of outputs (a row for each original one, with one entry or none). The rest
// is JSON in the file's origin line. Writing is atomic, and reading checks every byte.
#include "compiled_cache.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <span>

#include "spdnn/io.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// Raised whenever passes change what they make, or this file its form.
constexpr int kVersion = 1;

fs::path file_of(const fs::path& folder, const std::string& key) {
  return folder / fmt::format("compiled-{}.spdnn", key);
}

const SparseLinear& linear(const Model& model, std::int64_t index) {
  return std::get<SparseLinear>(model.layers[index]);
}

std::uint32_t bits(float value) { return std::bit_cast<std::uint32_t>(value); }
float from_bits(const Json& json) { return std::bit_cast<float>(json.get<std::uint32_t>()); }

/// Values in a column, one a row.
Csr column_of(const std::vector<float>& values) {
  std::vector<std::int64_t> offsets;
  for (std::int64_t row = 0; row <= std::ssize(values); ++row) offsets.push_back(row);
  return make_csr(std::ssize(values), 1, std::move(offsets),
                  std::vector<std::uint32_t>(values.size()), values);
}

std::vector<float> values_of(const CsrView& column) {
  std::vector<float> values;
  for (std::int64_t k = 0; k < column.nnz; ++k) {
    values.push_back(static_cast<float>(column.value(k)));
  }
  return values;
}

Csr map_of(const std::vector<std::int64_t>& outputs, std::int64_t compiled) {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> cols;
  for (const std::int64_t output : outputs) {
    if (output >= 0) cols.push_back(static_cast<std::uint32_t>(output));
    offsets.push_back(std::ssize(cols));
  }
  return make_csr(std::ssize(outputs), compiled, std::move(offsets), std::move(cols), {1.0F});
}

std::vector<std::int64_t> outputs_of(const CsrView& map) {
  std::vector<std::int64_t> outputs;
  for (std::int64_t row = 0; row < map.rows; ++row) {
    const bool there = map.row_begin(row + 1) > map.row_begin(row);
    outputs.push_back(there ? map.col(map.row_begin(row)) : -1);
  }
  return outputs;
}

Json json_of(const NetworkSize& size) { return {size.rows, size.nonzeros, size.bytes}; }
NetworkSize size_from(const Json& json) { return {json.at(0), json.at(1), json.at(2)}; }

Json json_of(const CompileReport& report) {
  Json passes = Json::array();
  for (const PassReport& pass : report.passes) {
    passes.push_back({{"name", pass.name},
                      {"layers", pass.layers},
                      {"before", json_of(pass.before)},
                      {"after", json_of(pass.after)},
                      {"seconds", pass.seconds}});
  }
  return {{"exact", report.exact}, {"passes", passes}, {"notes", report.notes}};
}

CompileReport report_from(const Json& json) {
  CompileReport report;
  report.exact = json.at("exact");
  report.notes = json.at("notes").get<std::vector<std::string>>();
  for (const Json& pass : json.at("passes")) {
    report.passes.push_back({pass.at("name"), pass.at("layers"), size_from(pass.at("before")),
                             size_from(pass.at("after")), pass.at("seconds"), false});
  }
  report.from_cache = true;
  return report;
}

/// Takes matrices from the front of a file's.
class Matrices {
 public:
  explicit Matrices(std::vector<Csr> matrices) : matrices_(std::move(matrices)) {}
  [[nodiscard]] const Csr& take() {
    if (next_ == matrices_.size()) throw InputError("it has too few matrices");
    return matrices_[next_++];
  }
  [[nodiscard]] bool exhausted() const { return next_ == matrices_.size(); }

 private:
  std::vector<Csr> matrices_;
  std::size_t next_ = 0;
};

CompiledModel assemble(const Json& json, Matrices matrices, const Model& given) {
  CompiledModel compiled;
  compiled.model = {given.name, given.origin, {}};
  for (const Json& layer : json.at("layers")) {
    const Range range = {layer.at("stands_for").at(0), layer.at("stands_for").at(1)};
    compiled.layers.push_back(range);
    const std::int64_t kept = layer.at("kept");
    if (kept >= std::ssize(given.layers)) throw InputError("it names a layer there is not");
    if (kept >= 0) {
      compiled.model.layers.push_back(given.layers[kept]);
      continue;
    }
    const Csr weights = matrices.take();
    compiled.model.layers.push_back(
        SparseLinear{weights,
                     values_of(matrices.take().view()),
                     {from_bits(layer.at("lower")), from_bits(layer.at("upper"))}});
  }
  if (json.at("outputs_moved").get<bool>()) compiled.outputs = outputs_of(matrices.take().view());
  validate(compiled.model);
  const std::int64_t outputs =
      compiled.outputs.empty() ? compiled.model.outputs() : std::ssize(compiled.outputs);
  if (!matrices.exhausted() || compiled.model.inputs() != given.inputs() ||
      outputs != given.outputs()) {
    throw InputError("it is not of this network");
  }
  compiled.report = report_from(json.at("report"));
  compiled.report.before = network_size(given);
  compiled.report.after = network_size(compiled.model);
  return compiled;
}

/// The index of the layer given whose arrays a compiled layer has; −1 where it has its own.
std::int64_t kept_layer(const SparseLinear& layer, const Range& range, const Model& given) {
  for (std::int64_t l = range.begin; l < range.end; ++l) {
    const SparseLinear& other = linear(given, l);
    if (other.weights.view().col_indices == layer.weights.view().col_indices &&
        other.bias == layer.bias && other.activation == layer.activation) {
      return l;
    }
  }
  return -1;
}

/// Removes the oldest files until all take `most_bytes` at most.
void trim(const fs::path& folder, std::int64_t most_bytes) {
  std::vector<fs::directory_entry> files;
  std::int64_t bytes = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("compiled-") || !name.ends_with(".spdnn")) continue;
    files.push_back(entry);
    bytes += static_cast<std::int64_t>(entry.file_size());
  }
  std::sort(files.begin(), files.end(),
            [](const auto& a, const auto& b) { return a.last_write_time() < b.last_write_time(); });
  for (auto file = files.begin(); file != files.end() && bytes > most_bytes; ++file) {
    bytes -= static_cast<std::int64_t>(file->file_size());
    fs::remove(*file);
  }
}

}  // namespace

std::optional<std::string> compiled_key(const Model& model, const CompileRequest& request) {
  if (!all_linear(model)) return std::nullopt;
  std::vector<std::uint64_t> parts;
  for (const Layer& layer : model.layers) {
    const auto& linear = std::get<SparseLinear>(layer);
    const Storage* storage = linear.weights.storage();
    const auto content =
        storage == nullptr ? std::nullopt : storage->fingerprint(linear.weights.view());
    if (!content) return std::nullopt;
    parts.push_back(*content);
    parts.push_back(XXH3_64bits(linear.bias.data(), linear.bias.size() * sizeof(float)));
    parts.push_back(linear.bias.size());
    parts.push_back(std::uint64_t{bits(linear.activation.lower)} << 32 |
                    bits(linear.activation.upper));
  }
  const std::string asked =
      fmt::format("{} {} {:08x} {:08x} {} {}", kVersion, fmt::join(request.passes, ","),
                  bits(request.lowest_input), bits(request.highest_input), request.least_gain,
                  request.memory_limit);
  parts.push_back(XXH3_64bits(asked.data(), asked.size()));
  const XXH128_hash_t hash = XXH3_128bits(parts.data(), parts.size() * sizeof(parts.front()));
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::optional<CompiledModel> read_compiled(const fs::path& folder, const std::string& key,
                                           const Model& model, std::vector<std::string>& notes) {
  const double start = now_seconds();
  const fs::path file = file_of(folder, key);
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  try {
    std::string origin;
    Matrices matrices(read_cache(file, &origin));
    const Json json = Json::parse(origin);
    if (json.at("compiled") != key) throw InputError("it is of another network");
    CompiledModel compiled = assemble(json, std::move(matrices), model);
    fs::last_write_time(file, fs::file_time_type::clock::now(), ignored);  // used: goes last
    compiled.report.seconds = now_seconds() - start;
    return compiled;
  } catch (const Error& error) {
    notes.push_back(fmt::format("compiled again: {}: {}", file.string(), error.what()));
  } catch (const Json::exception& error) {
    notes.push_back(fmt::format("compiled again: {}: {}", file.string(), error.what()));
  }
  return std::nullopt;
}

void write_compiled(const fs::path& folder, const std::string& key, const Model& model,
                    const CompiledModel& compiled, std::int64_t most_bytes) {
  Json layers = Json::array();
  std::vector<Csr> matrices;
  for (std::int64_t l = 0; l < std::ssize(compiled.model.layers); ++l) {
    const SparseLinear& layer = linear(compiled.model, l);
    const Range range = compiled.layers[l];
    const std::int64_t kept = kept_layer(layer, range, model);
    layers.push_back({{"stands_for", {range.begin, range.end}},
                      {"kept", kept},
                      {"lower", bits(layer.activation.lower)},
                      {"upper", bits(layer.activation.upper)}});
    if (kept >= 0) continue;
    matrices.push_back(layer.weights);
    matrices.push_back(column_of(layer.bias));
  }
  if (!compiled.outputs.empty()) {
    matrices.push_back(map_of(compiled.outputs, compiled.model.outputs()));
  }
  const Json json = {{"compiled", key},
                     {"layers", layers},
                     {"outputs_moved", !compiled.outputs.empty()},
                     {"report", json_of(compiled.report)}};
  try {
    fs::create_directories(folder);
    write_cache(file_of(folder, key), matrices, json.dump());
    trim(folder, most_bytes);
  } catch (const Error&) {
  } catch (const fs::filesystem_error&) {
  }
}

}  // namespace spdnn
