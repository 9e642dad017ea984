// Forward and backward of sparse layers on panels, vectorised over the images. A piece of work is a
// run of rows or columns with all images, a strip of them after the other.
//
// forward and backward_data are one loop: a row (of W, or of Wᵀ through its CSC view) sums its
// entries' activations. Bytes for an entry and 16 images: 64 of activations, from the second-level
// cache, which a strip fits up to 4096 features; the floor is that cache's load rate. Wᵀ's values
// are gathered into CSC order, which neighbouring columns do from the same cache lines.
//
// backward_weights multiplies a row of dZ, which stays in registers, by the rows of X that its
// entries name, and adds up the lanes of a vector's worth of entries at once. The floor is the
// same.
//
// backward does both: a column of W keeps its row of X in registers, and every row of dZ that its
// entries name is loaded once, multiplied by the value for dX and by X for dW. Two multiply–adds a
// load: the floor is the rate of multiply–adds. dW is scattered from CSC order at the end; to do so
// between the products would keep loads waiting for stores.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/train_sparse.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "cpu/cpu_kernels.hpp"
#include "cpu/train_dispatch.hpp"
#include "cpu/train_lanes.hpp"
#include "cpu/train_strips.hpp"

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {
namespace {

/// A matrix by rows, as one direction of a pattern sees it.
template <class T>
struct Lists {
  std::int64_t rows;
  const std::int64_t* offsets;
  const std::uint32_t* indices;
  const T* values;
};

/// x86 before AVX-512 has 16 vector registers, the other targets have 32.
constexpr bool kFewRegisters = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3;
/// Sums that a row keeps for each vector, of entries in turn: enough additions in flight to hide
/// their latency where there are few vectors. As many for any number of vectors, so that an image's
/// sums are the same whoever stands beside it.
constexpr int kChains = HWY_TARGET == HWY_SCALAR || kFewRegisters ? 1 : 2;

/// A row's sums.
template <int kVectors, class T>
struct Sums {
  Vec<T> chain[kChains][kVectors];
  HWY_INLINE Sums() {
    for (auto& vectors : chain) {
      for (Vec<T>& v : vectors) v = hn::Zero(Tag<T>());
    }
  }
  [[nodiscard]] HWY_INLINE Vec<T> operator[](int v) const {
    Vec<T> sum = chain[0][v];
    for (int c = 1; c < kChains; ++c) sum = hn::Add(sum, chain[c][v]);
    return sum;
  }
};

/// y = h(sum + bias), the end of a forward sum.
template <int kVectors, class T>
struct ActivationStore {
  ActivationStore(const ForwardArgs<T>& args, std::int64_t first)
      : y(strip_of<kVectors>(args.y, first)),
        bias(args.layer.bias),
        width(args.y.width),
        lower(hn::Set(Tag<T>(), T{args.activation.lower})),
        upper(hn::Set(Tag<T>(), T{args.activation.upper})) {}
  Strip<kVectors, T> y;
  const T* bias;
  std::int64_t width;
  Vec<T> lower, upper;
  HWY_INLINE void operator()(std::int64_t row, const Sums<kVectors, T>& sums) const {
    const Tag<T> d;
    const auto b = hn::Set(d, bias[row]);
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(hn::Min(hn::Max(hn::Add(sums[v], b), lower), upper), d, y(row * width, v));
    }
  }
};

/// dx = sum where x lies between the bounds of its activation, else 0: the end of a backward sum.
template <int kVectors, class T>
struct MaskedStore {
  MaskedStore(const BackwardDataArgs<T>& args, std::int64_t first)
      : x(strip_of<kVectors>(args.x, first)),
        dx(strip_of<kVectors>(args.dx, first)),
        width(args.x.width),
        lower(hn::Set(Tag<T>(), T{args.activation.lower})),
        upper(hn::Set(Tag<T>(), T{args.activation.upper})) {}
  Strip<kVectors, const T> x;
  Strip<kVectors, T> dx;
  std::int64_t width;
  Vec<T> lower, upper;
  HWY_INLINE void operator()(std::int64_t row, const Sums<kVectors, T>& sums) const {
    const Tag<T> d;
    for (int v = 0; v < kVectors; ++v) {
      const auto at = hn::LoadU(d, x(row * width, v));
      const auto inside = hn::And(hn::Gt(at, lower), hn::Lt(at, upper));
      hn::StoreU(hn::IfThenElseZero(inside, sums[v]), d, dx(row * width, v));
    }
  }
};

/// The sums of some rows for the images of a strip.
template <int kVectors, class T, class Store>
void sum_rows(const Lists<T>& lists, Range rows, const Panels<const T>& in, std::int64_t first,
              const Store& store) {
  const Tag<T> d;
  const Strip<kVectors, const T> strip = strip_of<kVectors>(in, first);
  const std::int64_t width = in.width;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    Sums<kVectors, T> sums;
    const auto add = [&](std::int64_t k, Vec<T>(&chain)[kVectors]) HWY_ATTR {
      const std::int64_t from = std::int64_t{lists.indices[k]} * width;
      const auto value = hn::Set(d, lists.values[k]);
      for (int v = 0; v < kVectors; ++v) {
        chain[v] = hn::MulAdd(value, hn::LoadU(d, strip(from, v)), chain[v]);
      }
    };
    std::int64_t k = lists.offsets[row];
    const std::int64_t end = lists.offsets[row + 1];
    for (; k + kChains <= end; k += kChains) {
      for (int c = 0; c < kChains; ++c) add(k + c, sums.chain[c]);
    }
    for (; k < end; ++k) add(k, sums.chain[0]);
    store(row, sums);
  }
}

