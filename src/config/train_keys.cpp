// The keys of configurations that train: layers, labelled images, and how they are learned.
#include "forms.hpp"

namespace spdnn::config {
namespace {

void add_layers(std::vector<Key>& t) {
  t.insert(
      t.end(),
      {
          {.pointer = "/model/layers",
           .forms = {list(1)},
           .about = "Layers to train, from the first; goes with job train"},
          {.pointer = "/model/layers/*", .forms = {object()}, .about = "A layer, or several alike"},
          {.pointer = "/model/layers/*/kind",
           .forms = {words({"linear", "conv2d", "max_pool", "avg_pool"})},
           .fallback = R"("linear")",
           .about =
               "What the layer computes; convolutions and poolings take planes of features, as "
               "the images or the layer before give them"},
          {.pointer = "/model/layers/*/outputs",
           .forms = {integer(1, max_neurons)},
           .about = "Neurons; linear needs it"},
          {.pointer = "/model/layers/*/out_channels",
           .forms = {integer(1, max_neurons)},
           .about = "Filters; conv2d needs it"},
          {.pointer = "/model/layers/*/kernel",
           .forms = {integer(1, max_kernel)},
           .about = "Places a side of the window; conv2d and poolings need it"},
          {.pointer = "/model/layers/*/stride",
           .forms = {integer(1, max_kernel)},
           .about = "Places from one window to the next; by default 1, of a pooling its kernel"},
          {.pointer = "/model/layers/*/padding",
           .forms = {words({"same"}), integer(0, max_kernel)},
           .about =
               "Places added on each side, or as many as make the output as large as the input "
               "divided by the stride; by default 'same', of a pooling 0"},
          {.pointer = "/model/layers/*/groups",
           .forms = {integer(1, max_neurons)},
           .about = "Of conv2d: filters and channels in so many parts, each of which sees its own "
                    "channels alone; by default 1"},
          {.pointer = "/model/layers/*/count",
           .forms = {integer(1, max_layers)},
           .fallback = "1",
           .about = "So many layers alike, one after the other"},
          {.pointer = "/model/layers/*/topology",
           .forms = {words({"dense", "random", "radixnet", "mask", "magnitude"})},
           .about =
               "Connections: all, random ones (the default), RadiX-Net's, those of a file, or the "
               "largest of the dense layer in train.start_from; not of poolings"},
          {.pointer = "/model/layers/*/density",
           .forms = {above(0.0, 1.0)},
           .about = "Connections of all there could be; random and magnitude need it"},
          {.pointer = "/model/layers/*/fold",
           .forms = {integer(1, max_neurons)},
           .fallback = "16",
           .about = "Of radixnet: every neuron has 2 * fold inputs"},
          {.pointer = "/model/layers/*/mask",
           .forms = {text()},
           .about = "Of mask: a .spdnn file with one matrix [outputs x inputs]"},
          {.pointer = "/model/layers/*/activation",
           .forms = {words({"relu", "identity"})},
           .about = "What follows the sums, relu by default; not of poolings"},
          {.pointer = "/model/layers/*/clip",
           .forms = {above(0.0, max_weight)},
           .about = "Upper bound of the activation, none by default"},
          {.pointer = "/model/density_rule",
           .forms = {words({"as_given", "erdos_renyi"})},
           .fallback = R"("as_given")",
           .about = "Densities of random layers as given, or their connections spread in "
                    "proportion to inputs + outputs",
           .needs = "layers"},
          {.pointer = "/input/mnist",
           .forms = {text()},
           .about = "A folder with MNIST's four files, or others in its format: "
                    "train-images-idx3-ubyte and so on, plain or .gz; job infer runs the test "
                    "images and compares outputs with labels"},
          {.pointer = "/input/cifar10",
           .forms = {text()},
           .about =
               "A folder with CIFAR-10's binary batches, plain or .gz; job infer runs the test "
               "images and compares outputs with labels"},
      });
}

void add_tsv(std::vector<Key>& t) {
  t.insert(t.end(),
           {
               {.pointer = "/input/tsv",
                .forms = {object()},
                .about = "Labelled samples of any kind, as text; job infer runs the test "
                         "samples and compares outputs with labels"},
               {.pointer = "/input/tsv/features",
                .forms = {integer(1, max_neurons)},
                .about = "Features of a sample",
                .required = true},
               {.pointer = "/input/tsv/classes",
                .forms = {integer(1, max_neurons)},
                .about = "Classes; by default one more than the largest label of the "
                         "samples"},
               {.pointer = "/input/tsv/samples",
                .forms = {text()},
                .about = "Lines of sample, feature (both from 1) and value; "
                         "features not named are 0",
                .required = true},
               {.pointer = "/input/tsv/labels",
                .forms = {text()},
                .about = "One label a line, from 0, as many as there are samples",
                .required = true},
               {.pointer = "/input/tsv/test_samples",
                .forms = {text()},
                .about = "As samples: what the network is measured by"},
               {.pointer = "/input/tsv/test_labels", .forms = {text()}, .about = "Their labels"},
           });
}

void add_loop(std::vector<Key>& t) {
  t.insert(t.end(),
           {
               {.pointer = "/train",
                .forms = {object()},
                .about = "How to learn; required for job train, and goes with it"},
               {.pointer = "/train/epochs",
                .forms = {integer(1, 1'000'000)},
                .fallback = "10",
                .about = "Times that every training image is seen"},
               {.pointer = "/train/batch",
                .forms = {integer(1, max_images)},
                .fallback = "128",
                .about = "Images of one step, all ranks together"},
               {.pointer = "/train/loss",
                .forms = {words({"cross_entropy", "mean_squared_error"})},
                .fallback = R"("cross_entropy")",
                .about = "What to make small"},
               {.pointer = "/train/validation_images",
                .forms = {integer(0, max_images)},
                .fallback = "0",
                .about = "Training images held out, chosen by the seed, to measure each epoch"},
               {.pointer = "/train/patience",
                .forms = {integer(1, 1'000'000)},
                .about = "Stop after so many epochs without a smaller loss of the validation "
                         "images"},
               {.pointer = "/train/restore_best",
                .forms = {boolean()},
                .fallback = "false",
                .about = "End with the parameters of the epoch whose validation loss was smallest"},
               {.pointer = "/train/start_from",
                .forms = {text()},
                .about = "A checkpoint whose weights training starts from"},
               {.pointer = "/train/input_split",
                .forms = {words({"auto", "never", "every_second"})},
                .fallback = R"("auto")",
                .about = "Layers of ranks that share rows to be split by inputs, so that sums of "
                         "theirs cross and not what they read: auto where that is modelled to be "
                         "faster; never keeps the bits of one rank on the way forward"},
               {.pointer = "/train/link",
                .forms = {object()},
                .fallback = "{}",
                .about = "A declared link of each rank of one process to the others, so that they "
                         "behave as on several machines"},
               {.pointer = "/train/link/latency_s",
                .forms = {number(0.0, 60.0)},
                .fallback = "0",
                .about = "From when a message has gone through until it is there"},
               {.pointer = "/train/link/bytes_per_s",
                .forms = {words({"unlimited"}), above(0.0, 1e15)},
                .fallback = R"("unlimited")",
                .about = "What a rank can send"},
               {.pointer = "/train/rebalance",
                .forms = {words({"auto"}), boolean()},
                .fallback = R"("auto")",
                .about = "Let shares that go by speed follow the times that steps take; auto where "
                         "devices are unlike. Equal devices without it give equal bits each time"},
               {.pointer = "/train/rewire",
                .forms = {object()},
                .fallback = "{}",
                .about = "Connections that change while the network learns"},
               {.pointer = "/train/rewire/method",
                .forms = {words({"none", "set", "rigl"})},
                .fallback = R"("none")",
                .about = "Drop the smallest, and grow at random (set) or where the gradient is "
                         "largest (rigl)"},
               {.pointer = "/train/rewire/every_steps",
                .forms = {integer(1, max_seed)},
                .fallback = "100",
                .about = "Steps from one change to the next"},
               {.pointer = "/train/rewire/fraction",
                .forms = {above(0.0, 1.0)},
                .fallback = "0.3",
                .about = "Part of a layer's connections to change, falling to 0 by a cosine"},
               {.pointer = "/train/rewire/until",
                .forms = {above(0.0, 1.0)},
                .fallback = "0.75",
                .about = "Part of all steps after which connections stay"},
               {.pointer = "/train/loss_scale",
                .forms = {object()},
                .fallback = "{}",
                .about = "With precision fp16: what losses are multiplied by, so that small "
                         "gradients are kept; halved where some overflow, whose step is left out"},
               {.pointer = "/train/loss_scale/first",
                .forms = {number(1.0, 0x1p100)},
                .fallback = "65536",
                .about = "In the first step; a power of two changes no bits of what fits"},
               {.pointer = "/train/loss_scale/every_steps",
                .forms = {integer(1, max_seed)},
                .fallback = "2000",
                .about = "Steps without an overflow, after which it doubles"},
               {.pointer = "/train/checkpoint",
                .forms = {object()},
                .fallback = "{}",
                .about = "Checkpoints, in the output folder"},
               {.pointer = "/train/checkpoint/every_epochs",
                .forms = {integer(1, 1'000'000)},
                .fallback = "1",
                .about = "Epochs from one to the next; the last epoch always has one"},
               {.pointer = "/train/checkpoint/keep_last",
                .forms = {integer(1, 1'000'000)},
                .fallback = "2",
                .about = "How many to keep"},
           });
}

void add_optimizer(std::vector<Key>& t) {
  t.insert(t.end(),
           {
               {.pointer = "/train/optimizer",
                .forms = {object()},
                .fallback = "{}",
                .about = "What to do with gradients"},
               {.pointer = "/train/optimizer/kind",
                .forms = {words({"sgd", "momentum", "nesterov", "adam", "adamw"})},
                .fallback = R"("adam")",
                .about = "Optimiser"},
               {.pointer = "/train/optimizer/rate",
                .forms = {above(0.0, 1e6)},
                .fallback = "0.001",
                .about = "Length of a step, before the schedule"},
               {.pointer = "/train/optimizer/momentum",
                .forms = {number(0.0, 1.0)},
                .fallback = "0.9",
                .about = "Of momentum and nesterov"},
               {.pointer = "/train/optimizer/beta1",
                .forms = {number(0.0, 0.999999)},
                .fallback = "0.9",
                .about = "Of adam and adamw: decay of the mean gradient"},
               {.pointer = "/train/optimizer/beta2",
                .forms = {number(0.0, 0.999999)},
                .fallback = "0.999",
                .about = "Of adam and adamw: decay of the mean squared gradient"},
               {.pointer = "/train/optimizer/epsilon",
                .forms = {above(0.0, 1.0)},
                .fallback = "1e-8",
                .about = "Of adam and adamw: added to the root of the mean square"},
               {.pointer = "/train/optimizer/weight_decay",
                .forms = {number(0.0, 1e6)},
                .fallback = "0",
                .about = "Pull of the weights to 0; of adamw apart from the gradient; biases have "
                         "none"},
               {.pointer = "/train/optimizer/clip_norm",
                .forms = {above(0.0, max_weight)},
                .about = "Longest gradient of all parameters together; longer ones are scaled"},
               {.pointer = "/train/schedule",
                .forms = {object()},
                .fallback = "{}",
                .about = "The rate over time"},
               {.pointer = "/train/schedule/kind",
                .forms = {words({"constant", "step", "cosine"})},
                .fallback = R"("constant")",
                .about = "How the rate falls"},
               {.pointer = "/train/schedule/warmup_epochs",
                .forms = {number(0.0, 1e6)},
                .fallback = "0",
                .about = "Epochs in which the rate rises from 0"},
               {.pointer = "/train/schedule/every_epochs",
                .forms = {integer(1, 1'000'000)},
                .fallback = "10",
                .about = "Of step: epochs from one fall to the next"},
               {.pointer = "/train/schedule/factor",
                .forms = {above(0.0, 1.0)},
                .fallback = "0.1",
                .about = "Of step: what the rate is multiplied by"},
               {.pointer = "/train/schedule/last",
                .forms = {number(0.0, 1.0)},
                .fallback = "0",
                .about = "Of cosine: the last rate, as a part of the first"},
           });
}

}  // namespace

void add_train(std::vector<Key>& table) {
  add_layers(table);
  add_tsv(table);
  add_loop(table);
  add_optimizer(table);
}

}  // namespace spdnn::config
