// Reading, writing and generating networks and images. Every reader validates what it reads and
// throws `InputError` naming file and line; every writer writes a temporary file and renames it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spdnn/model.hpp"

namespace spdnn {

/// Where binary caches are kept and whether they are used at all.
struct CachePolicy {
  bool use = true;
  /// Used when the folder of the source can't be written; `$XDG_CACHE_HOME/spdnn-gpu` when empty.
  std::filesystem::path fallback_dir;
};

/// How a file was obtained, for reports.
struct ReadReport {
  std::int64_t bytes = 0;  ///< read from text or mapped from the cache
  bool from_cache = false;
  std::string cache_note;  ///< why a cache was rebuilt or could not be written; else empty
  std::filesystem::path cache_file;
  std::string origin;  ///< "official files" or what a generated cache says of itself
};

/// From now on a mapped file that is cut, or that its disk can't give back, while its pages are
/// read ends the process with a message that names it and status 3, instead of SIGBUS without a
/// word. Replaces the process's handler of that signal.
void report_lost_pages();

/// The official bias for N neurons (−0.30, −0.35, −0.40, −0.45 for the four official sizes).
[[nodiscard]] std::optional<float> graph_challenge_bias(std::int64_t neurons);

/// Reads `data_dir/neuronN/nN-lL.tsv`, L = 1 … layers, as weights `[N × N]` (a line `i j v` becomes
/// row j − 1, column i − 1; columns ascending), through the cache `data_dir/neuronN/nN-L.spdnn`.
/// A cache that a generator wrote is used where the text files are absent.
/// Layers are parsed in parallel on the usable cores.
[[nodiscard]] std::vector<Csr> read_graph_challenge_weights(const std::filesystem::path& data_dir,
                                                            std::int64_t neurons,
                                                            std::int64_t layers,
                                                            const CachePolicy& cache,
                                                            ReadReport* report = nullptr);

/// Reads `data_dir/sparse-images-N.tsv` as `[images × N]`, through a cache beside it. Images are
/// the largest id in the file, or `count` when given: then the first so many.
[[nodiscard]] Csr read_graph_challenge_images(const std::filesystem::path& data_dir,
                                              std::int64_t neurons,
                                              std::optional<std::int64_t> count,
                                              const CachePolicy& cache,
                                              ReadReport* report = nullptr);

/// Path of the truth file `data_dir/neuronN-lL-categories.tsv`.
[[nodiscard]] std::filesystem::path categories_path(const std::filesystem::path& data_dir,
                                                    std::int64_t neurons, std::int64_t layers);
/// Reads category ids (1-based in the file, 0-based here, ascending). Ids above `max_images` are an
/// error: no file names more images than the input file has.
[[nodiscard]] std::vector<std::int64_t> read_categories(const std::filesystem::path& file,
                                                        std::int64_t max_images);
/// Writes category ids, 1-based, one a line.
void write_categories(const std::filesystem::path& file, const std::vector<std::int64_t>& ids);

/// Matrices `[rows × cols]` in one binary file: any list of CSR matrices with a line that says
/// where they come from. Used as cache and as the project's own format for networks and images.
void write_cache(const std::filesystem::path& file, const std::vector<Csr>& matrices,
                 const std::string& origin);
/// Maps a file of `write_cache` and checks version, sizes and checksums of all of it. Throws
/// `InputError` with the reason when it can't be trusted.
[[nodiscard]] std::vector<Csr> read_cache(const std::filesystem::path& file,
                                          std::string* origin = nullptr);

/// Images of an MNIST idx file (magic 2051), plain or gzip-compressed.
struct IdxImages {
  std::int64_t count = 0, height = 0, width = 0;
  std::vector<std::uint8_t> pixels;  ///< [count][height][width]
};
[[nodiscard]] IdxImages read_idx_images(const std::filesystem::path& file);
/// Labels of an MNIST idx file (magic 2049), plain or gzip-compressed.
[[nodiscard]] std::vector<std::uint8_t> read_idx_labels(const std::filesystem::path& file);

/// Images, or other samples, with the class of each: what a network learns from or is measured by.
/// The features are either bytes or the rows of a sparse matrix.
struct LabelledImages {
  std::int64_t count = 0;
  /// Features are ordered channel, height, width; samples that are no images have width alone.
  std::int64_t channels = 1, height = 1, width = 0;
  std::vector<std::uint8_t> pixels;  ///< [count][channels][height][width]; empty where sparse
  Csr sparse;                        ///< [count × features]; no rows where there are pixels
  std::vector<std::int32_t> labels;  ///< [count], each from 0 to classes − 1
  std::int64_t classes = 0;
  [[nodiscard]] std::int64_t features() const noexcept { return channels * height * width; }
  /// Writes the features of an image to `to[f · stride]`, f from 0: bytes as b / 255, sparse
  /// entries as they are and 0 between them. With a stride of the batch this fills a column of a
  /// plain features × batch matrix.
  void copy_image(std::int64_t image, float* to, std::int64_t stride) const;
};
/// What to learn from and what to be measured by; shapes and classes are equal.
struct LabelledSets {
  LabelledImages train, test;
};
/// Reads MNIST, or what has its names and format, from a folder: `train-images-idx3-ubyte`,
/// `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, each plain or
/// with `.gz` behind it. Images have one channel.
[[nodiscard]] LabelledSets read_mnist(const std::filesystem::path& folder);
/// Reads CIFAR-10's binary batches from a folder: all of `data_batch_*.bin` in the order of their
/// names, and `test_batch*.bin`, plain or with `.gz` behind it (the plain one where both are
/// there). Records are a label from 0 to 9, then 32 × 32 bytes of red, of green and of blue.
[[nodiscard]] LabelledSets read_cifar10(const std::filesystem::path& folder);
/// Reads samples from lines `image feature value` (ids from 1, in any order, features at most
/// `features`; what is not named is 0) and their labels, from 0, one a line. There are as many
/// images as labels. `classes` is one more than the largest label, or that given, which none may
/// reach.
[[nodiscard]] LabelledImages read_labelled_tsv(const std::filesystem::path& images,
                                               const std::filesystem::path& labels,
                                               std::int64_t features,
                                               std::optional<std::int64_t> classes = std::nullopt);

/// A RadiX-Net network as the Graph Challenge builds them.
///
/// With B = `fold` and C = neurons / B classes (a power of two), layer l (from 1) connects input i
/// to output j exactly when j mod C ∈ {g(i), (g(i) − 2^k) mod C}, k = (l − 1) mod log2 C. g(i) = i
/// mod C in the first log2 C layers; each later group of log2 C layers has one random permutation
/// of its own. Every row has 2·B entries of value `weight`.
struct RadixNetSpec {
  std::int64_t neurons = 1024;
  std::int64_t layers = 120;
  std::int64_t fold = 16;  ///< neurons / fold must be a power of two ≥ 2
  float weight = 0.0625F;
  std::uint64_t seed = 1;
};
/// Throws `InputError` where the spec is not one that can be built.
void validate(const RadixNetSpec& spec);
/// One layer, 0 ≤ layer < spec.layers, columns ascending. Equal for equal specs on every machine.
[[nodiscard]] Csr radixnet_layer(const RadixNetSpec& spec, std::int64_t layer);
[[nodiscard]] std::string radixnet_origin(const RadixNetSpec& spec);

/// Handwritten-like digits drawn procedurally (strokes, random slant, thickness and position):
/// `count` images of 28 × 28 grey values, equal for equal seeds. For where no data exist.
[[nodiscard]] IdxImages draw_digits(std::int64_t count, std::uint64_t seed);

/// Makes Graph Challenge input of grey images: transposed, resized to √neurons × √neurons by
/// Fourier interpolation of all images together, on where above half of the largest value of all.
/// `[images × neurons]`, all values 1. MNIST's 60,000 training images give the official input
/// files; fewer give slightly different ones, so make all and take the first rows.
[[nodiscard]] Csr challenge_images(const IdxImages& images, std::int64_t neurons);

/// What `generate` reports while it works: layers or images done, of how many.
using GenerateProgress = void (*)(std::int64_t done, std::int64_t total, void* user);

/// Writes a generated network where `read_graph_challenge_weights` finds it: the cache alone, or
/// the text files too. Works one layer at a time, so that size is bound by the disk alone.
void generate_graph_challenge_weights(const std::filesystem::path& data_dir,
                                      const RadixNetSpec& spec, bool tsv,
                                      GenerateProgress progress = nullptr, void* user = nullptr);
/// Writes generated images where `read_graph_challenge_images` finds them.
void generate_graph_challenge_images(const std::filesystem::path& data_dir, const Csr& images,
                                     const std::string& origin, bool tsv);

/// Element types of tensors in files: what safetensors names F16, BF16, …. Wider than `DType`,
/// which lists what kernels compute with.
enum class ElementType : std::uint8_t {
  f16,
  bf16,
  f32,
  f64,
  i8,
  u8,
  i16,
  u16,
  i32,
  u32,
  i64,
  u64,
  boolean
};
/// Bytes of one element.
[[nodiscard]] std::size_t size_of(ElementType type) noexcept;
/// The `ElementType` of a C++ type; F16 and BF16 have none, their bits are `std::uint16_t`.
template <class T>
inline constexpr ElementType element_type_of = T::no_element_type;
template <>
inline constexpr ElementType element_type_of<float> = ElementType::f32;
template <>
inline constexpr ElementType element_type_of<double> = ElementType::f64;
template <>
inline constexpr ElementType element_type_of<std::int8_t> = ElementType::i8;
template <>
inline constexpr ElementType element_type_of<std::uint8_t> = ElementType::u8;
template <>
inline constexpr ElementType element_type_of<std::int16_t> = ElementType::i16;
template <>
inline constexpr ElementType element_type_of<std::uint16_t> = ElementType::u16;
template <>
inline constexpr ElementType element_type_of<std::int32_t> = ElementType::i32;
template <>
inline constexpr ElementType element_type_of<std::uint32_t> = ElementType::u32;
template <>
inline constexpr ElementType element_type_of<std::int64_t> = ElementType::i64;
template <>
inline constexpr ElementType element_type_of<std::uint64_t> = ElementType::u64;
template <>
inline constexpr ElementType element_type_of<bool> = ElementType::boolean;

/// A dense array with a name, row-major, whose bytes somebody else owns.
struct Tensor {
  std::string name;
  ElementType type = ElementType::f32;
  std::vector<std::int64_t> shape;  ///< empty: one element
  std::span<const std::byte> data;
};
/// A view of `values` as a tensor, one-dimensional where no shape is given.
template <class T>
[[nodiscard]] Tensor make_tensor(std::string name, std::span<const T> values,
                                 std::vector<std::int64_t> shape) {
  return {std::move(name), element_type_of<T>, std::move(shape), std::as_bytes(values)};
}
template <class T>
[[nodiscard]] Tensor make_tensor(std::string name, const std::vector<T>& values) {
  return make_tensor(std::move(name), std::span<const T>(values), {std::ssize(values)});
}

/// The tensors and texts of a safetensors file (https://github.com/huggingface/safetensors).
class TensorFile {
 public:
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// Ascending by name; `data` is aligned for its type and lives as long as this object or a copy.
  [[nodiscard]] const std::vector<Tensor>& tensors() const noexcept { return tensors_; }
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept {
    return metadata_;
  }
  /// Whether a checksum was there, which then was right. Files of other programs have none.
  [[nodiscard]] bool checked() const noexcept { return checked_; }
  /// The tensor of a name, or null.
  [[nodiscard]] const Tensor* find(std::string_view name) const;
  /// The tensor of a name, type and shape (−1: any size). Throws `InputError` where it is missing
  /// or another.
  [[nodiscard]] const Tensor& require(std::string_view name, ElementType type,
                                      std::span<const std::int64_t> shape) const;
  /// The elements of such a tensor.
  template <class T>
  [[nodiscard]] std::span<const T> values(std::string_view name,
                                          std::initializer_list<std::int64_t> shape) const {
    const Tensor& tensor = require(name, element_type_of<T>, {shape.begin(), shape.size()});
    return {reinterpret_cast<const T*>(tensor.data.data()), tensor.data.size() / sizeof(T)};
  }
  /// Keeps `data` alive.
  [[nodiscard]] const std::shared_ptr<const void>& owner() const noexcept { return owner_; }