/// Sums all rows for all images on a team. `prepare(rows)` comes before a piece, what follows the
/// sums of a strip is `Store<vectors, T>(args, first)`, and `out` is where it puts them.
template <template <int, class> class Store, class T, class Args, class Prepare>
void sum_strips(const Lists<T>& lists, const Panels<const T>& in, const Args& args,
                const Panels<T>& out, ThreadTeam& team, const Prepare& prepare) {
  const std::int64_t used = vectors_used(in);
  const Pieces pieces = pieces_of(lists.rows, lists.offsets, in.features, team.size());
  team.parallel_for(pieces.count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const Range rows = pieces[piece];
      prepare(rows);
      for_strips(used, [&]<int kVectors>(std::int64_t first) {
        const Store<kVectors, T> store(args, first);
        sum_rows<kVectors>(lists, rows, in, first, store);
      });
      clear_unused(out, rows);
    }
  });
}

template <class T>
void forward(const ForwardArgs<T>& args, ThreadTeam& team) {
  const PatternView& w = args.layer.pattern;
  const Lists<T> lists = {w.rows, w.row_offsets, w.col_indices, args.layer.values};
  sum_strips<ActivationStore>(lists, args.x, args, args.y, team, [](Range /*rows*/) {});
}

/// Brings the values of some columns into CSC order; returns which entries these are.
template <class T>
Range gather_values(const BackwardDataArgs<T>& args, Range cols) {
  const PatternView& w = args.layer.pattern;
  const Range entries = {w.col_offsets[cols.begin], w.col_offsets[cols.end]};
  for (std::int64_t k = entries.begin; k < entries.end; ++k) {
    args.workspace[k] = args.layer.values[w.entries[k]];
  }
  return entries;
}

template <class T>
void backward_data(const BackwardDataArgs<T>& args, ThreadTeam& team) {
  const PatternView& w = args.layer.pattern;
  const Lists<T> lists = {w.cols, w.col_offsets, w.row_indices, args.workspace};
  sum_strips<MaskedStore>(lists, args.dz, args, args.dx, team,
                          [&](Range cols) { gather_values(args, cols); });
}

/// Adds lanes `[0, kCount)` of `sums` to what `to` holds, or puts them there.
template <int kCount, class T>
HWY_INLINE void put(Vec<T> sums, bool add, T* to) {
  const Tag<T> d;
  if constexpr (kCount == kLanes<T>) {
    if (add) sums = hn::Add(sums, hn::LoadU(d, to));
    hn::StoreU(sums, d, to);
  } else {
    HWY_ALIGN T lanes[kLanes<T>];
    hn::Store(sums, d, lanes);
    for (int i = 0; i < kCount; ++i) to[i] = (add ? to[i] : T{0}) + lanes[i];
  }
}

