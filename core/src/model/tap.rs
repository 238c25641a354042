use burn::tensor::Tensor;

/// A place in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// The block, from zero.
    pub layer: usize,
    /// Where in the block.
    pub at: At,
}

/// Where in a block, with the shape of the value there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// `[batch, pos, d_model]`: what the MLP reads, after its norm.
    MlpIn,
    /// `[batch, pos, d_mlp]`: before the nonlinearity. GPT-2's up projection, LLaMA's gate.
    MlpPre,
    /// `[batch, pos, d_mlp]`: what LLaMA's gate is multiplied with; GPT-2 has no such place.
    MlpUp,
    /// `[batch, pos, d_mlp]`: what the down projection reads; the key of the associative memory.
    MlpKey,
    /// `[batch, pos, d_model]`: what the down projection adds to the residual stream.
    MlpOut,
    /// `[batch, pos, d_model]`: the residual stream after the block.
    ResidPost,
}

/// Looks at, or replaces, values on their way through a model.
pub trait Tap {
    /// Returns what the model goes on with.
    fn tap(&mut self, site: Site, value: Tensor<3>) -> Tensor<3>;

    /// The same for a value whose batch and positions are one dimension: `[batch * pos, width]`.
    fn tap_flat(&mut self, site: Site, value: Tensor<2>, [batch, pos]: [usize; 2]) -> Tensor<2> {
        let [_, width] = value.dims();
        self.tap(site, value.reshape([batch, pos, width])).reshape([batch * pos, width])
    }
}

/// Leaves everything as it is.
pub struct NoTap;

impl Tap for NoTap {
    fn tap(&mut self, _: Site, value: Tensor<3>) -> Tensor<3> {
        value
    }
}

/// Keeps a copy of the values at some sites.
pub struct Capture {
    values: Vec<(Site, Option<Tensor<3>>)>,
}

impl Capture {
    /// Will keep the values at `sites`.
    pub fn new(sites: &[Site]) -> Self {
        Self { values: sites.iter().map(|site| (*site, None)).collect() }
    }

    /// The value at `site`.
    ///
    /// # Panics
    ///
    /// When the pass did not reach the site, or it was not asked for.
    pub fn take(&mut self, site: Site) -> Tensor<3> {
        self.values
            .iter_mut()
            .find(|(wanted, _)| *wanted == site)
            .and_then(|(_, value)| value.take())
            .unwrap_or_else(|| panic!("{site:?} was captured by this pass"))
    }
}

impl Tap for Capture {
    fn tap(&mut self, site: Site, value: Tensor<3>) -> Tensor<3> {
        for (wanted, slot) in &mut self.values {
            if *wanted == site {
                *slot = Some(value.clone());
            }
        }
        value
    }
}