 private:
  friend TensorFile read_safetensors(const std::filesystem::path& file);
  std::filesystem::path path_;
  std::vector<Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::shared_ptr<const void> owner_;
  bool checked_ = false;
};
/// Maps a safetensors file and checks all of it: every field of its header, that the tensors fill
/// the file without gap or overlap, and the checksum where one is given. A file whose metadata name
/// this program must have one. As with every mapped file, nobody may write into it while it is
/// used; replacing it as a whole is safe. Throws `InputError` with the reason when it can't be
/// trusted.
[[nodiscard]] TensorFile read_safetensors(const std::filesystem::path& file);
/// Writes a safetensors file tensor by tensor, so that not all have to be in memory at once: under
/// a temporary name, brought to the disk, then renamed. The data begin at a multiple of 64 bytes,
/// tensors of larger elements first, so that each is aligned for its type. A checksum of all
/// contents joins the metadata (`spdnn.checksum`).
class TensorWriter {
 public:
  /// `tensors` are what is to come; their data are not looked at. Throws `InputError` for a name
  /// that is not UTF-8, used twice or `__metadata__`, `SystemError` when the file can't be written.
  TensorWriter(std::filesystem::path file, std::vector<Tensor> tensors,
               std::map<std::string, std::string> metadata = {});
  ~TensorWriter();
  TensorWriter(const TensorWriter&) = delete;
  TensorWriter& operator=(const TensorWriter&) = delete;

