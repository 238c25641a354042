// Before a worker's loader: counts what the worker asks of WebGPU. Every reply says how much since the one before.
let counted = { dispatches: 0, kernels: [], reads: 0 };
const watch = (prototype, method, tell) => {
  const original = prototype[method];
  prototype[method] = function (...rest) {
    tell(...rest);
    return original.apply(this, rest);
  };
};
watch(GPUComputePassEncoder.prototype, "dispatchWorkgroups", () => (counted.dispatches += 1));
for (const method of ["createComputePipeline", "createComputePipelineAsync"]) {
  watch(GPUDevice.prototype, method, ({ label }) => counted.kernels.push(label));
}
watch(GPUBuffer.prototype, "mapAsync", () => (counted.reads += 1));
const post = self.postMessage.bind(self);
self.postMessage = (message) => {
  if (typeof message !== "string" || !message.startsWith("{")) {
    return post(message);
  }
  const reply = JSON.parse(message);
  reply.counted = counted;
  counted = { dispatches: 0, kernels: [], reads: 0 };
  post(JSON.stringify(reply));
};
