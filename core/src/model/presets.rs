use rectify_protocol::EditorSpec;

use super::Model;

/// Every method's published settings for the model's family, with the layers to edit filled in.
pub fn presets(model: &Model) -> Vec<EditorSpec> {
    let preset = |method: &&str| EditorSpec::preset(method, model.architecture(), model.shape().layers);
    EditorSpec::METHODS.iter().filter_map(preset).collect()
}
