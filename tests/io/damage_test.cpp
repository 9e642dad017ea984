// Damaged files of every format: thousands of them, from a seed, must be read or refused with an
// `InputError`; never a crash, another exception, a hang, or memory out of proportion.
//
// SPDNN_DAMAGE_ROUNDS multiplies how many there are, SPDNN_DAMAGE_SEED begins elsewhere.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <new>
#include <nlohmann/json.hpp>
#include <random>

#include "npy.hpp"
#include "reading.hpp"
#include "spdnn/io.hpp"
#include "support/idx_files.hpp"
#include "support/networks.hpp"
#include "zip.hpp"

namespace {

/// The largest request for memory since it was set to 0.
std::atomic<std::size_t> largest_request{0};

void* allocate(std::size_t bytes) noexcept {
  std::size_t seen = largest_request;
  while (bytes > seen && !largest_request.compare_exchange_weak(seen, bytes)) {
  }
  return std::malloc(bytes == 0 ? 1 : bytes);
}

void* allocate_or_throw(std::size_t bytes) {
  void* const memory = allocate(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// Every request of the readers passes here.
void* operator new(std::size_t bytes) { return allocate_or_throw(bytes); }
void* operator new[](std::size_t bytes) { return allocate_or_throw(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace spdnn {
namespace {

namespace fs = std::filesystem;

/// Much more than any of the small files needs.
constexpr std::size_t kMostBytes = std::size_t{64} << 20;

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

/// Makes damage of the kinds that files suffer, and of those that somebody would think of.
class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::string damage(std::string content) {
    const std::size_t times = 1 + below(3);
    for (std::size_t time = 0; time < times; ++time) damage_once(content);
    return content;
  }

 private:
  std::size_t below(std::size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  void damage_once(std::string& content) {
    if (content.empty()) return;
    const std::size_t at = below(content.size());
    const std::size_t length = 1 + below(std::min<std::size_t>(content.size() - at, 16));
    switch (below(8)) {
      case 0: content[at] = static_cast<char>(content[at] ^ (1 << below(8))); break;
      case 1: content[at] = static_cast<char>(random_()); break;
      case 2: content.resize(at); break;
      case 3: content.erase(at, length); break;
      case 4: content.insert(below(content.size()), content.substr(at, length)); break;
      case 5: put_extreme(content, at); break;
      case 6: change_digits(content, at); break;
      default: content += content.substr(at); break;
    }
  }
  /// A number at the edge of its type.
  void put_extreme(std::string& content, std::size_t at) {
    constexpr std::uint64_t kExtremes[] = {0,
                                           1,
                                           0x7F,
                                           0xFF,
                                           0x7FFF,
                                           0xFFFF,
                                           0x7FFFFFFF,
                                           0x80000000,
                                           0xFFFFFFFF,
                                           0x100000000,
                                           0x7FFFFFFFFFFFFFFF,
                                           0x8000000000000000,
                                           0xFFFFFFFFFFFFFFFF};
    const std::uint64_t value = kExtremes[below(std::size(kExtremes))];
    const std::size_t bytes =
        std::min<std::size_t>(content.size() - at, std::size_t{1} << below(4));
    std::memcpy(content.data() + at, &value, bytes);
  }
  /// The next number in the text becomes another.
  void change_digits(std::string& content, std::size_t at) {
    const std::size_t begin = content.find_first_of("0123456789", at);
    if (begin == std::string::npos) return;
    const std::size_t end =
        std::min(content.find_first_not_of("0123456789", begin), content.size());
    static const std::vector<std::string> numbers{"0",          "-1",
                                                  "2",          "65536",
                                                  "99999",      "16777217",
                                                  "1e9",        "2147483647",
                                                  "4294967296", "9223372036854775807",
                                                  "nan",        "inf",
                                                  "1e39",       "-0",
                                                  "0x10",       "18446744073709551616",
                                                  "0.5.5.5",    ""};
    content.replace(begin, end - begin, numbers[below(numbers.size())]);
  }

  std::mt19937_64 random_;
};

class Damage : public ::testing::Test {
 protected:
  /// Reads `rounds` damaged copies of `content`, each packed by `pack` into the file.
  void damage(
      const std::string& name, const std::string& content, std::uint64_t rounds,
      const std::function<void(const fs::path&)>& read,
      const std::function<void(const fs::path&, const std::string&)>& pack =
          [](const fs::path& file, const std::string& text) { test::write_text(file, text); }) {
    const fs::path file = folder_ / name;
    pack(file, content);
    ASSERT_NO_THROW(read(file)) << "the undamaged file";
    const std::uint64_t seed = number_of("SPDNN_DAMAGE_SEED", 1);
    rounds *= number_of("SPDNN_DAMAGE_ROUNDS", 1);
    std::uint64_t refused = 0;
    for (std::uint64_t round = 0; round < rounds; ++round) {
      pack(file, Mutator(seed + round).damage(content));
      largest_request = 0;
      try {
        read(file);
      } catch (const InputError& error) {
        ++refused;
        EXPECT_NE(std::string(error.what()).find(folder_.path().string()), std::string::npos)
            << error.what();
      } catch (const std::exception& error) {
        FAIL() << name << ", seed " << seed + round << ": " << error.what();
      }
      ASSERT_LT(largest_request, kMostBytes) << name << ", seed " << seed + round;
    }
    // Some damage is harmless (a digit of a value), but most is not.
    EXPECT_GT(refused, rounds / 4) << name;
  }

  [[nodiscard]] std::string written(const std::string& name) const {
    static_cast<void>(write_network(folder_ / name, network_));
    return test::read_text(folder_ / name);
  }

  static Model small_network() {
    std::mt19937_64 random(5);
    Model model;
    for (int l = 0; l < 2; ++l) {
      model.layers.emplace_back(
          SparseLinear{test::random_csr({9, 9, 4, test::Rows::irregular}, random),
                       test::random_floats(9, random),
                       {0.0F, 2.0F}});
    }
    return model;
  }

  test::ScratchDir folder_;
  Model network_ = small_network();
};

void read_any_network(const fs::path& file) { static_cast<void>(read_network(file)); }

TEST_F(Damage, Safetensors) {
  damage("n.safetensors", written("n.safetensors"), 2000, read_any_network);
}

TEST_F(Damage, SafetensorsWithoutChecksum) {
  const std::string content = written("n.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, content.data(), sizeof length);
  auto header = nlohmann::json::parse(content.substr(sizeof length, length));
  const std::string data = content.substr(sizeof length + length);
  header["__metadata__"].erase("spdnn.checksum");
  header["__metadata__"].erase("spdnn.format");
  const std::string text = header.dump();
  length = text.size();
  damage("n.safetensors",
         std::string(reinterpret_cast<const char*>(&length), sizeof length) + text + data, 4000,
         read_any_network);
}

TEST_F(Damage, Spdnn) { damage("n.spdnn", written("n.spdnn"), 1000, read_any_network); }

TEST_F(Damage, Npz) {
  network_.layers.pop_back();
  damage("n.npz", written("n.npz"), 2000, read_any_network);
}

TEST_F(Damage, ArraysInNpz) {
  network_.layers.pop_back();
  const std::string content = written("n.npz");
  const ZipFile zip(folder_ / "n.npz");
  const std::vector<std::string> names = zip.names();
  for (const std::string& damaged : names) {
    std::map<std::string, std::string> members;
    for (const std::string& name : names) {
      const auto bytes = zip.read(name);
      members[name].assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
    damage("n.npy", members[damaged], 1000, [&](const fs::path& file) {
      const std::string text = test::read_text(file);
      static_cast<void>(read_npy(file, "n.npy", std::as_bytes(std::span(text))));
    });
    // Few, since each archive is brought to the disk.
    damage("m.npz", members[damaged], 25, read_any_network,
           [&](const fs::path& file, const std::string& text) {
             members[damaged] = text;
             ZipWriter out(file);
             for (const auto& [name, member] : members) {
               out.add(name, {std::as_bytes(std::span(member))});
             }
             out.commit();
           });
  }
}

TEST_F(Damage, MatrixMarket) {
  network_.layers.pop_back();
  damage("n.mtx", written("n.mtx"), 3000, read_any_network);
}

TEST_F(Damage, Smtx) {
  damage("n.smtx", "3, 5, 6\n0 2 4 6\n0 4 1 3 2 0\n", 4000, read_any_network);
}

TEST_F(Damage, TsvAndBias) {
  network_.layers.pop_back();
  damage("n.tsv", written("n.tsv"), 3000, read_any_network);
  static_cast<void>(written("n.tsv"));
  damage("n-bias.tsv", test::read_text(folder_ / "n-bias.tsv"), 2000,
         [&](const fs::path&) { read_any_network(folder_ / "n.tsv"); });
}

TEST_F(Damage, Idx) {
  damage("x.idx", test::images_file(3, 4, 5, std::string(60, 'x')), 1500,
         [](const fs::path& file) { static_cast<void>(read_idx_images(file)); });
  damage(
      "x.idx.gz",
      test::gzip(test::images_file(3, 4, 5, "random, so that it is long: " + std::string(32, 'x'))),
      2000, [](const fs::path& file) { static_cast<void>(read_idx_images(file)); });
}

TEST_F(Damage, Cifar) {
  test::write_text(folder_ / "test_batch.bin", std::string(3073, '\1'));
  damage("data_batch_1.bin", std::string(3073, '\2'), 500,
         [&](const fs::path&) { static_cast<void>(read_cifar10(folder_.path())); });
}

TEST_F(Damage, LabelledText) {
  test::write_text(folder_ / "labels", "0\n3\n1\n");
  const auto read = [&](const fs::path&) {
    static_cast<void>(read_labelled_tsv(folder_ / "samples", folder_ / "labels", 100));
  };
  damage("samples", "1 5 0.25\n1 77 1\n2 100 1e-3\n3 1 0.0625\n", 2000, read);
  test::write_text(folder_ / "samples", "1 5 0.25\n");
  damage("labels", "0\n3\n1\n12\n5\n0\n9\n8\n", 2000, read);
}

}  // namespace
}  // namespace spdnn
