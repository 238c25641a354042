use crate::model::WeightSite;

/// A matrix that is edited, and which network transforms its gradients, in which mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The matrix.
    pub site: WeightSite,
    /// Which network.
    pub net: usize,
    /// Which scale and shift of that network: its index among the matrices of this shape.
    pub mode: usize,
}
