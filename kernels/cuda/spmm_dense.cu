// dense, dense_tf32: the layer as a dense matrix, multiplied by cuBLAS, and the epilogue as a
// kernel of our own.
//
// Mapping: cuBLAS's, all panels as one strided batch over the same matrix; then the epilogue of
// library_product.cu. `dense_tf32` rounds weights and activations to 11 bits and uses tensor cores.
//
// Bytes: 4 for each pair of input and output, there or not; the epilogue's on top. Operations: all
// rows × cols.
//
// Wins where a layer is so dense that skipping zeros gains nothing: from about a quarter of the
// weights there in fp32, where both sides are bound by the FMA units and their operands.
//
// Order: other. A zero of the dense matrix times an infinite activation is not zero.
#include <map>

#include "cuda/cublas_api.hpp"
#include "cuda/cuda_kernels.hpp"
#include "cuda/library_product.hpp"

namespace spdnn {
namespace {

using cuda::CublasApi;
using Handle = std::shared_ptr<std::remove_pointer_t<cublasHandle_t>>;

/// At most one weight in so many is there: beyond, dense multiplication does far more than it
/// saves, on tensor cores as well.
constexpr std::int64_t kMostSparse = 64;

const CublasApi& loaded_api() {
  std::string why;
  const CublasApi* api = cuda::cublas_api(why);
  if (api == nullptr) throw DeviceError("dense: " + why);
  return *api;
}

std::optional<std::string> declines(const SpmmShape& shape, const DeviceInfo& device) {
  if (auto reason = cuda::declines_common(shape)) return reason;
  const std::int64_t most = 0x7fffffff;
  if (shape.cols > most) return std::to_string(shape.cols) + " columns; cuBLAS numbers 2147483647";
  if (shape.nnz < shape.rows * shape.cols / kMostSparse) {
    return "fewer than one weight in " + std::to_string(kMostSparse) + " is there";
  }
  const std::int64_t bytes = shape.rows * shape.cols * std::int64_t{sizeof(float)};
  if (bytes > device.memory_bytes / 8) {
    return "the dense matrix takes " + std::to_string(bytes) + " bytes, more than an eighth of " +
           std::to_string(device.memory_bytes);
  }
  std::string why;
  if (cuda::cublas_api(why) == nullptr) return why;
  return std::nullopt;
}

std::optional<std::string> declines_tf32(const SpmmShape& shape, const DeviceInfo& device) {
  if (auto reason = cuda::declines_precision(shape, Precision::tf32)) return reason;
  return declines(shape, device);
}

/// What the layers of one thread on one device share. They run in the order of one stream.
struct Session {
  Handle handle;
  Buffer product;  ///< W · x before its epilogue, where it can't go to y
};

struct Layer {
  Device* device = nullptr;
  Buffer matrix;  ///< row-major
  std::shared_ptr<Session> session;
};

/// This thread's session on its current device, kept as long as a layer holds it.
std::shared_ptr<Session> shared_session(const CublasApi& api) {
  thread_local std::map<int, std::weak_ptr<Session>> sessions;
  int device = 0;
  cuda::check(cudaGetDevice(&device), "cudaGetDevice");
  if (auto session = sessions[device].lock()) return session;
  cublasHandle_t created = nullptr;
  api.check(api.create(&created), "cublasCreate");
  auto session = std::make_shared<Session>();
  session->handle = Handle(created, api.destroy);
  sessions[device] = session;
  return session;
}

PreparedWeights prepare(const CsrView& host, Device& device, Stream& stream) {
  const CublasApi& api = loaded_api();
  cuda::stream_of(stream);  // makes the device current: the handle will belong to it
  auto layer = std::make_shared<Layer>();
  layer->device = &device;
  layer->session = shared_session(api);
  std::vector<float> matrix(static_cast<std::size_t>(host.rows * host.cols), 0.0F);
  for (std::int64_t row = 0; row < host.rows; ++row) {
    for (std::int64_t k = host.row_begin(row); k < host.row_begin(row + 1); ++k) {
      matrix[static_cast<std::size_t>(row * host.cols + host.col(k))] +=
          static_cast<float>(host.value(k));
    }
  }
  cuda::upload(matrix, layer->matrix, device, stream);
  PreparedWeights prepared = upload_csr(host, device, stream);
  stream.synchronize();  // the host array ends here
  prepared.format = std::move(layer);
  return prepared;
}

/// product ← W · x for all panels. What is row-major here, `[rows × cols] · [cols × P]`, is
/// column-major and transposed to cuBLAS: `[P × cols] · [cols × rows]`.
void multiply(const Layer& layer, const CsrView& csr, const Panels<const float>& x,
              const Panels<float>& product, cublasComputeType_t type, cudaStream_t stream) {
  const CublasApi& api = loaded_api();
  cublasHandle_t handle = layer.session->handle.get();
  const float one = 1.0F;
  const float zero = 0.0F;
  const int width = static_cast<int>(x.width);
  const int rows = static_cast<int>(csr.rows);
  const int cols = static_cast<int>(csr.cols);
  api.check(api.set_stream(handle, stream), "cublasSetStream");
  api.check(api.multiply(handle, CUBLAS_OP_N, CUBLAS_OP_N, width, rows, cols, &one, x.data,
                         CUDA_R_32F, width, csr.cols * x.width, layer.matrix.data(), CUDA_R_32F,
                         cols, 0, &zero, product.data, CUDA_R_32F, width, csr.rows * x.width,
                         static_cast<int>(x.count()), type, CUBLAS_GEMM_DEFAULT),
            "cublasGemmStridedBatchedEx");
}

void run_as(const SpmmArgs<float>& args, Stream& stream, cublasComputeType_t type) {
  cudaStream_t native = cuda::stream_of(stream);
  const cuda::SpmmKernelArgs kernel = cuda::kernel_args(args, stream);
  const auto& layer = *static_cast<const Layer*>(args.weights->format.get());
  if (kernel.csr.rows == 0 || args.x.count() == 0) return;
  const Panels<float> product = cuda::product_panels(args, layer.session->product, *layer.device);
  if (kernel.csr.nnz == 0) {
    stream.zero(product.data, static_cast<std::size_t>(product.size()) * sizeof(float));
  } else {
    multiply(layer, kernel.csr, args.x, product, type, native);
  }
  cuda::run_epilogue(kernel, product.data, native);
}

void run(const SpmmArgs<float>& args, Stream& stream) { run_as(args, stream, CUBLAS_COMPUTE_32F); }

void run_tf32(const SpmmArgs<float>& args, Stream& stream) {
  run_as(args, stream, CUBLAS_COMPUTE_32F_FAST_TF32);
}

}  // namespace

const SpmmKernel<float>& spmm_dense() {
  static const SpmmKernel<float> kernel{
      "dense", DeviceKind::cuda, Order::other, &declines, &prepare, &run, Precision::fp32, false};
  return kernel;
}

const SpmmKernel<float>& spmm_dense_tf32() {
  static const SpmmKernel<float> kernel{
      "dense_tf32", DeviceKind::cuda, Order::other,    &declines_tf32,
      &prepare,     &run_tf32,        Precision::tf32, false};
  return kernel;
}

}  // namespace spdnn
