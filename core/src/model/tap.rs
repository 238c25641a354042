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
    /// `[batch, pos, d_model]`: what attention adds to the residual stream.
    AttnOut,
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

    /// Whether it has anything to do at a site. Where it has not, the value need not be there by itself.
    fn looks_at(&self, _: Site) -> bool {
        true
    }
}

/// A tap in one block, where batch and positions are one dimension: every product is one matrix product.
pub(super) struct BlockTap<'a> {
    pub tap: &'a mut dyn Tap,
    pub layer: usize,
    /// Batch and positions.
    pub dims: [usize; 2],
}

impl BlockTap<'_> {
    /// Whether anyone looks there.
    pub fn looks_at(&self, at: At) -> bool {
        self.tap.looks_at(Site { layer: self.layer, at })
    }

    /// `[batch * pos, width]`, after the tap.
    pub fn see(&mut self, at: At, value: Tensor<2>) -> Tensor<2> {
        if !self.looks_at(at) {
            return value;
        }
        let ([batch, pos], [_, width]) = (self.dims, value.dims());
        let value = value.reshape([batch, pos, width]);
        self.tap.tap(Site { layer: self.layer, at }, value).reshape([batch * pos, width])
    }
}

/// Leaves everything as it is.
pub struct NoTap;

impl Tap for NoTap {
    fn tap(&mut self, _: Site, value: Tensor<3>) -> Tensor<3> {
        value
    }

    fn looks_at(&self, _: Site) -> bool {
        false
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

    fn looks_at(&self, site: Site) -> bool {
        self.values.iter().any(|(wanted, _)| *wanted == site)
    }
}
