"""What PyTorch has and gpugrad has not, and what to use instead: the text of the AttributeError, and
what docs/pytorch_coverage.md says of it."""

from __future__ import annotations

_COMPLEX = "there are no complex numbers here"
_SPARSE = "there are no sparse tensors here; dense ones do the same"
_QUANTISED = "there are no quantised tensors here; float16 and bfloat16 halve the memory"
_PARTS = f"{_COMPLEX}; keep the real and the imaginary part in two tensors"
_SYMBOLIC = "there are no symbolic shapes here; sizes are Python's int"
_DETERMINISTIC = "every operation here is deterministic; use_deterministic_algorithms(True) is kept and changes nothing"
_MIXED = "nothing is cast by itself here: convert model and inputs by .bfloat16(), whose range needs no scaled loss"

#: reason -> names: bare ones of the package and of Tensor, dotted ones of another namespace
_REASONS = {
    _PARTS: "complex polar view_as_complex view_as_real complex32 complex64 complex128 cfloat cdouble chalf "
    "view_as_complex_copy view_as_real_copy real_if_close",
    f"{_COMPLEX}; numpy.fft on tensor.numpy() transforms on the CPU": "fft stft istft",
    _SPARSE: "sparse sparse_coo_tensor sparse_csr_tensor sparse_csc_tensor sparse_bsr_tensor sparse_bsc_tensor "
    "sparse_compressed_tensor to_sparse to_sparse_csr to_sparse_csc to_sparse_coo to_sparse_bsr to_sparse_bsc coalesce "
    "indices values crow_indices col_indices ccol_indices row_indices sparse_dim dense_dim sparse_mask smm sspaddmm "
    "hspmm dsmm hsmm saddmm spmm resize_as_sparse_ sparse_resize_ sparse_resize_and_clear_ to_dense to_padded_tensor "
    "sparse_coo sparse_csr sparse_csc sparse_bsr sparse_bsc indices_copy values_copy crow_indices_copy "
    "col_indices_copy ccol_indices_copy row_indices_copy",
    "there are no nested tensors here; nn.utils.rnn.pad_sequence makes one tensor of several": "nested jagged masked",
    _QUANTISED: "quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic dequantize int_repr q_scale "
    "q_zero_point q_per_channel_scales q_per_channel_zero_points q_per_channel_axis qscheme quint8 qint8 "
    "qint32 quint4x2 quint2x4 fake_quantize_per_tensor_affine fake_quantize_per_channel_affine "
    "quantized_lstm_cell quantized_gru_cell quantized_rnn_relu_cell quantized_rnn_tanh_cell "
    "quantized_batch_norm quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d empty_quantized ao "
    "quantization",
    "the half types are float16 and bfloat16": "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz "
    "float8_e8m0fnu float4_e2m1fn_x2 nn.functional.scaled_mm nn.functional.scaled_grouped_mm "
    "nn.functional.ScalingType nn.functional.SwizzleType",
    "the smallest integers have eight bits": "bit int1 int2 int3 int4 int5 int6 int7 uint1 uint2 uint3 uint4 uint5 "
    "uint6 uint7 bits1x8 bits2x4 bits4x2 bits8 bits16",
    "programs are Python here, there is nothing to script; leave the call or decorator away": "jit compile compiler "
    "cond fx library classes",
    "models are exported as safetensors (gpugrad.save) only": "onnx export package",
    "one process, one device at a time; there is no distributed training": "distributed futures",
    "Python's own multiprocessing does it; tensors are pickled": "multiprocessing",
    _SYMBOLIC: "SymInt SymFloat SymBool sym_int sym_float sym_max sym_min sym_not sym_ite sym_sqrt sym_sum "
    "sym_fresh_size",
    "streams are in order on every device; gpugrad.synchronize() waits": "Stream Event record_stream",
    "models are not downloaded; gpugrad.load reads PyTorch's checkpoints": "hub",
    "the names of dimensions are not kept": "align_to align_as refine_names rename rename_",
    _MIXED: "amp autocast GradScaler is_autocast_enabled get_autocast_dtype set_autocast_enabled set_autocast_dtype",
    _DETERMINISTIC: "get_deterministic_debug_mode set_deterministic_debug_mode",
    "warnings are Python's; its warnings module decides which are shown": "set_warn_always is_warn_always_enabled",
    "gpugrad.devices() lists what there is, register_backend adds to it": "get_device_module accelerator cpu mps mtia "
    "xpu",
    "a device's failures are gpugrad.DeviceError and gpugrad.OutOfMemoryError": "AcceleratorError",
    "linalg.eigh gives all eigenvalues; take the largest or smallest": "lobpcg",
    "nn.functional.embedding_bag gives the result, without its bookkeeping": "embedding_bag",
    "nonzero gives as many rows as there are": "nonzero_static",
    "time.perf_counter around gpugrad.synchronize() measures a device's work": "monitor",
    "numpy.testing does it, on tensor.numpy()": "testing",
    "__torch_function__ is not called; override the methods of a subclass of Tensor": "overrides",
    "numpy.hanning and the like, or gpugrad.hann_window and its relatives": "signal",
    "the names are those of the package itself": "functional storage serialization types return_types",
    "gpugrad.__version__ has it": "version torch_version",
    "a tensor's memory has no class of its own; untyped_storage() gives what can be asked of it": "storage_type",
    "gradients have the dtype of the tensor": "grad_dtype",
    "x[...] indexes": "Tensor.index",
    "map_ takes one other tensor; write the expression": "map2_",
    "resize_ and resize_as_ do it in place, reshape makes a new tensor": "resize resize_as",
    "there is no distributed training; every tensor is whole": "is_distributed",
    "a loop over the groups, or bmm where they are alike": "nn.functional.grouped_mm",
    "attention has one implementation per device; nn.attention.sdpa_kernel is accepted": (
        "nn.attention.activate_flash_attention_impl nn.attention.current_flash_attention_impl "
        "nn.attention.list_flash_attention_impls nn.attention.register_flash_attention_impl "
        "nn.attention.restore_flash_attention_impl"
    ),
    "make a second optimizer of the other parameters": "optim.swap_in_optimizer_params_and_state",
    "a TransformedDistribution of Uniform, Exponential or Normal is one": "distributions.Pareto distributions.Weibull "
    "distributions.Kumaraswamy distributions.GeneralizedPareto distributions.LogisticNormal",
    "MultivariateNormal takes the full covariance matrix": "distributions.LowRankMultivariateNormal",
    "of distributions over matrices and angles there is none": "distributions.LKJCholesky distributions.Wishart "
    "distributions.VonMises",
    "Beta and Uniform are distributions over the interval": "distributions.ContinuousBernoulli",
    "Distribution is the class to derive from": "distributions.ExponentialFamily",
    "apply a transform to each part": "distributions.CatTransform distributions.StackTransform",
    "the transform of a constraint is chosen by hand: ExpTransform, SigmoidTransform, StickBreakingTransform": (
        "distributions.biject_to distributions.transform_to"
    ),
    "Transform is the class to derive from": "distributions.CorrCholeskyTransform "
    "distributions.CumulativeDistributionTransform distributions.LowerCholeskyTransform "
    "distributions.PositiveDefiniteTransform",
    "DataPipes are not taken over; a Dataset or IterableDataset and the DataLoader do it": (
        "utils.data.IterDataPipe utils.data.MapDataPipe utils.data.DFIterDataPipe utils.data.DataChunk "
        "utils.data.functional_datapipe utils.data.argument_validation utils.data.runtime_validation "
        "utils.data.runtime_validation_disabled utils.data.non_deterministic "
        "utils.data.guaranteed_datapipes_determinism"
    ),
    "the walk backwards is one loop in the calling thread": "autograd.set_multithreading_enabled",
    "what strides a gradient has is left to the operation that made it": "autograd.enforce_grad_layout_policy",
    "write a Function": "autograd.NestedIOFunction",
    "every tensor is one": "autograd.variable",
    "transforms are plain Python functions, nothing is wrapped": "func.debug_unwrap func.functionalize",
    "there is no forward mode; func.jvp gives the product each time": "func.linearize",
    "reshape and permute": "func.rearrange",
    "build the modules with track_running_stats=False": "func.replace_all_batch_norm_modules_",
}  # fmt: skip

REASONS = {name: reason for reason, names in _REASONS.items() for name in names.split()}
