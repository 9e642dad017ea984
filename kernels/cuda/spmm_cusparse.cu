// spmm_cusparse: NVIDIA's SpMM, and the epilogue as a kernel of our own.
//
// Mapping: cuSPARSE's (CSR, row-major dense, algorithm 2), all panels as one strided batch over the
// same matrix; then the epilogue of library_product.cu.
//
// Bytes: the product's, plus 8 · P for each output of each panel for the epilogue; indices 4 bytes,
// values 4 bytes even where they are shared.
//
// Wins hardly ever on these layers: it is the yardstick, and a second opinion.
//
// Order: other; two runs may differ in the last bits.
#include <map>

#include "cuda/cuda_kernels.hpp"
#include "cuda/cusparse_api.hpp"
#include "cuda/library_product.hpp"

namespace spdnn {
namespace {

using cuda::CusparseApi;

using Handle = std::shared_ptr<std::remove_pointer_t<cusparseHandle_t>>;
using SparseMatrix = std::shared_ptr<std::remove_pointer_t<cusparseSpMatDescr_t>>;
using DenseMatrix = std::shared_ptr<std::remove_pointer_t<cusparseDnMatDescr_t>>;

/// Most matrices of one strided batch: they become the second dimension of a grid.
constexpr std::int64_t kMostPanels = 65535;
constexpr auto kPlain = CUSPARSE_OPERATION_NON_TRANSPOSE;
constexpr auto kAlgorithm = CUSPARSE_SPMM_CSR_ALG2;

const CusparseApi& loaded_api() {
  std::string why;
  const CusparseApi* api = cuda::cusparse_api(why);
  if (api == nullptr) throw DeviceError("spmm_cusparse: " + why);
  return *api;
}

std::optional<std::string> declines(const SpmmShape& shape, const DeviceInfo& /*device*/) {
  if (auto reason = cuda::declines_common(shape)) return reason;
  const std::int64_t most = 0x7fffffff;
  if (shape.nnz > most || shape.cols > most) {
    return "the matrix passes 2147483647 entries or columns, and its indices have 32 bits";
  }
  const std::int64_t panels = cuda::ceil_div(shape.batch, shape.panel_width);
  if (panels > kMostPanels) {
    return std::to_string(panels) + " panels at once; it takes at most " +
           std::to_string(kMostPanels);
  }
  std::string why;
  if (cuda::cusparse_api(why) == nullptr) return why;
  return std::nullopt;
}

/// What the layers of one thread on one device share. They run in the order of one stream.
struct Session {
  Handle handle;
  Buffer workspace;  ///< cuSPARSE's
  Buffer product;    ///< W · x before its epilogue, where it can't go to y
};

/// The panels of the last product, described for cuSPARSE.
struct Operands {
  Panels<const float> x;
  Panels<float> y;
  DenseMatrix x_matrix, y_matrix;
  std::size_t workspace_bytes = 0;
};

/// A layer's matrix for cuSPARSE.
struct Layer {
  Device* device = nullptr;
  Buffer offsets, columns, values;
  std::shared_ptr<Session> session;
  SparseMatrix matrix;
  mutable Operands operands;  ///< a cache: one thread drives a device
};

/// This thread's session on its current device, kept as long as a layer holds it.
std::shared_ptr<Session> shared_session(const CusparseApi& api) {
  thread_local std::map<int, std::weak_ptr<Session>> sessions;
  int device = 0;
  cuda::check(cudaGetDevice(&device), "cudaGetDevice");
  if (auto session = sessions[device].lock()) return session;
  cusparseHandle_t created = nullptr;
  api.check(api.create(&created), "cusparseCreate");
  auto session = std::make_shared<Session>();
  session->handle = Handle(created, api.destroy);
  sessions[device] = session;
  return session;
}

template <class T>
Buffer upload(const std::vector<T>& host, Device& device, Stream& stream) {
  Buffer buffer = device.allocate(host.size() * sizeof(T));
  stream.copy(buffer.data(), host.data(), host.size() * sizeof(T));
  return buffer;
}

void upload_matrix(Layer& layer, const CsrView& host, Stream& stream) {
  std::vector<std::int32_t> offsets(static_cast<std::size_t>(host.rows + 1));
  std::vector<std::int32_t> columns(static_cast<std::size_t>(host.nnz));
  std::vector<float> values(static_cast<std::size_t>(host.nnz));
  for (std::int64_t row = 0; row <= host.rows; ++row) {
    offsets[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(host.row_begin(row));
  }
  for (std::int64_t k = 0; k < host.nnz; ++k) {
    columns[static_cast<std::size_t>(k)] = static_cast<std::int32_t>(host.col(k));
    values[static_cast<std::size_t>(k)] = static_cast<float>(host.value(k));
  }
  layer.offsets = upload(offsets, *layer.device, stream);
  layer.columns = upload(columns, *layer.device, stream);
  layer.values = upload(values, *layer.device, stream);
  stream.synchronize();  // the host arrays end here
}

PreparedWeights prepare(const CsrView& host, Device& device, Stream& stream) {
  const CusparseApi& api = loaded_api();
  cuda::stream_of(stream);  // makes the device current: the handle will belong to it
  auto layer = std::make_shared<Layer>();
  layer->device = &device;
  layer->session = shared_session(api);
  if (host.nnz > 0) {
    upload_matrix(*layer, host, stream);
    cusparseSpMatDescr_t matrix = nullptr;
    api.check(api.create_csr(&matrix, host.rows, host.cols, host.nnz, layer->offsets.data(),
                             layer->columns.data(), layer->values.data(), CUSPARSE_INDEX_32I,
                             CUSPARSE_INDEX_32I, CUSPARSE_INDEX_BASE_ZERO, CUDA_R_32F),
              "cusparseCreateCsr");
    layer->matrix = SparseMatrix(matrix, api.destroy_sparse);
  }
  PreparedWeights prepared = upload_csr(host, device, stream);
  prepared.format = std::move(layer);
  return prepared;
}

/// A strided batch of row-major `[features × width]` matrices, one a panel.
DenseMatrix dense_batch(const CusparseApi& api, void* data, std::int64_t features,
                        std::int64_t width, std::int64_t panels) {
  cusparseDnMatDescr_t created = nullptr;
  api.check(
      api.create_dense(&created, features, width, width, data, CUDA_R_32F, CUSPARSE_ORDER_ROW),
      "cusparseCreateDnMat");
  DenseMatrix matrix(created, api.destroy_dense);
  api.check(api.set_dense_batch(created, static_cast<int>(panels), features * width),
            "cusparseDnMatSetStridedBatch");
  return matrix;
}

template <class T>
bool same_panels(const Panels<T>& a, const Panels<T>& b) {
  return a.data == b.data && a.features == b.features && a.width == b.width &&
         a.count() == b.count();
}

/// Describes x and y for cuSPARSE, unless they are those of the last product.
const Operands& operands_for(const Layer& layer, const Panels<const float>& x,
                             const Panels<float>& y, const float* one, const float* zero) {
  Operands& operands = layer.operands;
  if (same_panels(operands.x, x) && same_panels(operands.y, y)) return operands;
  const CusparseApi& api = loaded_api();
  const std::int64_t panels = x.count();
  operands = Operands{};
  // A stride of 0 repeats the one matrix for every panel.
  api.check(api.set_csr_batch(layer.matrix.get(), static_cast<int>(panels), 0, 0),
            "cusparseCsrSetStridedBatch");
  operands.x_matrix = dense_batch(api, const_cast<float*>(x.data), x.features, x.width, panels);
  operands.y_matrix = dense_batch(api, y.data, y.features, y.width, panels);
  api.check(
      api.spmm_buffer_size(layer.session->handle.get(), kPlain, kPlain, one, layer.matrix.get(),
                           operands.x_matrix.get(), zero, operands.y_matrix.get(), CUDA_R_32F,
                           kAlgorithm, &operands.workspace_bytes),
      "cusparseSpMM_bufferSize");
  operands.x = x;
  operands.y = y;
  return operands;
}

/// y ← W · x for all panels within the bound of the batch.
void multiply(const Layer& layer, const Panels<const float>& x, const Panels<float>& y,
              cudaStream_t stream) {
  const CusparseApi& api = loaded_api();
  Session& session = *layer.session;
  const float one = 1.0F;
  const float zero = 0.0F;
  api.check(api.set_stream(session.handle.get(), stream), "cusparseSetStream");
  const Operands& operands = operands_for(layer, x, y, &one, &zero);
  void* workspace = cuda::with_room(session.workspace, operands.workspace_bytes, *layer.device);
  api.check(api.spmm(session.handle.get(), kPlain, kPlain, &one, layer.matrix.get(),
                     operands.x_matrix.get(), &zero, operands.y_matrix.get(), CUDA_R_32F,
                     kAlgorithm, workspace),
            "cusparseSpMM");
}

void run(const SpmmArgs<float>& args, Stream& stream) {
  cudaStream_t native = cuda::stream_of(stream);
  const cuda::SpmmKernelArgs kernel = cuda::kernel_args(args, stream);
  const auto& layer = *static_cast<const Layer*>(args.weights->format.get());
  if (kernel.csr.rows == 0 || args.x.count() == 0) return;
  const Panels<float> product = cuda::product_panels(args, layer.session->product, *layer.device);
  if (kernel.csr.nnz == 0) {
    stream.zero(product.data, static_cast<std::size_t>(product.size()) * sizeof(float));
  } else {
    multiply(layer, args.x, product, native);
  }
  cuda::run_epilogue(kernel, product.data, native);
}

}  // namespace

const SpmmKernel<float>& spmm_cusparse() {
  static const SpmmKernel<float> kernel{"spmm_cusparse", DeviceKind::cuda,
                                        Order::other,    &declines,
                                        &prepare,        &run,
                                        Precision::fp32, false};
  return kernel;
}

}  // namespace spdnn