  /// The data of a tensor, in any order; by name, ascending, they need not be read back. Throws
  /// `InputError` where none of that name is to come, it was written before, or it has another
  /// size, `SystemError` when the file can't be written.
  void write(std::string_view name, std::span<const std::byte> data);
  /// When all are written, the file gets its name; without this there is none. Throws `InputError`
  /// where one is missing, `SystemError` when the file can't be written.
  void commit();

 private:
  struct File;
  std::unique_ptr<File> file_;
};
/// Writes tensors that are all there, as `TensorWriter` does, and with its errors.
void write_safetensors(const std::filesystem::path& file, std::vector<Tensor> tensors,
                       std::map<std::string, std::string> metadata = {});

/// Adds to `metadata` what makes layer `layer`, from 0, of a network in safetensors more than a
/// linear one: "layers.N.kind" and "layers.N.window". A linear layer needs none.
void add_window_texts(std::size_t layer, LayerKind kind, Window2d window,
                      std::map<std::string, std::string>& metadata);

/// How networks lie in files. `.spdnn` and safetensors files hold all layers. The others hold one
/// matrix: there a path with `{}` in it names a file for each layer, numbered from 1 or 0 on, and
/// biases lie beside a file STEM.EXT in STEM-bias.tsv, lines `output value`, ids from 1.
enum class NetworkFormat : std::uint8_t { spdnn, safetensors, npz, mtx, smtx, tsv };
/// Names of all formats, which are their extensions as well, by `NetworkFormat`.
[[nodiscard]] std::span<const std::string_view> network_format_names();
/// The format a path's extension stands for. Throws `InputError` naming all where it is none.
[[nodiscard]] NetworkFormat network_format_of(const std::filesystem::path& path);

enum class Activation : std::uint8_t { relu, identity };

/// What the files of a network leave open, or should be other than they say. Lists have one element
/// for all layers, or one each; what is empty is taken from the file, else 0, ReLU and no clip.
struct NetworkSettings {
  std::optional<NetworkFormat> format{};  ///< nothing: by extension
  /// Inputs of the first layer, then outputs of each; or one width for all. For `tsv`, whose lines
  /// do not tell: without it the N of names nN-lL.tsv, else the largest ids.
  std::vector<std::int64_t> neurons{};
  std::vector<float> bias{};
  std::vector<Activation> activation{};
  std::vector<float> clip{};  ///< upper bounds; infinity for none
};
/// Whether `path` is there, or the first of the files that a `{}` in it stands for.
[[nodiscard]] bool network_exists(const std::filesystem::path& path);
/// The files of a network: those that a `{}` in `path` stands for, else `path` alone. Throws
/// `InputError` where there is none.
[[nodiscard]] std::vector<std::filesystem::path> network_files(const std::filesystem::path& path);
/// Reads a network, rows of the matrices being outputs, and checks that its layers fit together.
[[nodiscard]] Model read_network(const std::filesystem::path& path,
                                 const NetworkSettings& settings = {});
/// Writes a network, each file as a whole. Returns what the format has no place for and was left
/// out: "biases", "activations". Throws `InputError` where the format can't hold the weights.
std::vector<std::string> write_network(const std::filesystem::path& path, const Model& model,
                                       std::optional<NetworkFormat> format = std::nullopt);

/// Writes a file as a whole: to a temporary name beside it, then renamed. Throws `SystemError`.
void write_file_atomically(const std::filesystem::path& file, std::string_view content);

/// Throws `SystemError` where `file` could not be written: to be known before the work, not after.
void check_writable(const std::filesystem::path& file);

/// Removes the files that are only written in part, under their temporary names. May be called in a
/// signal handler that then ends the process.
void remove_unfinished_files() noexcept;

}  // namespace spdnn
