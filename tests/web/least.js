// Before a worker's loader: the adapter offers what WebGPU promises at least, and the device is asked for no more.
const least = {
  maxStorageBufferBindingSize: 128 * 1024 * 1024,
  maxBufferSize: 256 * 1024 * 1024,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupSizeY: 256,
  maxComputeWorkgroupStorageSize: 16384,
  maxStorageBuffersPerShaderStage: 8,
};
const all = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, "limits").get;
Object.defineProperty(GPUAdapter.prototype, "limits", {
  get() {
    const own = all.call(this);
    return new Proxy(own, { get: (_, name) => Math.min(least[name] ?? Infinity, own[name]) });
  },
});
const asked = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...rest) {
  const device = await asked.apply(this, rest);
  for (const [name, limit] of Object.entries(least)) {
    if (device.limits[name] > limit) {
      throw new Error(`the device has ${name} = ${device.limits[name]}`);
    }
  }
  return device;
};
