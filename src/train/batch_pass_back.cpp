// The way back of a batch on one rank, between the exchanges with the others.
#include "batch_pass.hpp"
#include "panel_cut.hpp"
#include "room.hpp"

namespace spdnn::train {

/// The gradient by the inputs of a layer, and what of it belongs to others on its way.
template <class T>
void BatchPass<T>::backward_data_of(std::size_t layer, Range chunk) {
  const Halo& halo = shard_.halos[layer];
  const Panels<T> below = delta(layer - 1);
  const Panels<T> partials =
      halo.in_place ? below
                    : Panels<T>{partials_.template as<T>(), halo.inputs, x_.batch, width_, nullptr};
  const Panels<const T> dz = sums_[layer] != nullptr ? parts_of(layer) : delta(layer);
  train::backward_data(network_.layers()[layer], kernels_, view(layer), cut(dz, chunk),
                       activation_of(layer - 1), cut(input_of(layer), chunk), cut(partials, chunk),
                       workspace_.template as<T>(), network_.stream());
  if (exchanges_[layer] != nullptr) {
    exchanges_[layer]->start_backward(partials, below, chunk, network_.stream());
  }
}

template <class T>
void BatchPass<T>::backward(const Visit& visit, bool adds_up) {
  this->images_backward_ += x_.batch;
  adds_up_ = adds_up;
  if (visit) return backward_layers(visit);
  run_kept({false, x_.batch, Loss::cross_entropy, W{0}, adds_up}, [&] { backward_layers({}); });
}

/// Where the gradient by a layer's parameters goes.
template <class T>
ParameterGradient<T> BatchPass<T>::gradient_of(std::size_t layer) const {
  W* const all = network_.gradient();
  return {all + network_.values_of(layer).begin, all + network_.biases_of(layer).begin, adds_up_};
}

/// Both gradients of a layer whose inputs and outputs are all here.
template <class T>
void BatchPass<T>::backward_at_once(std::size_t layer) {
  train::backward(network_.layers()[layer], kernels_,
                  {view(layer),
                   delta(layer),
                   network_.layers()[layer - 1].activation,
                   input_of(layer),
                   delta(layer - 1),
                   workspace_.template as<T>(),
                   {}},
                  gradient_of(layer), network_.stream());
}

/// The gradient by the weights comes last, while what belongs to others travels.
template <class T>
void BatchPass<T>::backward_in_chunks(std::size_t layer, const std::vector<Range>& chunks) {
  Stream& stream = network_.stream();
  const bool is_last = layer + 1 == network_.layers().size();
  const auto& sums = sums_[layer];
  for (const Range& chunk : chunks) {
    if (!is_last && exchanges_[layer + 1] != nullptr) {
      exchanges_[layer + 1]->finish_backward(delta(layer), chunk, stream);
    }
    if (sums != nullptr) {
      sums->start_gradient(delta(layer), parts_of(layer), chunk, stream);
    } else if (layer > 0) {
      backward_data_of(layer, chunk);
    }
  }
  for (const Range& chunk : chunks) {
    if (sums == nullptr) break;
    sums->finish_gradient(parts_of(layer), chunk, stream);
    backward_data_of(layer, chunk);
  }
  backward_weights_of(layer);
}

/// Of some units of a layer, whose panels have no others.
template <class T>
Panels<const T> BatchPass<T>::delta_of_units(std::size_t layer, Range units) {
  const Panels<T> all = delta(layer);
  const std::int64_t each = network_.layers()[layer].features_per_unit();
  if (units.size() * each == all.features) return all;
  Panels<T> part = {nullptr, units.size() * each, all.batch, all.width, nullptr};
  const std::size_t bytes = static_cast<std::size_t>(part.size()) * sizeof(T);
  part.data = static_cast<T*>(ensure(network_.device(), cut_, bytes));
  for (std::int64_t panel = 0; panel < part.count(); ++panel) {
    network_.stream().copy(part.panel(panel), all.panel(panel) + units.begin * each * all.width,
                           static_cast<std::size_t>(part.features * part.width) * sizeof(T));
  }
  return part;
}

/// What a layer reads under another halo than its own, in memory that `whole` then is.
template <class T>
Panels<const T> BatchPass<T>::whole_input(std::size_t layer, const Halo& halo, Buffer& whole) {
  const Panels<const T> own = output_of(layer - 1);
  Panels<T> all = {nullptr, halo.inputs, own.batch, own.width, nullptr};
  Stream& stream = network_.stream();
  whole = network_.device().allocate(static_cast<std::size_t>(all.size()) * sizeof(T));
  all.data = whole.template as<T>();
  Exchange exchange(halo, *comm_, network_.device(), stream, own.batch);
  exchange.start_forward(own, all, {0, own.count()}, stream);
  exchange.finish_forward(all, {0, own.count()}, stream);
  return all;
}

template <class T>
void BatchPass<T>::backward_layers(const Visit& visit) {
  const std::vector<Range> parts = chunks();
  for (std::size_t l = network_.layers().size(); l-- > 0;) {
    if (l > 0 && !exchanges()) {
      backward_at_once(l);
    } else {
      backward_in_chunks(l, parts);
    }
    if (!visit) continue;
    if (exchanges_[l] != nullptr) exchanges_[l]->send_now(network_.stream());
    visit(l, [&](const TrainLayer& as, std::int64_t first, const Halo* halo, W* dvalues, W* dbias) {
      Buffer whole;
      const Panels<const T> x = halo == nullptr ? input_of(l) : whole_input(l, *halo, whole);
      const Panels<const T> dz = delta_of_units(l, {first, first + as.units()});
      train::backward_weights(as, kernels_, as.pattern.view(), dz, x, {dvalues, dbias},
                              network_.stream());
    });
  }
}

template <class T>
void BatchPass<T>::backward_weights_of(std::size_t layer) {
  const Panels<const T> dz = sums_[layer] != nullptr ? parts_of(layer) : delta(layer);
  const ParameterGradient<T> gradient = gradient_of(layer);
  train::backward_weights(network_.layers()[layer], kernels_, network_.view(layer).pattern, dz,
                          input_of(layer), gradient, network_.stream());
  if (sums_[layer] == nullptr) return;
  // The biases of other ranks' units are theirs; here they stay 0.
  const auto own = std::ssize(shard_.units[layer]);
  network_.stream().zero(
      gradient.bias + own,
      static_cast<std::size_t>(network_.biases_of(layer).size() - own) * sizeof(W));
}

template void BatchPass<float>::backward(const AnyBatchPass<float>::Visit&, bool);
template void BatchPass<double>::backward(const AnyBatchPass<double>::Visit&, bool);
template void BatchPass<Half>::backward(const AnyBatchPass<float>::Visit&, bool);
template void BatchPass<Bfloat16>::backward(const AnyBatchPass<float>::Visit&, bool);

}  // namespace spdnn::train
