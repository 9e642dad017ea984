// Discrete Fourier transforms of any length, in double precision.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace spdnn {

/// A complex number with the plain product, which `std::complex` gives only under fast-math flags.
struct Complex {
  double re = 0.0, im = 0.0;
  friend Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
  friend Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
  friend Complex operator*(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
  }
  friend Complex operator*(double s, Complex a) { return {s * a.re, s * a.im}; }
};
inline Complex conjugate(Complex a) { return {a.re, -a.im}; }

/// exp(2πi · numerator / denominator), the fraction reduced exactly first.
[[nodiscard]] Complex unit_root(std::int64_t numerator, std::int64_t denominator);

/// The transform X[k] = Σ x[j] · exp(−2πi·jk/n) of one length. One object serves many threads, each
/// with its own arrays.
class Fft {
 public:
  explicit Fft(std::int64_t n);

  /// Transforms `data` (n) in place; `scratch` is resized as needed.
  void forward(std::vector<Complex>& data, std::vector<Complex>& scratch) const;

 private:
  void by_factors(std::vector<Complex>& data, std::vector<Complex>& scratch) const;
  void by_chirp(std::vector<Complex>& data, std::vector<Complex>& scratch) const;

  std::int64_t n_;
  std::vector<int> factors_;    ///< of n; empty when one is too large, then the rest is used
  std::vector<Complex> roots_;  ///< exp(−2πi·k/n)
  std::unique_ptr<Fft> padded_;
  std::vector<Complex> chirp_;           ///< exp(−πi·k²/n), k < n
  std::vector<Complex> chirp_spectrum_;  ///< of the conjugate chirp, wrapped to the padded length
};

}  // namespace spdnn
