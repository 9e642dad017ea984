// Stockham's self-sorting transform for lengths with small factors; Bluestein's convolution with a
// chirp, padded to a power of two, for all others.
#include "fft.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <numbers>
#include <utility>

namespace spdnn {
namespace {

constexpr std::array<int, 5> kRadices{4, 2, 3, 5, 7};

/// The factors of n among the radices; empty when others are left.
std::vector<int> small_factors(std::int64_t n) {
  std::vector<int> factors;
  for (const int radix : kRadices) {
    for (; n % radix == 0; n /= radix) factors.push_back(radix);
  }
  return n == 1 ? factors : std::vector<int>{};
}

/// In-place transform of P values, P odd: pairs j and P − j share their products.
template <int P>
void butterfly(std::array<Complex, P>& a, const std::array<Complex, P>& roots) {
  constexpr int kHalf = P / 2;
  std::array<Complex, kHalf> sum, difference;
  Complex total = a[0];
  for (int j = 1; j <= kHalf; ++j) {
    sum[j - 1] = a[j] + a[P - j];
    difference[j - 1] = a[j] - a[P - j];
    total = total + sum[j - 1];
  }
  const Complex first = a[0];
  a[0] = total;
  for (int m = 1; m <= kHalf; ++m) {
    Complex even = first;
    Complex odd;
    for (int j = 1; j <= kHalf; ++j) {
      const Complex root = roots[j * m % P];
      even = even + root.re * sum[j - 1];
      odd = odd + root.im * difference[j - 1];
    }
    const Complex turned{-odd.im, odd.re};
    a[m] = even + turned;
    a[P - m] = even - turned;
  }
}
template <>
void butterfly<2>(std::array<Complex, 2>& a, const std::array<Complex, 2>&) {
  a = {a[0] + a[1], a[0] - a[1]};
}
template <>
void butterfly<4>(std::array<Complex, 4>& a, const std::array<Complex, 4>&) {
  const Complex even = a[0] + a[2];
  const Complex even_difference = a[0] - a[2];
  const Complex odd = a[1] + a[3];
  const Complex odd_difference = a[1] - a[3];
  const Complex turned{odd_difference.im, -odd_difference.re};
  a = {even + odd, even_difference + turned, even - odd, even_difference - turned};
}

/// One stage: `stride` interleaved transforms whose length n / stride is cut by P.
template <int P>
void stage(const Complex* from, Complex* to, std::int64_t n, std::int64_t stride,
           const Complex* roots) {
  const std::int64_t rest = n / stride / P;
  std::array<Complex, P> small_roots;
  for (int j = 0; j < P; ++j) small_roots[j] = roots[j * (n / P)];
  for (std::int64_t p = 0; p < rest; ++p) {
    std::array<Complex, P> twiddles;
    for (int j = 0; j < P; ++j) twiddles[j] = roots[p * j * stride];
    for (std::int64_t q = 0; q < stride; ++q) {
      std::array<Complex, P> a;
      for (int j = 0; j < P; ++j) a[j] = from[q + stride * (p + rest * j)];
      butterfly<P>(a, small_roots);
      to[q + stride * P * p] = a[0];
      for (int j = 1; j < P; ++j) to[q + stride * (P * p + j)] = a[j] * twiddles[j];
    }
  }
}

}  // namespace

Complex unit_root(std::int64_t numerator, std::int64_t denominator) {
  const std::int64_t reduced = (numerator % denominator + denominator) % denominator;
  const double angle =
      2.0 * std::numbers::pi * static_cast<double>(reduced) / static_cast<double>(denominator);
  return {std::cos(angle), std::sin(angle)};
}

Fft::Fft(std::int64_t n) : n_(n), factors_(small_factors(n)) {
  if (!factors_.empty() || n == 1) {
    roots_.resize(static_cast<std::size_t>(n));
    for (std::int64_t k = 0; k < n; ++k) roots_[k] = unit_root(-k, n);
    return;
  }
  const auto padded = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(2 * n)));
  padded_ = std::make_unique<Fft>(padded);
  chirp_.resize(static_cast<std::size_t>(n));
  chirp_spectrum_.resize(static_cast<std::size_t>(padded));
  std::int64_t square = 0;  // k² modulo 2n
  for (std::int64_t k = 0; k < n; ++k) {
    chirp_[k] = unit_root(-square, 2 * n);
    chirp_spectrum_[k] = conjugate(chirp_[k]);
    if (k > 0) chirp_spectrum_[padded - k] = chirp_spectrum_[k];
    square = (square + 2 * k + 1) % (2 * n);
  }
  std::vector<Complex> scratch;
  padded_->forward(chirp_spectrum_, scratch);
}

void Fft::forward(std::vector<Complex>& data, std::vector<Complex>& scratch) const {
  if (padded_) {
    by_chirp(data, scratch);
  } else {
    by_factors(data, scratch);
  }
}

void Fft::by_factors(std::vector<Complex>& data, std::vector<Complex>& scratch) const {
  scratch.resize(data.size());
  std::int64_t stride = 1;
  for (const int radix : factors_) {
    const auto run = radix == 2   ? stage<2>
                     : radix == 3 ? stage<3>
                     : radix == 4 ? stage<4>
                     : radix == 5 ? stage<5>
                                  : stage<7>;
    run(data.data(), scratch.data(), n_, stride, roots_.data());
    data.swap(scratch);
    stride *= radix;
  }
}

void Fft::by_chirp(std::vector<Complex>& data, std::vector<Complex>& scratch) const {
  const std::size_t padded = chirp_spectrum_.size();
  std::vector<Complex> product(padded);
  for (std::int64_t k = 0; k < n_; ++k) product[k] = data[k] * chirp_[k];
  padded_->forward(product, scratch);
  // The inverse transform is the forward one between two conjugations.
  for (std::size_t k = 0; k < padded; ++k) product[k] = conjugate(product[k] * chirp_spectrum_[k]);
  padded_->forward(product, scratch);
  const double scale = 1.0 / static_cast<double>(padded);
  for (std::int64_t k = 0; k < n_; ++k) data[k] = scale * (conjugate(product[k]) * chirp_[k]);
}

}  // namespace spdnn