/// Puts the sums over the lanes of `of(k, i)`, k in `[begin, end)` and called in this order, to
/// `to[k]`, or adds them to what is there. i is known as this is compiled, and even where k - begin
/// is.
template <class T, class Of>
HWY_INLINE void put_sums(std::int64_t begin, std::int64_t end, bool add, T* to, const Of& of) {
  constexpr int kFew = HWY_MIN(4, kLanes<T>);
  constexpr int kTwo = HWY_MIN(2, kLanes<T>);
  std::int64_t k = begin;
  const auto next = [&](int i) HWY_ATTR { return of(k + i, i); };
  for (; k + kLanes<T> <= end; k += kLanes<T>) {
    put<kLanes<T>>(sums_of<kLanes<T>, T>(next), add, to + k);
  }
  for (; k + kFew <= end; k += kFew) put<kFew>(sums_of<kFew, T>(next), add, to + k);
  for (; k + kTwo <= end; k += kTwo) put<kTwo>(sums_of<kTwo, T>(next), add, to + k);
  for (; k < end; ++k) put<1>(sums_of<1, T>(next), add, to + k);
}

/// The products of some rows of dZ and X for the images of a strip.
template <int kVectors, class T>
void multiply_rows(const BackwardWeightsArgs<T>& args, Range rows, std::int64_t first) {
  const Tag<T> d;
  const PatternView& w = args.pattern;
  const Strip<kVectors, const T> x = strip_of<kVectors>(args.x, first);
  const Strip<kVectors, const T> dz = strip_of<kVectors>(args.dz, first);
  const std::int64_t width = args.x.width;
  const std::uint32_t* const cols = w.col_indices;
  const bool adds_up = args.gradient.adds_up || first > 0;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    Vec<T> dz_row[kVectors];
    for (int v = 0; v < kVectors; ++v) dz_row[v] = hn::LoadU(d, dz(row * width, v));
    put_sums(w.row_offsets[row], w.row_offsets[row + 1], adds_up, args.gradient.values,
             [&](std::int64_t k, int /*i*/) HWY_ATTR {
               const std::int64_t from = std::int64_t{cols[k]} * width;
               auto sum = hn::Mul(dz_row[0], hn::LoadU(d, x(from, 0)));
               for (int v = 1; v < kVectors; ++v) {
                 sum = hn::MulAdd(dz_row[v], hn::LoadU(d, x(from, v)), sum);
               }
               return sum;
             });
  }
}

template <class T>
void backward_weights(const BackwardWeightsArgs<T>& args, ThreadTeam& team) {
  const PatternView& w = args.pattern;
  const bool is_zero = args.x.batch == 0 && !args.gradient.adds_up;
  if (is_zero) std::fill_n(args.gradient.values, w.nnz, T{0});
  const std::int64_t used = vectors_used(args.x);
  const Pieces pieces = pieces_of(w.rows, w.row_offsets, w.cols, team.size());
  team.parallel_for(pieces.count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const Range rows = pieces[piece];
      for_strips(used, [&]<int kVectors>(std::int64_t first) {
        multiply_rows<kVectors>(args, rows, first);
      });
      sum_bias(args.dz, rows, args.gradient);
    }
  });
}

/// Loads a vector that several operations use. g++ would put the load into each of them, and loads
/// are what these kernels have too many of.
template <class T>
HWY_INLINE Vec<T> load_once(const T* from) {
  auto v = hn::LoadU(Tag<T>(), from);
#if HWY_COMPILER_GCC && HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
  asm("" : "+v"(v.raw));
#endif
  return v;
}

