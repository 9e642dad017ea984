// Comparing configurations and data between the processes of a run.
#include "agreement.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "job.hpp"
#include "pack.hpp"

namespace spdnn {
namespace {

using Json = nlohmann::json;

/// What a process tells the others.
struct Statement {
  std::string host;
  std::string text;  ///< a configuration, or the sizes of data
  std::uint64_t hash = 0;
};

/// What a process and the first one say, where they differ.
struct Dissent {
  std::string where;  ///< "process 1 (host b)"
  std::string first;  ///< "process 0 (host a)"
  Statement its, firsts;
};

/// The first process that does not say what process 0 says.
std::optional<Dissent> find_dissent(World& world, const std::string& text, std::uint64_t hash) {
  Packer packer;
  packer(host_name(), text, hash);
  std::vector<Statement> said;
  for (const auto& bytes : gather_bytes(world.processes(), packer.bytes())) {
    Statement& statement = said.emplace_back();
    Unpacker unpacker(bytes);
    unpacker(statement.host, statement.text, statement.hash);
  }
  const auto other = std::find_if(said.begin(), said.end(), [&](const Statement& s) {
    return s.text != said.front().text || s.hash != said.front().hash;
  });
  if (other == said.end()) return std::nullopt;
  return Dissent{fmt::format("process {} (host {})", other - said.begin(), other->host),
                 fmt::format("process 0 (host {})", said.front().host), *other, said.front()};
}

/// A hash over values and samples of matrices, as they are whatever form they are stored in.
class Hash {
 public:
  template <class T>
  void add(const std::vector<T>& values) {
    XXH3_64bits_update(state_.get(), values.data(), values.size() * sizeof(T));
  }
  void add_sizes(std::initializer_list<std::int64_t> sizes) { add(std::vector(sizes)); }
  /// About `most` rows and entries, or all.
  void add(const CsrView& matrix, std::int64_t most) {
    add_sizes({matrix.rows, matrix.cols, matrix.nnz});
    const std::int64_t rows = std::min(matrix.rows, most);
    for (std::int64_t i = 0; i < rows; ++i) add_sizes({matrix.row_begin(i * matrix.rows / rows)});
    const std::int64_t entries = std::min(matrix.nnz, most);
    const std::int64_t step = entries == 0 ? 0 : matrix.nnz / entries;
    for (std::int64_t i = 0; i < entries; ++i) {
      add_sizes({matrix.col(i * step)});
      add(std::vector{matrix.value(i * step)});
    }
  }
  [[nodiscard]] std::uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  static XXH3_state_t* start() {
    XXH3_state_t* state = XXH3_createState();
    XXH3_64bits_reset(state);
    return state;
  }
  std::unique_ptr<XXH3_state_t, Free> state_{start()};
};

/// Entries of all matrices of a network or a set that are compared.
constexpr std::int64_t kSampled = 16384;

/// `text` says how large the data are.
void agree_on_data(World& world, const std::string& what, const std::string& text,
                   const Hash& hash) {
  const auto dissent = find_dissent(world, text, hash.value());
  if (!dissent) return;
  const bool same_sizes = dissent->its.text == dissent->firsts.text;
  throw InputError(fmt::format(
      "{} has {} ({}) than {} ({}); all processes must read the same files: share their folder "
      "between the hosts, or copy it to each",
      dissent->where, what, dissent->its.text, dissent->first,
      same_sizes ? "as large, but other values" : dissent->firsts.text));
}

void add_set(Hash& hash, const LabelledImages& images) {
  hash.add_sizes({images.count, images.channels, images.height, images.width, images.classes});
  hash.add(images.pixels);
  hash.add(images.sparse.view(), kSampled);
  hash.add(images.labels);
}

}  // namespace

void agree_on_config(World& world, const RunConfig& config) {
  if (world.processes().size() == 1) return;
  const bool resumes = config.train && config.train->checkpoint.resume;
  const auto dissent = find_dissent(world, config.deciding, resumes ? 1 : 0);
  if (!dissent) return;
  std::string what = "--resume is given to one of them alone";
  if (dissent->its.text != dissent->firsts.text) {
    const Json first = Json::parse(dissent->firsts.text);
    const Json its = Json::parse(dissent->its.text);
    const Json::json_pointer at(Json::diff(first, its).at(0).at("path").get<std::string>());
    const auto value = [&](const Json& of) {
      return of.contains(at) ? of.at(at).dump() : std::string("not given");
    };
    what = fmt::format("{} is {} there, and {} here", at.to_string(), value(its), value(first));
  }
  throw InputError(
      fmt::format("{} has another configuration than {}: {}; start all processes with "
                  "the same configuration and options",
                  dissent->where, dissent->first, what));
}

void agree_on_network(World& world, const Model& model) {
  if (world.processes().size() == 1) return;
  Hash hash;
  std::int64_t weights = 0;
  const auto layers = std::max<std::int64_t>(std::ssize(model.layers), 1);
  for (const Layer& layer : model.layers) {
    hash.add_sizes(
        {static_cast<std::int64_t>(layer_kind(layer)), layer_inputs(layer), layer_outputs(layer)});
    hash.add(layer_weights(layer).view(), std::max<std::int64_t>(kSampled / layers, 2));
    hash.add(layer_bias(layer));
    weights += layer_weights(layer).nnz();
  }
  agree_on_data(
      world, "another network",
      fmt::format("{} inputs, {} layers, {} weights", model.inputs(), model.layers.size(), weights),
      hash);
}

void agree_on_images(World& world, const Csr& images) {
  if (world.processes().size() == 1) return;
  Hash hash;
  hash.add(images.view(), kSampled);
  agree_on_data(
      world, "other images",
      fmt::format("{} of {} inputs, {} of them not 0", images.rows(), images.cols(), images.nnz()),
      hash);
}

void agree_on_images(World& world, const LabelledSets& sets) {
  if (world.processes().size() == 1) return;
  Hash hash;
  add_set(hash, sets.train);
  add_set(hash, sets.test);
  agree_on_data(world, "other images",
                fmt::format("{} to train and {} to test, of {} features", sets.train.count,
                            sets.test.count, sets.train.features()),
                hash);
}

void agree_on_file(World& world, const std::filesystem::path& file) {
  if (file.empty() || world.processes().size() == 1) return;
  Hash hash;
  std::ifstream in(file, std::ios::binary);
  std::vector<char> piece(std::size_t{1} << 20U);
  std::int64_t bytes = 0;
  while (in) {
    in.read(piece.data(), std::ssize(piece));
    piece.resize(static_cast<std::size_t>(in.gcount()));
    hash.add(piece);
    bytes += in.gcount();
  }
  agree_on_data(world, "another " + file.string(), fmt::format("{} bytes", bytes), hash);
}

}  // namespace spdnn
