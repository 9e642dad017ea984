// The table of configuration keys: pointer, forms, default, and one line for the reader.
#include "keys.hpp"

#include <stdexcept>

#include "forms.hpp"
#include "spdnn/io.hpp"

namespace spdnn::config {
namespace {

std::vector<std::string_view> format_names() {
  const auto names = network_format_names();
  return {names.begin(), names.end()};
}

void add_model(std::vector<Key>& t) {
  t.insert(
      t.end(),
      {
          {.pointer = "/model",
           .forms = {object()},
           .about = "The network: exactly one of graph_challenge, radixnet, path and layers",
           .required = true,
           .one_of = {"graph_challenge", "radixnet", "path", "layers"}},
          {.pointer = "/model/graph_challenge",
           .forms = {object()},
           .about = "Weights in the data directory: neuronN/nN-lL.tsv, or their binary cache"},
          {.pointer = "/model/graph_challenge/neurons",
           .forms = {integer(1, max_neurons)},
           .about = "Neurons of every layer",
           .required = true},
          {.pointer = "/model/graph_challenge/layers",
           .forms = {integer(1, max_layers)},
           .about = "Layers, from the first",
           .required = true},
          {.pointer = "/model/graph_challenge/bias",
           .forms = {number(-max_weight, max_weight)},
           .about = "Bias of every neuron; required unless neurons is 1024, 4096, 16384 or 65536, "
                    "for which the challenge sets it"},
          {.pointer = "/model/graph_challenge/clip",
           .forms = {above(0.0, max_weight)},
           .fallback = "32",
           .about = "Upper bound of every activation"},
      });
}

void add_radixnet(std::vector<Key>& t) {
  t.insert(
      t.end(),
      {
          {.pointer = "/model/radixnet",
           .forms = {object()},
           .about = "Weights generated in memory by the challenge's recipe"},
          {.pointer = "/model/radixnet/neurons",
           .forms = {integer(2, max_neurons)},
           .about = "Neurons of every layer: a power of two times fold",
           .required = true},
          {.pointer = "/model/radixnet/layers",
           .forms = {integer(1, max_layers)},
           .about = "Layers",
           .required = true},
          {.pointer = "/model/radixnet/fold",
           .forms = {integer(1, max_neurons)},
           .fallback = "16",
           .about = "Width of the blocks of ones; every neuron has 2 * fold inputs"},
          {.pointer = "/model/radixnet/weight",
           .forms = {number(-max_weight, max_weight)},
           .fallback = "0.0625",
           .about = "Value of every weight"},
          {.pointer = "/model/radixnet/seed",
           .forms = {integer(0, max_seed)},
           .fallback = "1",
           .about = "Seed of the permutations"},
          {.pointer = "/model/radixnet/bias",
           .forms = {number(-max_weight, max_weight)},
           .about = "Bias of every neuron; required unless neurons is 1024, 4096, 16384 or 65536, "
                    "for which the challenge sets it"},
          {.pointer = "/model/radixnet/clip",
           .forms = {above(0.0, max_weight)},
           .fallback = "32",
           .about = "Upper bound of every activation"},
      });
}

void add_file_model(std::vector<Key>& t) {
  t.insert(t.end(),
           {
               {.pointer = "/model/path",
                .forms = {text()},
                .about = "A network in a file, or in files whose name has {} for the number of the "
                         "layer; see docs/formats.md"},
               {.pointer = "/model/format",
                .forms = {words(format_names())},
                .about = "Format of path; by its extension by default",
                .needs = "path"},
               {.pointer = "/model/neurons",
                .forms = {integer(1, max_neurons), list(1)},
                .about = "Widths of a tsv network: one for all, or inputs, then outputs of each",
                .needs = "path"},
               {.pointer = "/model/neurons/*",
                .forms = {integer(1, max_neurons)},
                .about = "Inputs of the first layer, or outputs of one"},
               {.pointer = "/model/bias",
                .forms = {number(-max_weight, max_weight), list(1)},
                .about = "Bias of every neuron, or a list with one a layer; else the file's, or 0",
                .needs = "path"},
               {.pointer = "/model/bias/*",
                .forms = {number(-max_weight, max_weight)},
                .about = "Bias of every neuron of one layer"},
               {.pointer = "/model/activation",
                .forms = {words({"relu", "identity"}), list(1)},
                .about = "Activation, or a list with one a layer; else the file's, or relu",
                .needs = "path"},
               {.pointer = "/model/activation/*",
                .forms = {words({"relu", "identity"})},
                .about = "Activation of one layer"},
               {.pointer = "/model/clip",
                .forms = {above(0.0, max_weight), words({"none"}), list(1)},
                .about = "Upper bound of activations, or one a layer; else the file's, or none",
                .needs = "path"},
               {.pointer = "/model/clip/*",
                .forms = {above(0.0, max_weight), words({"none"})},
                .about = "Upper bound of one layer's activation"},
           });
}

void add_input(std::vector<Key>& t) {
  const Form images = integer(1, max_images);
  t.insert(t.end(),
           {
               {.pointer = "/input",
                .forms = {object()},
                .about = "The images: exactly one of graph_challenge, idx, digits, path, mnist, "
                         "cifar10 and tsv",
                .required = true,
                .one_of = {"graph_challenge", "idx", "digits", "path", "mnist", "cifar10", "tsv"}},
               {.pointer = "/input/graph_challenge",
                .forms = {object()},
                .about = "Images in the data directory: sparse-images-N.tsv, or its binary cache"},
               {.pointer = "/input/graph_challenge/images",
                .forms = {words({"all"}), images},
                .fallback = R"("all")",
                .about = "The first so many; the truth is cut likewise"},
               {.pointer = "/input/idx",
                .forms = {object()},
                .about = "Grey images in MNIST's idx format, resized and thresholded to the "
                         "network's inputs"},
               {.pointer = "/input/idx/path",
                .forms = {text()},
                .about = "An idx file, plain or gzip-compressed",
                .required = true},
               {.pointer = "/input/idx/images",
                .forms = {words({"all"}), images},
                .fallback = R"("all")",
                .about = "The first so many"},
               {.pointer = "/input/digits",
                .forms = {object()},
                .about = "Digits drawn procedurally from the run's seed"},
               {.pointer = "/input/digits/images",
                .forms = {images},
                .fallback = "1000",
                .about = "How many to draw"},
               {.pointer = "/input/path",
                .forms = {text()},
                .about = "One matrix [images x inputs] in a .spdnn, .npz, .mtx or .smtx file"},
               {.pointer = "/input/images",
                .forms = {words({"all"}), images},
                .fallback = R"("all")",
                .about = "The first so many; goes with path",
                .needs = "path"},
               {.pointer = "/input/repeat",
                .forms = {integer(1, 1'000'000)},
                .fallback = "1",
                .about = "The images, and the truth, so many times over"},
           });
}

void add_verify(std::vector<Key>& t) {
  t.insert(t.end(),
           {
               {.pointer = "/verify",
                .forms = {object()},
                .fallback = "{}",
                .about = "What the result is checked against"},
               {.pointer = "/verify/categories",
                .forms = {words({"auto"}), boolean()},
                .fallback = R"("auto")",
                .about = "Compare with the truth file: where there is one, always, or never"},
               {.pointer = "/verify/truth",
                .forms = {text()},
                .about = "A file of category ids in place of the challenge's own"},
               {.pointer = "/verify/sample_against_reference",
                .forms = {integer(0, max_images)},
                .fallback = "64",
                .about = "Images checked layer by layer against the reference; 0 for none"},
           });
}

void add_rest(std::vector<Key>& t) {
  t.insert(t.end(),
           {
               {.pointer = "/cache",
                .forms = {boolean()},
                .fallback = "true",
                .about = "Keep binary caches of text files, and use them"},
               {.pointer = "/save_outputs",
                .forms = {boolean()},
                .fallback = "false",
                .about = "Write the last layer's nonzeros to outputs.tsv"},
               {.pointer = "/comm",
                .forms = {object()},
                .fallback = "{}",
                .about = "How the processes that mpirun or srun started work together"},
               {.pointer = "/comm/backend",
                .forms = {words({"auto", "in_process", "mpi", "nccl"})},
                .fallback = R"("auto")",
                .about = "Whether there may be several processes, or have to be; nccl: GPUs that "
                         "train or share rows are joined by NCCL, as they are with auto where that "
                         "is possible"},
               {.pointer = "/comm/patience_seconds",
                .forms = {above(0.0, 1e6)},
                .fallback = "20",
                .about = "A rank of several processes that makes no progress for so long counts "
                         "as hung, and ends the run"},
               {.pointer = "/require",
                .forms = {object()},
                .fallback = "{}",
                .about = "Bars: a run that misses one ends with status 1"},
               {.pointer = "/require/verified",
                .forms = {boolean()},
                .about = "The result must have been checked and be right"},
               {.pointer = "/require/max_infer_seconds",
                .forms = {above(0.0, 1e12)},
                .about = "Upper bound of seconds.infer"},
               {.pointer = "/require/min_nominal_edges_per_s",
                .forms = {above(0.0, 1e30)},
                .about = "Lower bound of edges_per_s.nominal"},
               {.pointer = "/require/max_host_bytes",
                .forms = {bytes()},
                .about = "Upper bound of peak_bytes.host"},
               {.pointer = "/require/min_accuracy",
                .forms = {number(0.0, 1.0)},
                .about = "Lower bound of accuracy"},
               {.pointer = "/output",
                .forms = {text()},
                .about = "Folder of result.json, relative to the current one; results/NAME by "
                         "default, after the configuration's name"},
           });
}

std::vector<Key> make_keys() {
  std::vector<Key> t{
      {.pointer = "", .forms = {object()}, .about = "What spdnn-gpu run does"},
      {.pointer = "/$schema",
       .forms = {text()},
       .about = "This schema, for editors; not read otherwise"},
      {.pointer = "/job",
       .forms = {words({"infer", "train"})},
       .fallback = R"("infer")",
       .about = "What to do with the network"},
  };
  add_model(t);
  add_radixnet(t);
  add_file_model(t);
  add_input(t);
  add_verify(t);
  add_devices(t);
  add_plan(t);
  add_train(t);
  add_rest(t);
  return t;
}

}  // namespace

const std::vector<Key>& keys() {
  static const std::vector<Key> table = make_keys();
  return table;
}

std::vector<const Key*> children(std::string_view parent) {
  std::vector<const Key*> found;
  for (const Key& key : keys()) {
    if (!key.pointer.empty() && key.parent() == parent) found.push_back(&key);
  }
  return found;
}

const Key& item_of(const Key& list) {
  for (const Key* child : children(list.pointer)) {
    if (child->name() == "*") return *child;
  }
  throw std::logic_error("the table of keys has no items for " + std::string(list.pointer));
}

}  // namespace spdnn::config
