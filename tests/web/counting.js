// Before a worker's loader: counts what the worker asks of WebGPU. Every reply says how much since the one before.
const counted = { dispatches: 0, pipelines: 0, reads: 0 };
const count = (prototype, method, what) => {
  const original = prototype[method];
  prototype[method] = function (...rest) {
    counted[what] += 1;
    return original.apply(this, rest);
  };
};
count(GPUComputePassEncoder.prototype, "dispatchWorkgroups", "dispatches");
count(GPUDevice.prototype, "createComputePipeline", "pipelines");
count(GPUDevice.prototype, "createComputePipelineAsync", "pipelines");
count(GPUBuffer.prototype, "mapAsync", "reads");
const post = self.postMessage.bind(self);
self.postMessage = (message) => {
  if (typeof message !== "string" || !message.startsWith("{")) {
    return post(message);
  }
  const reply = JSON.parse(message);
  reply.counted = { ...counted };
  for (const what in counted) {
    counted[what] = 0;
  }
  post(JSON.stringify(reply));
};
