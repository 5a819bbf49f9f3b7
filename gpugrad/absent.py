"""What PyTorch has and gpugrad has not, and what to use instead: the text of the AttributeError, and
the last column of docs/pytorch_coverage.md."""

from __future__ import annotations

_COMPLEX = "there are no complex numbers here"
_SPARSE = "there are no sparse tensors here; dense ones do the same"
_QUANTISED = "there are no quantised tensors here; float16 and bfloat16 halve the memory"

#: reason -> names, of the package and of Tensor
_REASONS = {
    f"{_COMPLEX}; keep the real and the imaginary part in two tensors": "complex polar view_as_complex view_as_real "
    "complex32 complex64 complex128 cfloat cdouble chalf is_conj real_if_close view_as_complex_copy view_as_real_copy",
    f"{_COMPLEX}; numpy.fft on tensor.numpy() transforms on the CPU": "fft stft istft",
    f"{_COMPLEX}; for symmetric matrices there is linalg.eigh": "eig",
    _SPARSE: "sparse sparse_coo_tensor sparse_csr_tensor sparse_csc_tensor sparse_bsr_tensor sparse_bsc_tensor "
    "sparse_compressed_tensor to_sparse to_sparse_csr to_sparse_csc to_sparse_coo to_sparse_bsr to_sparse_bsc coalesce "
    "indices values crow_indices col_indices ccol_indices row_indices sparse_dim dense_dim sparse_mask smm sspaddmm "
    "hspmm dsmm hsmm saddmm spmm resize_as_sparse_ sparse_resize_ sparse_resize_and_clear_ to_mkldnn to_padded_tensor "
    "nested",
    _QUANTISED: "quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic dequantize int_repr q_scale "
    "q_zero_point q_per_channel_scales q_per_channel_zero_points q_per_channel_axis qscheme quint8 qint8 "
    "qint32 quint4x2 quint2x4 fake_quantize_per_tensor_affine fake_quantize_per_channel_affine "
    "quantized_lstm_cell quantized_gru_cell quantized_rnn_relu_cell quantized_rnn_tanh_cell "
    "quantized_batch_norm quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d empty_quantized ao quantization",
    "programs are Python here, there is nothing to script; leave the call or decorator away": "jit",
    "models are exported as safetensors (gpugrad.save) only": "onnx export",
    "one process, one device at a time; there is no distributed training": "distributed",
    "Python's own multiprocessing does it; tensors are pickled": "multiprocessing",
    "there are no symbolic shapes here": "SymInt SymFloat SymBool sym_int sym_float sym_max sym_min sym_not sym_ite "
    "sym_sqrt sym_sum",
    "streams are in order on every device; gpugrad.synchronize() waits": "Stream Event record_stream",
    "models are not downloaded; gpugrad.load reads PyTorch's checkpoints": "hub",
    "the names of dimensions are not kept": "align_to align_as refine_names rename rename_",
}  # fmt: skip

REASONS = {name: reason for reason, names in _REASONS.items() for name in names.split()}
