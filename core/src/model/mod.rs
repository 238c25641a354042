use crate::Result;
use burn::tensor::Device;
pub struct LoadedModel;
/// Takes a checkpoint shard by shard.
pub struct Loader;
impl Loader {
    /// `config` and `tokenizer` are the bytes of config.json and tokenizer.json.
    pub fn new(_config: &[u8], _tokenizer: &[u8], _device: &Device) -> Result<Self> { todo!() }
    /// Shard file names in order, from the bytes of model.safetensors.index.json.
    pub fn shard_names(_index: &[u8]) -> Result<Vec<String>> { todo!() }
    /// `name` is used in messages only; `bytes` is a whole safetensors file.
    pub fn add_shard(&mut self, _name: &str, _bytes: &[u8]) -> Result<()> { todo!() }
    /// Checks that nothing is missing. `id` is what ModelInfo will call it.
    pub async fn finish(self, _id: &str) -> Result<LoadedModel> { todo!() }
}