/// Both gradients of some columns, whose values are gathered, for the images of a strip. `sums` are
/// dW in CSC order, or where it `adds_up` become that.
template <int kVectors, class T>
void multiply_columns(const BackwardDataArgs<T>& args, Range cols, std::int64_t first, bool adds_up,
                      T* sums) {
  const Tag<T> d;
  const PatternView& w = args.layer.pattern;
  const Strip<kVectors, const T> x = strip_of<kVectors>(args.x, first);
  const Strip<kVectors, const T> dz = strip_of<kVectors>(args.dz, first);
  const MaskedStore<kVectors, T> store(args, first);
  const std::int64_t width = args.x.width;
  const std::uint32_t* const rows = w.row_indices;
  const T* const values = args.workspace;
  for (std::int64_t col = cols.begin; col < cols.end; ++col) {
    Vec<T> x_row[kVectors];
    for (int v = 0; v < kVectors; ++v) x_row[v] = hn::LoadU(d, x(col * width, v));
    Sums<kVectors, T> dx;
    put_sums(w.col_offsets[col], w.col_offsets[col + 1], adds_up, sums,
             [&](std::int64_t k, int i) HWY_ATTR {
               const std::int64_t from = std::int64_t{rows[k]} * width;
               const auto value = hn::Set(d, values[k]);
               auto& chain = dx.chain[i % kChains];
               auto dz_row = load_once(dz(from, 0));
               auto sum = hn::Mul(x_row[0], dz_row);
               chain[0] = hn::MulAdd(value, dz_row, chain[0]);
               for (int v = 1; v < kVectors; ++v) {
                 dz_row = load_once(dz(from, v));
                 sum = hn::MulAdd(x_row[v], dz_row, sum);
                 chain[v] = hn::MulAdd(value, dz_row, chain[v]);
               }
               return sum;
             });
    store(col, dx);
  }
}

template <class T>
void backward(const BackwardDataArgs<T>& args, const ParameterGradient<T>& gradient,
              ThreadTeam& team) {
  const PatternView& w = args.layer.pattern;
  T* const sums = args.workspace + w.nnz;
  const std::int64_t used = vectors_used(args.x);
  const Pieces pieces = pieces_of(w.cols, w.col_offsets, w.rows, team.size());
  team.parallel_for(pieces.count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const Range cols = pieces[piece];
      const Range entries = gather_values(args, cols);
      if (gradient.adds_up || used == 0) {
        for (std::int64_t k = entries.begin; k < entries.end; ++k) {
          sums[k] = gradient.adds_up ? gradient.values[w.entries[k]] : T{0};
        }
      }
      for_strips(used, [&]<int kVectors>(std::int64_t first) {
        multiply_columns<kVectors>(args, cols, first, gradient.adds_up || first > 0, sums);
      });
      clear_unused(args.dx, cols);
      for (std::int64_t k = entries.begin; k < entries.end; ++k) {
        gradient.values[w.entries[k]] = sums[k];
      }
      sum_bias(args.dz, {w.rows * piece / pieces.count, w.rows * (piece + 1) / pieces.count},
               gradient);
    }
  });
}

}  // namespace

SPDNN_LINEAR_TARGETS(sparse)
void sparse_backward_f32(const BackwardDataArgs<float>& args,
                         const ParameterGradient<float>& gradient, ThreadTeam& team) {
  backward(args, gradient, team);
}
void sparse_backward_f64(const BackwardDataArgs<double>& args,
                         const ParameterGradient<double>& gradient, ThreadTeam& team) {
  backward(args, gradient, team);
}

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
namespace {
HWY_EXPORT(sparse_backward_f32);
HWY_EXPORT(sparse_backward_f64);
}  // namespace
SPDNN_LINEAR_EXPORT(sparse)
SPDNN_LINEAR_TABLE(train_sparse_cpu, sparse, float, f32,
                   [](const BackwardDataArgs<float>& args, const ParameterGradient<float>& gradient,
                      Stream& stream) {
                     HWY_DYNAMIC_DISPATCH(sparse_backward_f32)(args, gradient, stream.team());
                   })
SPDNN_LINEAR_TABLE(train_sparse_cpu, sparse, double, f64,
                   [](const BackwardDataArgs<double>& args,
                      const ParameterGradient<double>& gradient, Stream& stream) {
                     HWY_DYNAMIC_DISPATCH(sparse_backward_f64)(args, gradient, stream.team());
                   })
}  // namespace spdnn
#endif  // HWY_ONCE
