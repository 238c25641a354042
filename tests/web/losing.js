// Before a worker's loader: its device is lost in the middle of an optimisation.
const asked = GPUAdapter.prototype.requestDevice;
let own;
GPUAdapter.prototype.requestDevice = async function (...rest) {
  own = await asked.apply(this, rest);
  return own;
};
const post = self.postMessage.bind(self);
self.postMessage = (message) => {
  if (typeof message === "string" && JSON.parse(message.startsWith("{") ? message : "{}").event?.progress?.optimizing) {
    own.destroy();
  }
  post(message);
};
