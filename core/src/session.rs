use burn::tensor::Device;
use rectify_protocol::*;
use crate::{Result, model::LoadedModel};
pub struct Session;
impl Session {
    /// `device_name` goes to reports; `clock` gives seconds from any origin.
    pub fn new(_device: Device, _device_name: &str, _clock: fn() -> f64) -> Self { todo!() }
    pub fn device(&self) -> &Device { todo!() }
    /// Takes up a model; history starts anew.
    pub fn open(&mut self, _model: LoadedModel) -> ModelInfo { todo!() }
    pub fn info(&self) -> Option<ModelInfo> { todo!() }
    /// Another session on the same pristine model (weights shared), with an empty history.
    pub fn fork(&self) -> Self { todo!() }
    /// Runs one command and returns its last event (Answered, Edited, Measured or Undone).
    /// Dropping the future cancels: nothing has changed. `Load` and `Cancel` are the edge's and are refused here.
    pub async fn handle(&mut self, _command: Command, _watch: &mut dyn FnMut(Progress)) -> Result<Event> { todo!() }
    /// All edits of this session as one safetensors file: tensor names and orientation of the checkpoint;
    /// adding each tensor to the weight of that name gives the edited model.
    pub async fn export_delta(&self) -> Result<Vec<u8>> { todo!() }
    /// Applies such a file as one more edit. `name` is for messages.
    pub fn apply_delta(&mut self, _name: &str, _bytes: &[u8]) -> Result<()> { todo!() }
    /// Takes the average of k kᵀ of one layer (bytes of moment.LAYER.safetensors); returns warnings.
    pub fn add_moment(&mut self, _layer: usize, _name: &str, _bytes: &[u8]) -> Result<Vec<String>> { todo!() }
    /// Average of k kᵀ over `text` (documents one a line) for each of `layers`: bytes of moment.LAYER.safetensors each.
    pub async fn moments(&self, _corpus_name: &str, _documents: &[String], _layers: &[usize], _tokens: usize, _watch: &mut dyn FnMut(usize, usize)) -> Result<Vec<(usize, Vec<u8>)>> { todo!() }
    /// Perplexity on text cut into windows of `window` tokens, at most `windows` of them.
    pub async fn perplexity(&self, _text: &str, _window: usize, _windows: usize) -> Result<f64> { todo!() }
}
