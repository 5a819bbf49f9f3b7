"""What PyTorch has and gpugrad has not, and what to use instead: the text of the AttributeError, and
what docs/pytorch_coverage.md says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_COMPLEX = "there are no complex numbers here"
_SPARSE = "there are no sparse tensors here; dense ones do the same"
_QUANTISED = "there are no quantised tensors here; float16 and bfloat16 halve the memory"
_PARTS = f"{_COMPLEX}; keep the real and the imaginary part in two tensors"
_SYMBOLIC = "there are no symbolic shapes here; sizes are Python's int"
_DETERMINISTIC = "every operation here is deterministic"

#: reason -> names: bare ones of the package and of Tensor, dotted ones of another namespace
_REASONS = {
    _PARTS: "complex polar view_as_complex view_as_real complex32 complex64 complex128 cfloat cdouble chalf "
    "view_as_complex_copy view_as_real_copy real_if_close",
    f"{_COMPLEX}; numpy.fft on tensor.numpy() transforms on the CPU": "fft stft istft",
    _SPARSE: "sparse sparse_coo_tensor sparse_csr_tensor sparse_csc_tensor sparse_bsr_tensor sparse_bsc_tensor "
    "sparse_compressed_tensor to_sparse to_sparse_csr to_sparse_csc to_sparse_coo to_sparse_bsr to_sparse_bsc coalesce "
    "indices values crow_indices col_indices ccol_indices row_indices sparse_dim dense_dim sparse_mask smm sspaddmm "
    "hspmm dsmm hsmm saddmm spmm resize_as_sparse_ sparse_resize_ sparse_resize_and_clear_ to_padded_tensor "
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
    "programs are Python here, there is nothing to script; leave the call or decorator away": "jit "
    "cond fx library classes",
    "models are exported as safetensors (gpugrad.save) only": "onnx export package",
    "one process, one device at a time; there is no distributed training": "distributed futures",
    "Python's own multiprocessing does it; tensors are pickled": "multiprocessing",
    _SYMBOLIC: "SymInt SymFloat SymBool sym_int sym_float sym_max sym_min sym_not sym_ite sym_sqrt sym_sum "
    "sym_fresh_size",
    "streams are in order on every device; gpugrad.synchronize() waits": "Stream Event record_stream",
    "models are not downloaded; gpugrad.load reads PyTorch's checkpoints": "hub",
    "the names of dimensions are not kept": "align_to align_as refine_names rename rename_",
    _DETERMINISTIC: "get_deterministic_debug_mode set_deterministic_debug_mode",
    "warnings are Python's; its warnings module decides which are shown": "set_warn_always is_warn_always_enabled",
    "gpugrad.devices() lists what there is, register_backend adds to it": "get_device_module accelerator mps mtia "
    "xpu",
    "a device's failures are gpugrad.DeviceError and gpugrad.OutOfMemoryError": "AcceleratorError",
    "linalg.eigh gives all eigenvalues; take the largest or smallest": "lobpcg",
    "nn.functional.embedding_bag gives the result, without its bookkeeping": "embedding_bag",
    "time.perf_counter around gpugrad.synchronize() measures a device's work": "monitor",
    "numpy.testing does it, on tensor.numpy()": "testing",
    "__torch_function__ is not called; override the methods of a subclass of Tensor": "overrides",
    "the names are those of the package itself": "functional storage serialization return_types",
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
    "streams are in order on every device; cuda.synchronize() waits, and time.perf_counter measures": "cuda.Event "
    "cuda.Stream cuda.ExternalStream cuda.StreamContext cuda.GreenContext cuda.current_stream cuda.default_stream "
    "cuda.get_stream_from_external cuda.set_stream cuda.stream",
    "there are no graphs of launches here; call the function itself": "cuda.CUDAGraph cuda.graph "
    "cuda.graph_pool_handle cuda.is_current_stream_capturing cuda.make_graphed_callables",
    "memory_allocated, max_memory_allocated, reset_peak_memory_stats, memory_reserved, mem_get_info and empty_cache "
    "are what there is; gpugrad.memory_stats(device) has all figures": (
        "cuda.MemPool cuda.use_mem_pool cuda.CUDAPluggableAllocator cuda.change_current_allocator "
        "cuda.get_allocator_backend cuda.caching_allocator_alloc cuda.caching_allocator_delete "
        "cuda.caching_allocator_disabled cuda.caching_allocator_enable cuda.host_memory_stats "
        "cuda.host_memory_stats_as_nested_dict cuda.memory_stats cuda.memory_stats_as_nested_dict cuda.memory_snapshot "
        "cuda.memory_summary cuda.memory_cached cuda.max_memory_cached cuda.max_memory_reserved "
        "cuda.reset_accumulated_host_memory_stats cuda.reset_accumulated_memory_stats "
        "cuda.reset_max_memory_cached cuda.reset_peak_host_memory_stats "
        "cuda.get_per_process_memory_fraction cuda.set_per_process_memory_fraction"
    ),
    "nvidia-smi tells": "cuda.temperature cuda.power_draw cuda.clock_rate cuda.utilization cuda.memory_usage "
    "cuda.device_memory_used cuda.list_gpu_processes",
    "a tensor of that dtype, moved by .cuda()": "cuda.BFloat16Tensor cuda.BoolTensor cuda.ByteTensor cuda.CharTensor "
    "cuda.DoubleTensor cuda.FloatTensor cuda.HalfTensor cuda.IntTensor cuda.LongTensor cuda.ShortTensor",
    "CuPy is the way to CUDA's own interfaces": "cuda.cudart cuda.check_error cuda.cudaStatus cuda.current_blas_handle "
    "cuda.current_solver_handle cuda.get_arch_list cuda.get_gencode_flags cuda.ipc_collect cuda.init "
    "cuda.can_device_access_peer cuda.jiterator",
    "a device's failures are gpugrad.DeviceError": "cuda.CudaError cuda.DeferredCudaCallError",
    "all devices share one stream of random numbers: get_rng_state, set_rng_state": "cuda.get_rng_state_all "
    "cuda.set_rng_state_all",
    "with cuda.device(tensor.device) says it": "cuda.device_of",
    "reading a value back is what waits; nothing else does": "cuda.get_sync_debug_mode cuda.set_sync_debug_mode",
    "products of float32 are in float32": "cuda.is_tf32_supported",
    "gpugrad.profiler.profile records and exports": "profiler.ExecutionTraceObserver profiler.kineto_available "
    "profiler.DeviceType",
    "make a second optimizer of the other parameters": "optim.swap_in_optimizer_params_and_state",
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


def missing(module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of ``gpugrad.<module>``, which is called for names that it has not."""

    def complain(name: str) -> Any:
        why = REASONS.get(f"{module}.{name}")
        text = f"module 'gpugrad.{module}' has no attribute {name!r}"
        raise AttributeError(f"{text}: {why}" if why else text)

    return complain
